"""A collector of traces on a loopback port: it takes OTLP over HTTP, as real ones do, and keeps what came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.whole_gateway import PATIENCE_S


class ReceivedSpan(NamedTuple):
    """Ids are hexadecimal, times nanoseconds since 1970; `is_error` is its status."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    is_error: bool


class OtlpReceiver:
    """`bodies` are as they came. The next requests are answered with `statuses`, then with 200."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.spans: list[ReceivedSpan] = []
        self.resources: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.rejected = 0
        self._came = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert request.path == "/v1/traces"
        assert request.headers["content-type"] == "application/x-protobuf"
        status = self.statuses.pop(0) if self.statuses else 200
        async with self._came:
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            if status == 200:
                self._read(ExportTraceServiceRequest.FromString(body))
            self._came.notify_all()
        answer = ExportTraceServiceResponse()
        if self.rejected:
            answer.partial_success.rejected_spans = self.rejected
        return web.Response(status=status, body=answer.SerializeToString(), content_type="application/x-protobuf")

    async def wait_for(self, spans: int = 0, requests: int = 0) -> list[ReceivedSpan]:
        """What has come, once it is so many spans and requests."""

        def is_there() -> bool:
            return len(self.spans) >= spans and len(self.bodies) >= requests

        async with asyncio.timeout(PATIENCE_S), self._came:
            await self._came.wait_for(is_there)
        return self.spans

    def _read(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            self.resources.append(_plain(group.resource.attributes))
            for scope in group.scope_spans:
                assert scope.scope.name == "inducta-gateway"
                for span in scope.spans:
                    self.spans.append(
                        ReceivedSpan(
                            span.name,
                            span.kind,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            _plain(span.attributes),
                            span.status.code == 2,
                        )
                    )


def _plain(attributes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    pair: KeyValue
    for pair in attributes:
        kind = pair.value.WhichOneof("value")
        assert pair.key not in found
        found[pair.key] = getattr(pair.value, kind)
    return found


@asynccontextmanager
async def otlp_receiver() -> AsyncIterator[OtlpReceiver]:
    receiver = OtlpReceiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
