# The gateway's image: one virtual environment on a slim Debian, run as user 10001.
# At run time only /tmp and /var/lib/gateway are written; mount a volume at the latter.
# docs/deploy.md says how it is built, run and checked.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# The tag is in PYTHON_IMAGE, where hadolint does not look for it (DL3006).
# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# What is installed: the lock runtime, or otel where traces are to be exported.
ARG LOCK=runtime
COPY requirements/build.txt requirements/runtime.txt requirements/otel.txt requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/gateway \
    && /opt/build/bin/python -m pip --python /opt/gateway/bin/python install --only-binary :all: --require-hashes \
        -r requirements/${LOCK:-runtime}.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
    && /opt/build/bin/python -m pip --python /opt/gateway/bin/python install --no-deps --no-index /opt/wheels/*.whl \
    && /opt/gateway/bin/python -m compileall -q /opt/gateway/lib

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="inducta-gateway" \
    org.opencontainers.image.description="A gateway between an organisation's programs and its language models" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# Debian keeps one version of tini for a release, and drops it when a fix comes: pinning it breaks the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /usr/local/lib/python3.*/ensurepip /usr/local/lib/python3.*/site-packages/* \
        /usr/local/bin/pip* \
    && groupadd --system --gid 10001 gateway \
    && useradd --system --uid 10001 --gid gateway --no-create-home --home-dir /var/lib/gateway gateway \
    && install -d -o gateway -g gateway /var/lib/gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:${PATH} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 GATEWAY_CONFIG=/etc/gateway/gateway.yaml \
    STATE_DIRECTORY=/var/lib/gateway
# Memory of large bodies goes back to the system, where glibc's moving thresholds would keep it (mallopt(3)).
ENV MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=131072
USER 10001:10001
WORKDIR /var/lib/gateway
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:9090/healthz', timeout=2)"]
ENTRYPOINT ["/usr/bin/tini", "--", "gateway"]
CMD ["serve"]
