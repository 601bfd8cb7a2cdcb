# What is shipped to run the gateway: checked by its own checkers and by real programs (docs/deploy.md).

TOOLS := .tools
HELM_VERSION := v3.22.0
KUBECONFORM_VERSION := v0.8.0
NPM_CHECKS := tests/deploy/npm
# The first container engine that is there; `make image ENGINE=/path/to/podman` overrides it.
ENGINE ?= $(shell command -v docker || command -v podman || command -v buildah)
IMAGE ?= inducta-gateway
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' gateway/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# The health check is of Docker's format, which podman and buildah write only when asked to.
FORMAT = $(if $(filter podman buildah,$(notdir $(ENGINE))),--format docker)

.PHONY: image sbom audit lock-audit docs lock-docs
.PHONY: test-deploy deploy-tools debian-tools generate lock-deploy pictures

test-deploy: debian-tools deploy-tools $(VENV)/.dev ## image, compose, chart, dashboards, alerts, proxy: with the real programs
	DEPLOY_TOOLS=required $(BIN)/python -m pytest tests/deploy $(PYTEST_ARGS)

deploy-tools: $(TOOLS)/venv/.done $(NPM_CHECKS)/node_modules/.package-lock.json $(TOOLS)/go/bin/helm $(TOOLS)/go/bin/kubeconform

generate: $(VENV)/.dev ## write the dashboards, the chart's schema of values and its README again
	$(BIN)/python -m deploy.dashboards
	$(BIN)/python -m deploy.values_schema
	$(BIN)/python -m deploy.chart_readme

lock-deploy: $(VENV)/.dev ## write requirements/deploy.txt again; UPGRADE=--upgrade takes newer versions
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock-deploy" $(UPGRADE) requirements/deploy.in -o requirements/deploy.txt

image: ## build the container image with docker, podman or buildah; IMAGE=registry.example.com/name, ENGINE=, LOCK=otel for traces
	@[ -n "$(ENGINE)" ] || { echo "Docker, podman or buildah builds the image, and none of them is installed. Install one, or say" \
		"where it is: make image ENGINE=/path/to/podman" >&2; exit 1; }
	$(ENGINE) build $(FORMAT) -t $(IMAGE):$(VERSION) -t $(IMAGE):latest \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(if $(LOCK),--build-arg LOCK=$(LOCK)) .

docs: $(TOOLS)/docs/.done ## build the documentation as a site in dist/site; a link that leads nowhere fails it
	NO_MKDOCS_2_WARNING=1 $(TOOLS)/docs/bin/mkdocs build --strict --quiet

lock-docs: $(VENV)/.dev ## write requirements/docs.txt again; UPGRADE=--upgrade takes newer versions
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock-docs" $(UPGRADE) requirements/docs.in -o requirements/docs.txt

$(TOOLS)/docs/.done: requirements/docs.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv $(TOOLS)/docs
	$(TOOLS)/docs/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/docs.txt
	@touch $@

sbom: $(VENV)/.dev ## write dist/sbom.json: every package of the gateway, as CycloneDX
	@mkdir -p dist
	$(BIN)/python -m deploy.sbom > dist/sbom.json

audit: $(TOOLS)/audit/.done ## look for known vulnerabilities of the locked packages (asks pypi.org)
	@for lock in runtime otel dev; do \
		$(TOOLS)/audit/bin/pip-audit --disable-pip --require-hashes --progress-spinner off \
			-r requirements/$$lock.txt >$(TOOLS)/audit/said 2>&1; status=$$?; \
		if grep -q "could not be audited" $(TOOLS)/audit/said \
			|| { [ $$status != 0 ] && ! grep -q "known vulnerabilit" $(TOOLS)/audit/said; }; then \
			echo "make audit: requirements/$$lock.txt was not audited, since pypi.org has not answered about all of its" \
				"packages. Run it where https://pypi.org itself is reachable. What pip-audit said is in" \
				"$(TOOLS)/audit/said." >&2; exit 1; \
		fi; \
		cat $(TOOLS)/audit/said; [ $$status = 0 ] || exit 1; \
	done

lock-audit: $(VENV)/.dev ## write requirements/audit.txt again; UPGRADE=--upgrade takes newer versions
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock-audit" $(UPGRADE) requirements/audit.in -o requirements/audit.txt

$(TOOLS)/audit/.done: requirements/audit.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv $(TOOLS)/audit
	$(TOOLS)/audit/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/audit.txt
	@touch $@

$(TOOLS)/venv/.done: requirements/deploy.txt | $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv $(TOOLS)/venv
	$(TOOLS)/venv/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/deploy.txt
	@touch $@

$(NPM_CHECKS)/node_modules/.package-lock.json: $(NPM_CHECKS)/package-lock.json
	cd $(NPM_CHECKS) && npm ci --silent --no-audit --no-fund
	@touch $@

# Without its version numbers stamped in, which Helm then has from its module.
$(TOOLS)/go/bin/helm:
	@command -v go >/dev/null || { echo "Helm is built from its Go module, and there is no go: install Go, or put helm" \
		"into $(TOOLS)/go/bin" >&2; exit 1; }
	GOBIN=$(abspath $(TOOLS)/go/bin) go install -trimpath helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

$(TOOLS)/go/bin/kubeconform:
	@command -v go >/dev/null || { echo "kubeconform is built from its Go module, and there is no go: install Go, or put kubeconform" \
		"into $(TOOLS)/go/bin" >&2; exit 1; }
	GOBIN=$(abspath $(TOOLS)/go/bin) go install -trimpath github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM_VERSION)

debian-tools:
	@missing=""; PATH="$$PATH:/usr/sbin"; \
	for pair in prometheus:prometheus promtool:prometheus nginx:nginx-light redis-server:redis-server \
		systemd-analyze:systemd node:nodejs npm:npm; do \
		command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; \
	done; \
	[ -z "$$missing" ] \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } \
	|| { echo "make test-deploy needs these of Debian's packages:$$missing" >&2; exit 1; }

pictures: deploy-tools debian-tools $(VENV)/.dev ## draw docs/pictures/ again, with two minutes of load
	DEPLOY_TOOLS=required $(BIN)/python -m tests.deploy.pictures
