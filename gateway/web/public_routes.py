"""The public listener's routes: each request becomes an IncomingRequest and a ResponseWriter for the pipeline.

A POST to a path of the endpoint table is forwarded. What the gateway answers by itself (the models that a key may use,
and its limits) is a `_Page`, and runs through the pipeline for the same errors, drain and records.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import unquote

import msgspec
from aiohttp import web

from gateway.core.endpoints import ENDPOINTS, LIMITS, MODELS, UNKNOWN, Endpoint
from gateway.core.errors import MethodNotAllowed, ModelUnknown, ShuttingDown, UrlUnknown
from gateway.core.exchange import Exchange
from gateway.core.limit_status import limit_status_object
from gateway.core.limits import Limit
from gateway.core.request import IncomingRequest
from gateway.core.response import ResponseWriter
from gateway.core.snapshot import Caller, Model
from gateway.pipeline import Pipeline, Services
from gateway.runtime.tasks import BackgroundTasks
from gateway.web.body_memory import BodyMemory
from gateway.web.errors import JSON
from gateway.web.request_body import ClientBody
from gateway.web.response_writer import HttpResponseWriter

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ONE_MODEL = MODELS.path + "/"


class PublicRoutes:
    """Answers every request that reaches the public listener.

    `closing` asks clients to close their connections with each answer; `refusing` turns new requests
    away. Both belong to the drain.
    """

    def __init__(self, pipeline: Pipeline, max_body_bytes: int, memory: BodyMemory) -> None:
        self.closing = False
        self.refusing = False
        self._pipeline = pipeline
        self._max_body_bytes = max_body_bytes
        self._memory = memory
        self._tasks = BackgroundTasks(pipeline.services.log_error)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        services = self._pipeline.services
        request_id = request.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = services.new_id()
        path = request.rel_url.raw_path
        body = ClientBody(request, self._max_body_bytes, self._memory)
        endpoint = _endpoint_at(path)
        incoming = IncomingRequest(request_id, endpoint, request.headers, body, services.clock.monotonic())
        writer = HttpResponseWriter(request, request_id, endpoint.dialect, self._tasks, closing=self.closing)
        try:
            if request.method == "POST" and path in ENDPOINTS and not self.refusing:
                await self._pipeline.answer(incoming, writer)
            else:
                await self._pipeline.answer_here(incoming, writer, partial(self._show_page, request.method, path))
        finally:
            body.release()
        assert writer.response is not None, "the pipeline always gives an answer"
        return writer.response

    async def _show_page(self, method: str, path: str, exchange: Exchange, writer: ResponseWriter) -> None:
        page = _page_for(method, path, refusing=self.refusing)
        exchange.caller = caller = self._pipeline.caller(exchange.request)
        writer.send(200, [JSON], await page.content(self._pipeline.services, caller, path))


class _Page(msgspec.Struct, frozen=True):
    """`content` gives the JSON for a path, for one caller. Raises ModelUnknown, StoreUnavailable."""

    endpoint: Endpoint
    content: Callable[[Services, Caller, str], Awaitable[bytes]]


def _page_for(method: str, raw_path: str, *, refusing: bool) -> _Page:
    """The page at a path. Raises ShuttingDown, UrlUnknown, MethodNotAllowed."""
    if refusing:
        raise ShuttingDown("The gateway is shutting down. Try again: another one will answer.")
    page = _ONE if raw_path.startswith(_ONE_MODEL) else _PAGES.get(raw_path)
    if page is None and raw_path not in ENDPOINTS:
        shown = raw_path[:200]
        raise UrlUnknown(f"There is nothing at {method[:20]} {shown!r}. Is the base URL right? It ends in /v1.")
    if page is None or method != "GET":
        allowed = "GET" if page else "POST"
        raise MethodNotAllowed(f"{raw_path[:200]} takes {allowed}, not {method[:20]}.", allow=allowed)
    return page


def _endpoint_at(raw_path: str) -> Endpoint:
    """What the log calls a path."""
    page = _ONE if raw_path.startswith(_ONE_MODEL) else _PAGES.get(raw_path)
    return page.endpoint if page else ENDPOINTS.get(raw_path, UNKNOWN)


async def _models(services: Services, caller: Caller, _raw_path: str) -> bytes:
    listed = [_model_object(model) for model in services.snapshot.models_of(caller)]
    return msgspec.json.encode({"object": "list", "data": listed})


async def _model(services: Services, caller: Caller, raw_path: str) -> bytes:
    asked = unquote(raw_path.removeprefix(_ONE_MODEL))
    binding = services.snapshot.binding(caller, asked)
    if binding is None:
        raise ModelUnknown(f"The model {asked[:256]!r} does not exist, or this key may not use it.", param="model")
    return msgspec.json.encode(_model_object(binding.model))


async def _limits(services: Services, caller: Caller, _raw_path: str) -> bytes:
    limits: dict[tuple[object, ...], Limit] = {}
    for model in services.snapshot.models_of(caller):
        if binding := services.snapshot.binding(caller, model.name):
            limits |= {limit.identity: limit for limit in binding.limits}
    limit_statuses = await services.store.limit_statuses(list(limits.values()))
    return msgspec.json.encode({"data": [limit_status_object(limit_status) for limit_status in limit_statuses]})


def _model_object(model: Model) -> dict[str, object]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "gateway"}


_ONE = _Page(MODELS, _model)
_PAGES = {MODELS.path: _Page(MODELS, _models), LIMITS.path: _Page(LIMITS, _limits)}
