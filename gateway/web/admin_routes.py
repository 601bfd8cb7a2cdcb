"""The admin listener: metrics, health, readiness, and the admin API behind its token.

`AdminHandlers` gives the answers: of this process, or of several workers together. Requests to the admin API are plain
values, so that a supervisor can pass them to a worker. A supervisor loads this module, so it imports nothing that
serves clients.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
from aiohttp.web_protocol import RequestPayloadError
from multidict import CIMultiDictProxy

from gateway.core.errors import (
    AdminForbidden,
    GatewayError,
    InternalError,
    MethodNotAllowed,
    RequestMalformed,
    TooLarge,
    UrlUnknown,
)
from gateway.core.parameters import refuse_repeated
from gateway.core.response import Work
from gateway.runtime.tasks import LogError
from gateway.web import openapi
from gateway.web.admin_openapi import PREFIX, admin_document
from gateway.web.client_request import ClientRequest
from gateway.web.console_files import SHARED_FILES, ConsoleFiles, closed_page
from gateway.web.errors import JSON, error_body, error_headers
from gateway.web.long_json import encoded_in_slices
from gateway.web.response_head import WITHOUT_LENGTH, field_lines

PIECE = 256 * 1024
"""Bytes of a body that are sent at once: a transport copies what its socket does not take."""

_BODY_BYTES = 1024 * 1024
"""What an operator may send at once."""


class AdminRequest(msgspec.Struct, frozen=True):
    """`path` as it was sent, `query` decoded. Names of headers are in lower case; the lines of one that comes several
    times are one, with those that differ. HEAD is asked as GET: the listener leaves the body out."""

    method: str
    path: str
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: bytes = b""
    client_ip: str = ""


class AdminResponse(msgspec.Struct, frozen=True):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class AdminHandlers(NamedTuple):
    """What operators can ask for."""

    metrics: Callable[[], Awaitable[tuple[bytes, str]]]
    """The exposition and its content type."""

    liveness_problems: Callable[[], Awaitable[list[str]]]
    """The reasons to restart the gateway."""

    readiness_problems: Callable[[], Awaitable[list[str]]]
    """The reasons to send the gateway no traffic now."""

    admin_api: Callable[[AdminRequest], Awaitable[AdminResponse]]
    """Answers a request to the admin API. Raises a GatewayError if it cannot."""

    refuse_stranger: Callable[[AdminRequest], Awaitable[AdminResponse | None]]
    """The answer to a request without the token, before its body is read; None for one that has it."""


class AdminRoutes:
    """`/metrics` for Prometheus, `/healthz` while the gateway lives, `/readyz` while it wants traffic, `/openapi.json`,
    `/admin/v1`, `/console`. What fails in an unexpected way is logged by `log_error`."""

    def __init__(self, handlers: AdminHandlers, log_error: LogError) -> None:
        self._handlers = handlers
        self._log_error = log_error
        self._console = ConsoleFiles("/console", "index.html", ("app.js", "pages/", *SHARED_FILES))
        self.pages: dict[str, Callable[[], Awaitable[AdminResponse]]] = {
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
            openapi.PATH: self._openapi,
        }

    def handle(self, request: ClientRequest) -> Work:
        return partial(self._handle, request)

    async def _handle(self, request: ClientRequest) -> None:
        try:
            response = await self._answer(request)
        except GatewayError as error:
            response = error_response(error)
        except ConnectionError:
            raise  # The client has left.
        except Exception as defect:  # noqa: BLE001 # Whatever it is, operators have to find it in the log.
            self._log_error(f"admin request {request.method[:20]!r} {request.path[:200]!r} failed", defect)
            response = error_response(InternalError("The gateway failed. Its log says where."))
        await _send(request, response)

    async def _answer(self, request: ClientRequest) -> AdminResponse:
        path = request.path
        if path.startswith(PREFIX):
            return await self._admin_api(request)
        if self._console.serves(path):
            return await self._console_file(request, path)
        page = self.pages.get(path)
        if page is None:
            raise UrlUnknown(
                f"The admin listener has {', '.join(self.pages)}, {PREFIX} and /console. Clients use the address of"
                " `listen`."
            )
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Use GET to read this page.", allow="GET, HEAD")
        return await page()

    async def _admin_api(self, request: ClientRequest) -> AdminResponse:
        """Reads the body once the token is known to be right; most requests have none."""
        plain = _without_body(request)
        repeated = len(request.query) > len(plain.query)
        if (repeated or request.has_body) and (refusal := await self._handlers.refuse_stranger(plain)):
            return refusal
        if repeated:
            refuse_repeated(_text(name) for name, _ in request.query.items())
        if request.has_body:
            plain = msgspec.structs.replace(plain, body=await _body(request))
        return await self._handlers.admin_api(plain)

    async def _console_file(self, request: ClientRequest, path: str) -> AdminResponse:
        """The files are public: what they show is behind the token. Where there is none, the page says
        so."""
        answer = self._console.answer(request.method, path, request.headers)
        if path == "/console" and await self._is_closed():
            answer = closed_page()
        return AdminResponse(answer.status, list(answer.headers), answer.body)

    async def _is_closed(self) -> bool:
        try:
            response = await self._handlers.admin_api(AdminRequest("GET", f"{PREFIX}session"))
        except GatewayError:
            return False  # It is not known; the page shows what the matter is.
        return response.status == AdminForbidden.status

    async def _metrics(self) -> AdminResponse:
        text, content_type = await self._handlers.metrics()
        return AdminResponse(200, [("content-type", content_type)], text)

    async def _health(self) -> AdminResponse:
        return _state("alive", "not alive", await self._handlers.liveness_problems())

    async def _readiness(self) -> AdminResponse:
        return _state("ready", "not ready", await self._handlers.readiness_problems())

    async def _openapi(self) -> AdminResponse:
        return AdminResponse(200, [JSON], admin_document())


async def _send(request: ClientRequest, response: AdminResponse) -> None:
    connection, body = request.connection, memoryview(response.body)
    # No cache is to give one operator's page to another client, or a figure later.
    headers = {"cache-control": "no-store", **dict(response.headers)}
    framing = "" if response.status in WITHOUT_LENGTH else f"content-length: {len(body)}\r\n"
    if not request.content.is_eof():
        connection.is_last_answer = True
    shown = 0 if request.method == "HEAD" else len(body)
    connection.begin_answer(response.status, field_lines(headers.items()), framing, bytes(body[: min(shown, PIECE)]))
    for at in range(PIECE, shown, PIECE):
        await connection.client_has_read()
        connection.write(body[at : at + PIECE])


def json_response(status: int, body: object) -> AdminResponse:
    return AdminResponse(status, [JSON], msgspec.json.encode(body))


async def long_json_response(body: dict[str, Any]) -> AdminResponse:
    """Of what may have long lists."""
    return AdminResponse(200, [JSON], await encoded_in_slices(body))


def error_response(error: GatewayError) -> AdminResponse:
    return AdminResponse(error.status, list(error_headers(error)), error_body(error))


def _state(good: str, bad: str, problems: list[str]) -> AdminResponse:
    body = {"status": bad, "because": problems} if problems else {"status": good}
    return json_response(503 if problems else 200, body)


async def _body(request: ClientRequest) -> bytes:
    pieces, size = [], 0
    try:
        while piece := await request.content.readany():
            pieces.append(piece)
            size += len(piece)
            if size > _BODY_BYTES:
                raise TooLarge(f"The body is larger than the {_BODY_BYTES:,} bytes that are taken here.")
    except RequestPayloadError as error:
        raise RequestMalformed(f"The body cannot be read: {error}.") from None
    return b"".join(pieces)


def _without_body(request: ClientRequest) -> AdminRequest:
    return AdminRequest(
        method="GET" if request.method == "HEAD" else _text(request.method),
        path=_text(request.path),
        query={_text(name): _text(request.query[name]) for name in request.query},
        headers={name.lower(): _text(_lines(request.headers, name)) for name in request.headers},
        client_ip=request.connection.remote,
    )


def _lines(headers: CIMultiDictProxy[str], name: str) -> str:
    """A header as one line (RFC 9110, 5.3; cookies: RFC 6265, 5.4). Two tokens that differ are no token."""
    between = "; " if name.lower() == "cookie" else ", "
    return between.join(dict.fromkeys(headers.getall(name)))


def _text(received: str) -> str:
    """With bytes that are not UTF-8 replaced: no other process could be sent them as text."""
    return received.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
