"""The public listener's routes: each request becomes an IncomingRequest and a ResponseWriter for the pipeline.

A path names a resource, and a resource says what answers each method: an endpoint, to which the request is forwarded,
or a page of the gateway, which runs through the pipeline for the same errors, drain and records. Only `/healthz`
does not: a load balancer asks for it every few seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial

import msgspec
from multidict import istr

from gateway.core.endpoints import ENDPOINTS, FORWARDED, OBJECT_ENDPOINTS, UNKNOWN, Dialect, Endpoint
from gateway.core.errors import GatewayError, MethodNotAllowed, ShuttingDown, UpgradeRequired
from gateway.core.exchange import Exchange
from gateway.core.head_outline import outline_of_head
from gateway.core.remembered import remembered
from gateway.core.request import IncomingRequest
from gateway.core.response import ResponseWriter, Work
from gateway.core.snapshot import Caller
from gateway.core.url_paths import PathTable
from gateway.identity.sessions import SessionDirectory
from gateway.pipeline import Pipeline
from gateway.runtime.timer_sweep import TimerSweep
from gateway.web.body_memory import BodyMemory
from gateway.web.client_address import ClientAddresses
from gateway.web.client_hints import CLIENT_APIS, UnservedRequest, api_of, unknown_url
from gateway.web.client_request import ClientRequest
from gateway.web.console_files import SHARED_FILES, ConsoleFiles
from gateway.web.cors import CorsPolicy
from gateway.web.errors import JSON
from gateway.web.public_openapi import HEALTH_PATH
from gateway.web.public_pages import NO_STORE, PAGES, Needs, Page, PageRequest, digest_of_session
from gateway.web.request_body import ClientBody
from gateway.web.response_writer import HeadWriter, HttpResponseWriter

_USABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_REQUEST_ID = istr("x-request-id")
_UPGRADE = istr("upgrade")
"""Names whose lower case is known: that of a plain text is made by each look-up."""

_REMEMBERED_ROUTES = 1_024
_REMEMBERED_PATH = 256
"""Paths, each with a method, and the characters of one: clients use few, but can make up any, as long as they like."""

Resource = Mapping[str, Endpoint | Page]
"""What answers each method."""


def _methods_of(rows: Iterable[Endpoint]) -> Resource:
    """`HEAD` works where `GET` does."""
    methods = {row.method: row for row in rows}
    return methods | {"HEAD": methods["GET"]} if "GET" in methods else methods


def _pages_at(path: str) -> Resource:
    return {method: page for page in PAGES if page.endpoint.path == path for method in page.methods}


_RESOURCES: dict[str, Resource] = {
    **{path: _methods_of(row for row in FORWARDED if row.path == path) for path in (row.path for row in FORWARDED)},
    **{page.endpoint.path: _pages_at(page.endpoint.path) for page in PAGES},
}
_NOTHING: Resource = {}
_PATHS = PathTable(
    ENDPOINTS, (*dict.fromkeys(row.path for row in OBJECT_ENDPOINTS), *(page.endpoint.path for page in PAGES))
)
_SERVED_APIS = tuple(api for api in CLIENT_APIS if _PATHS.find(api.path) is not None)


class _Destination(msgspec.Struct, frozen=True):
    """Where a request leads. `answers` is None where the path or the method is not served; `is_forwarded` says whether
    it is an endpoint. `path_model` is the model that the path names. `endpoint` has its name in log and metrics.
    `dialect` is the API whose shape an error has; None where only the request's headers say it, since clients of every
    API ask for a page."""

    resource: Resource
    answers: Endpoint | Page | None
    is_forwarded: bool
    parameters: Mapping[str, str]
    path_model: str
    endpoint: Endpoint
    dialect: Dialect | None


class PublicRoutes:
    """Answers every request that reaches the public listener.

    `closing` asks clients to close their connections with each answer; `refusing` turns new requests
    away. Both belong to the drain. `cors` and `addresses` may be replaced at any time.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        max_body_bytes: int,
        memory: BodyMemory,
        cors: CorsPolicy,
        sessions: SessionDirectory,
    ) -> None:
        """`sessions` are those of /me."""
        self.closing = False
        self.refusing = False
        self.cors = cors
        self.addresses = ClientAddresses()
        self._pipeline = pipeline
        self._max_body_bytes = max_body_bytes
        self._memory = memory
        self._timers = TimerSweep()
        self._sessions = sessions
        self._me = ConsoleFiles("/me", "me.html", ("me.js", *SHARED_FILES))

    def handle(self, request: ClientRequest) -> Work | None:
        services, cors = self._pipeline.services, self.cors
        headers, method, path = request.headers, request.method, request.path
        request_id = headers.get(_REQUEST_ID, "")
        if not request_id or not _USABLE_ID.fullmatch(request_id):
            request_id = services.new_id()
        route = _find_route((method, path))
        client_ip = request.connection.remote
        if self.addresses.trusts_any:
            client_ip = self.addresses.of(client_ip, headers.getall("x-forwarded-for", ()))
        kind = HeadWriter if method == "HEAD" else HttpResponseWriter
        writer = kind(
            request,
            request_id,
            route.dialect or api_of(headers, path).dialect,
            closing=self.closing,
            timers=self._timers,
            always=cors.headers(headers) if cors.allows_any else (),
        )
        if route.resource is _NOTHING and self._shows(request, method, path, writer):
            return None
        # By position: each of so many names would be looked for among all of them.
        incoming = IncomingRequest(
            request_id,
            route.endpoint,
            headers,  # type: ignore[arg-type]  # aiohttp's have what is asked of them.
            outline_of_head(headers),
            ClientBody(request, self._max_body_bytes, self._memory),
            services.clock.monotonic(),
            method,
            path,
            request.query_string,
            route.path_model,
            route.parameters,
            client_ip,
        )
        if route.is_forwarded and not self.refusing and (_UPGRADE not in headers or not _wants_websocket(headers)):
            return self._pipeline.answer(incoming, writer)
        return self._pipeline.answer_here(incoming, writer, partial(self._answer_here, request, route))

    async def _answer_here(
        self, request: ClientRequest, route: _Destination, exchange: Exchange, writer: ResponseWriter
    ) -> None:
        """Raises what a page raises, ShuttingDown, UpgradeRequired, UrlUnknown, MethodNotAllowed."""
        if self.refusing:
            raise ShuttingDown("The gateway is shutting down. Try again: another one will answer.")
        if _wants_websocket(request.headers):
            raise UpgradeRequired("WebSocket is not served here. Send the request over HTTP: POST, without 'Upgrade'.")
        preflight = self.cors.preflight(request.method, request.headers)
        if preflight is not None:
            exchange.status = 204
            writer.send(204, preflight, b"")
            return
        page = _page(request, route)
        asked = PageRequest(
            services=self._pipeline.services,
            headers=exchange.request.headers,
            parameters=route.parameters,
            query=request.query,
            client_apis=_SERVED_APIS,
            sessions=self._sessions,
        )
        if page.needs is Needs.KEY:
            known = self._pipeline.authenticate(exchange)
            caller = known if isinstance(known, Caller) else await known()
            asked = msgspec.structs.replace(asked, found_caller=caller)
        elif page.needs is Needs.SESSION:
            caller = await self._pipeline.authenticate_digest(exchange, await digest_of_session(asked))
            asked = msgspec.structs.replace(asked, found_caller=caller)
        shown = await page.show(asked)
        private = (NO_STORE,) if page.needs is Needs.SESSION else ()
        writer.send(200, (*shown.headers, *private), shown.body)

    def _shows(self, request: ClientRequest, method: str, path: str, writer: HttpResponseWriter) -> bool:
        """Answer a path that the pipeline has nothing to do with. Returns whether it is one."""
        if path == HEALTH_PATH and method in ("GET", "HEAD"):
            self._show_health(writer)
        elif self._me.serves(path):
            self._show_me(request, path, writer)
        else:
            return False
        return True

    def _show_me(self, request: ClientRequest, path: str, writer: HttpResponseWriter) -> None:
        try:
            answer = self._me.answer(request.method, path, request.headers)
        except GatewayError as error:
            writer.fail(error)
        else:
            writer.send(answer.status, answer.headers, answer.body)

    def _show_health(self, writer: HttpResponseWriter) -> None:
        """503 from the drain's delay on: load balancers are to look elsewhere while requests are still served."""
        if self.closing:
            writer.fail(ShuttingDown("The gateway is shutting down."))
        else:
            writer.send(200, [JSON], b'{"status":"ok"}')


@remembered(_REMEMBERED_ROUTES, where=lambda asked: len(asked[1]) <= _REMEMBERED_PATH)
def _find_route(asked: tuple[str, str]) -> _Destination:
    """Where a request with this method and this path, as it was sent, leads."""
    method, raw_path = asked
    found = _PATHS.find(raw_path)
    if found is None:
        return _Destination(_NOTHING, None, False, {}, "", UNKNOWN, None)
    resource = _RESOURCES[found.pattern]
    answers = resource.get(method)
    named = answers or next(iter(resource.values()))
    endpoint = named.endpoint if isinstance(named, Page) else named
    is_forwarded = isinstance(answers, Endpoint)
    dialect = answers.dialect if isinstance(answers, Endpoint) else None
    parameters = found.parameters
    return _Destination(resource, answers, is_forwarded, parameters, parameters.get("model", ""), endpoint, dialect)


def _page(request: ClientRequest, route: _Destination) -> Page:
    """The page that answers. Raises UrlUnknown, MethodNotAllowed."""
    if isinstance(route.answers, Page):
        return route.answers
    method, path = request.method, request.path
    methods = ", ".join(route.resource) or ("GET, HEAD" if path == HEALTH_PATH else "")
    if not methods or _is_other_action(method, route):
        raise unknown_url(UnservedRequest(method, path, request.headers, partial(_is_served, method)))
    raise MethodNotAllowed(f"{path[:200]} takes {methods}, not {method[:20]}.", allow=methods)


def _is_served(method: str, path: str) -> bool:
    route = _find_route((method, path))
    return route.resource is not _NOTHING and not _is_other_action(method, route)


def _is_other_action(method: str, route: _Destination) -> bool:
    """Whether it is an action of Gemini's API that is not served: it looks like a model, which cannot be posted to."""
    return route.answers is None and method == "POST" and ":" in route.path_model


def _wants_websocket(headers: Mapping[str, str]) -> bool:
    upgrade = headers.get("upgrade")
    return upgrade is not None and "websocket" in upgrade.lower()
