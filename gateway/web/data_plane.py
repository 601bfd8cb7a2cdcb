"""The public routes: each request becomes an Arrival and a Sink, and goes on its journey."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from urllib.parse import unquote

import msgspec
from aiohttp import web

from gateway.core.arrival import Arrival
from gateway.core.endpoints import ENDPOINTS, MODELS, UNKNOWN, Endpoint
from gateway.core.errors import MethodNotAllowed, ModelUnknown, ShuttingDown, UrlUnknown
from gateway.core.exchange import Exchange
from gateway.core.target import Model
from gateway.journey import Journey
from gateway.web.body import read_body
from gateway.web.rendering import JSON
from gateway.web.sink import ClientSink

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_Page = Callable[[Exchange, ClientSink, str], None]


class DataPlane:
    """Answers every request that reaches the public listener.

    `closing` asks clients to close their connections with each answer; `refusing` turns new requests
    away. Both belong to the drain.
    """

    def __init__(self, journey: Journey, max_body_bytes: int) -> None:
        self.closing = False
        self.refusing = False
        self._journey = journey
        self._max_body_bytes = max_body_bytes

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = request.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = self._journey.rooms.new_id()
        sink = ClientSink(request, request_id, closing=self.closing)
        path = request.rel_url.raw_path
        endpoint = ENDPOINTS.get(path)
        body = partial(read_body, request, self._max_body_bytes)
        at = self._journey.rooms.clock.monotonic()
        if endpoint is not None and request.method == "POST" and not self.refusing:
            await self._journey.answer(Arrival(request_id, endpoint, request.headers, body, at), sink)
        else:
            arrival = Arrival(request_id, endpoint or _page_endpoint(path), request.headers, body, at)
            self._journey.answer_here(arrival, sink, partial(self._page, request.method, unquote(path)))
        assert sink.response is not None, "a journey ends with an answer"
        return sink.response

    def _page(self, method: str, path: str, exchange: Exchange, sink: ClientSink) -> None:
        """What the gateway answers by itself. Raises a GatewayError where there is no such page."""
        raise_unless_served(method, path, refusing=self.refusing)
        rooms = self._journey.rooms
        exchange.caller = caller = self._journey.caller(exchange.arrival)
        if path == MODELS.path:
            listed = [_model_object(model) for model in rooms.catalogue.models_of(caller)]
            body = msgspec.json.encode({"object": "list", "data": listed})
        else:
            asked = path.removeprefix(MODELS.path + "/")
            model = rooms.catalogue.model_for(caller, asked)
            if model is None:
                raise ModelUnknown(f"The model {asked!r} does not exist, or this key may not use it.", param="model")
            body = msgspec.json.encode(_model_object(model))
        sink.whole(200, [JSON], body)


def raise_unless_served(method: str, path: str, *, refusing: bool) -> None:
    """Pass for the pages that are answered here. Raises ShuttingDown, UrlUnknown, MethodNotAllowed for the rest."""
    if refusing:
        raise ShuttingDown("The gateway is shutting down. Try again: another one will answer.", retry_after_ms=1000)
    is_page = path == MODELS.path or path.startswith(MODELS.path + "/")
    if not is_page and path not in ENDPOINTS:
        raise UrlUnknown(f"There is nothing at {method} {path[:200]!r}. Is the base URL right? It ends in /v1.")
    if not is_page or method != "GET":
        allowed = "GET" if is_page else "POST"
        raise MethodNotAllowed(f"{path[:200]} takes {allowed}, not {method[:20]}.", allow=allowed)


def _page_endpoint(path: str) -> Endpoint:
    return MODELS if path == MODELS.path or path.startswith(MODELS.path + "/") else UNKNOWN


def _model_object(model: Model) -> dict[str, object]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "gateway"}
