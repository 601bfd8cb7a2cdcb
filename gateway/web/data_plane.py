"""The public routes: each request becomes an Arrival and a Sink, and goes on its journey."""

from __future__ import annotations

import re
from functools import partial

from aiohttp import web

from gateway.core.endpoints import ENDPOINTS
from gateway.core.exchange import Exchange
from gateway.core.request import IncomingRequest
from gateway.core.response import ResponseWriter
from gateway.pipeline import Pipeline
from gateway.web.body import ClientBody
from gateway.web.pages import endpoint_at, page_for
from gateway.web.rendering import JSON
from gateway.web.sink import ClientSink

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class DataPlane:
    """Answers every request that reaches the public listener.

    `closing` asks clients to close their connections with each answer; `refusing` turns new requests
    away. Both belong to the drain.
    """

    def __init__(self, pipeline: Pipeline, max_body_bytes: int) -> None:
        self.closing = False
        self.refusing = False
        self._pipeline = pipeline
        self._max_body_bytes = max_body_bytes

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        services = self._pipeline.services
        request_id = request.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = services.new_id()
        path = request.rel_url.raw_path
        body = ClientBody(request, self._max_body_bytes)
        incoming = IncomingRequest(request_id, endpoint_at(path), request.headers, body, services.clock.monotonic())
        writer = ClientSink(request, request_id, incoming.endpoint.dialect, closing=self.closing)
        if request.method == "POST" and path in ENDPOINTS and not self.refusing:
            await self._pipeline.answer(incoming, writer)
        else:
            await self._pipeline.answer_here(incoming, writer, partial(self._show_page, request.method, path))
        assert writer.response is not None, "a journey ends with an answer"
        return writer.response

    async def _show_page(self, method: str, path: str, exchange: Exchange, writer: ResponseWriter) -> None:
        page = page_for(method, path, refusing=self.refusing)
        exchange.caller = caller = self._pipeline.caller(exchange.request)
        writer.send(200, [JSON], await page.content(self._pipeline.services, caller, path))
