"""Spans as OTLP messages (https://opentelemetry.io/docs/specs/otlp/). Imported only if traces are exported, because
`opentelemetry-proto` belongs to the extra `[otel]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from gateway import __version__
from gateway.telemetry.tracer import Span, Value

_SCOPE = InstrumentationScope(name="inducta-gateway", version=__version__)
_IS_SAMPLED = 0x01


def encode(spans: Iterable[Span], resource: Iterable[tuple[str, str]]) -> bytes:
    """The body of a request that exports them."""
    scope = trace_pb2.ScopeSpans(scope=_SCOPE, spans=[_span(span) for span in spans])
    about = Resource(attributes=_attributes({**dict(resource), "service.version": __version__}))
    group = trace_pb2.ResourceSpans(resource=about, scope_spans=[scope])
    body: bytes = ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()
    return body


def rejected(body: bytes) -> int:
    """How many spans the collector did not take, by its answer to a request that it took."""
    try:
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    except Exception:  # noqa: BLE001 # Many a collector answers in JSON, or with nothing: it took them all.
        return 0


def _span(span: Span) -> trace_pb2.Span:
    status = trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=span.error) if span.error else None
    return trace_pb2.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        flags=_IS_SAMPLED,
        name=span.name,
        kind=span.kind,  # type: ignore[arg-type]  # An enumeration of protocol buffers is a number.
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_attributes(span.attributes),
        status=status,
    )


def _attributes(values: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any(value)) for name, value in values.items()]


def _any(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)
