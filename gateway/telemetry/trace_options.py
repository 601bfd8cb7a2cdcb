"""How traces are exported, by the environment variables of OpenTelemetry
(https://opentelemetry.io/docs/specs/otel/protocol/exporter/, …/configuration/sdk-environment-variables/).

A value that cannot be used is reported and ignored, as the specification requires: a wrong variable of a whole cluster
does not keep a gateway from serving.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from urllib.parse import unquote

import msgspec

from gateway.core.http_syntax import operator_header_fault, read_base_url

_DEFAULT_ENDPOINT = "http://localhost:4318"
_TRACES_PATH = "/v1/traces"
_SAMPLERS = ("always_on", "always_off", "traceidratio")
_PARENT_BASED = "parentbased_"


class Sampling(msgspec.Struct, frozen=True):
    """`ratio` is the share of the traces that are kept. `follows_parent`: of a trace that a client has begun, the
    client says whether it is kept."""

    ratio: float = 1.0
    follows_parent: bool = True


class TraceOptions(msgspec.Struct, frozen=True):
    """Where spans go. `headers` may carry a credential."""

    endpoint: str
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 10.0
    resource: tuple[tuple[str, str], ...] = (("service.name", "inducta-gateway"),)
    sampling: Sampling = Sampling()
    queue_max: int = 2_048
    batch_max: int = 512
    every_s: float = 5.0


class _Environment:
    """Reads variables; `problems` says what cannot be used of them, without their values."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def text(self, *names: str) -> str:
        """The value of the first variable that is set; an empty one is as if it were not set."""
        return next((value for name in names if (value := self._environ.get(name, "").strip())), "")

    def number(self, name: str, default: float) -> float:
        text = self.text(name)
        try:
            value = float(text or default)
        except ValueError:
            value = -1.0
        if not 0 <= value < inf:
            self.problems.append(f"{name} must be a number, and not negative; {default:g} is taken")
            return default
        return value

    def pairs(self, *names: str) -> list[tuple[str, str]]:
        """A list as NAME=VALUE,NAME=VALUE, whose values are percent-encoded (W3C Baggage)."""
        found = []
        for piece in filter(None, (piece.strip() for piece in self.text(*names).split(","))):
            name, separator, value = piece.partition("=")
            if not separator or not name.strip():
                self.problems.append(f"{names[-1]} must be NAME=VALUE,NAME=VALUE; a part of it is left out")
            else:
                found.append((name.strip(), unquote(value.strip())))
        return found

    def headers(self) -> tuple[tuple[str, str], ...]:
        usable = []
        for name, value in self.pairs("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
            if fault := operator_header_fault(name, value):
                self.problems.append(f"OTEL_EXPORTER_OTLP_HEADERS: one {fault}; it is left out")
            else:
                usable.append((name, value))
        return tuple(usable)

    def sampling(self) -> Sampling:
        named = self.text("OTEL_TRACES_SAMPLER").lower() or "parentbased_always_on"
        kind = named.removeprefix(_PARENT_BASED)
        if kind not in _SAMPLERS:
            self.problems.append(f"OTEL_TRACES_SAMPLER must be one of {', '.join(_SAMPLERS)}, or parentbased_ and one")
            return Sampling()
        share = min(1.0, self.number("OTEL_TRACES_SAMPLER_ARG", 1.0))
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind, share)
        return Sampling(ratio, named.startswith(_PARENT_BASED))

    def endpoint(self) -> str:
        """Empty where nothing is exported."""
        if self.text("OTEL_SDK_DISABLED").lower() == "true":
            return ""
        exporter = self.text("OTEL_TRACES_EXPORTER").lower()
        base = self.text("OTEL_EXPORTER_OTLP_ENDPOINT") or (_DEFAULT_ENDPOINT if exporter == "otlp" else "")
        endpoint = self.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or (base and base.rstrip("/") + _TRACES_PATH)
        if not endpoint or exporter not in ("", "otlp"):
            return ""
        protocol = self.text("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        if protocol not in ("", "http/protobuf"):
            self.problems.append("OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf: nothing is exported")
            return ""
        try:
            read_base_url(endpoint)
        except ValueError as error:
            self.problems.append(f"OTEL_EXPORTER_OTLP_ENDPOINT {error}: nothing is exported")
            return ""
        return endpoint


def read_trace_options(environ: Mapping[str, str]) -> tuple[TraceOptions | None, list[str]]:
    """None where nothing is to be exported; and what cannot be used."""
    reading = _Environment(environ)
    endpoint = reading.endpoint()
    if not endpoint:
        return None, reading.problems
    resource = dict(reading.pairs("OTEL_RESOURCE_ATTRIBUTES"))
    resource["service.name"] = reading.text("OTEL_SERVICE_NAME") or resource.get("service.name", "inducta-gateway")
    options = TraceOptions(
        endpoint=endpoint,
        headers=reading.headers(),
        timeout_s=reading.number("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000) / 1000,
        resource=tuple(resource.items()),
        sampling=reading.sampling(),
        queue_max=max(1, int(reading.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048))),
        batch_max=max(1, int(reading.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))),
        every_s=reading.number("OTEL_BSP_SCHEDULE_DELAY", 5_000) / 1000,
    )
    return options, reading.problems
