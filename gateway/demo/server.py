"""The demo upstream as a server: in a test's event loop, or as its own process.

    async with DemoUpstream(DemoScript(chunks=3)) as upstream:
        … upstream.base_url … upstream.truth.total.completed

Each connection reads HTTP/1.1 with httptools and answers one request after the other. A `Playback` sends the pieces of
one answer on time, and waits while the peer reads too slowly.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, Self, cast
from urllib.parse import unquote

import httptools
import msgspec

from gateway.demo.encoding import Piece
from gateway.demo.plan import ScriptedRequest
from gateway.demo.response import DEMO_APIS, BadRequest, DemoCall, DemoResponse, Responder
from gateway.demo.script import DemoScript
from gateway.demo.truth import ServedRequest, Truth
from gateway.runtime.listening import stop_listening

DEFAULT_MODEL = "openai/gpt-oss-120b"
BACKLOG = 4_096
KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")

WRITE_BYTES = 65_536
RESET_DELAY_S = 0.01
"""Time for written bytes to be sent before a reset discards them."""

AHEAD = 16
LINGER_ZERO = struct.pack("ii", 1, 0)


class DemoUpstream:
    """With `port` 0 it takes a free one, which `port` then has. `seed` makes its dice repeatable; another seed gives
    other ids."""

    def __init__(
        self,
        script: DemoScript = DemoScript(),  # noqa: B008 - frozen, so that one default can be shared.
        *,
        models: tuple[str, ...] = (DEFAULT_MODEL,),
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
    ) -> None:
        self.script = script
        self.host = host
        self.port = port
        self.truth = Truth(time.monotonic)
        self.responder = Responder(models, random.Random(seed), first=(seed << 32) + 1)
        self._next_scripts: deque[DemoScript] = deque()
        self._connections: set[asyncio.Transport] = set()
        self._is_stopped = False

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def next_script(self) -> DemoScript:
        return self._next_scripts.popleft() if self._next_scripts else self.script

    def queue_scripts(self, scripts: list[DemoScript]) -> None:
        """Each script serves one request, in order; the last one serves all that follow."""
        *first, self.script = scripts
        self._next_scripts = deque(first)

    def connected(self, transport: asyncio.Transport) -> None:
        self._connections.add(transport)
        if self._is_stopped:
            transport.abort()  # It is accepted as the server stops.
        self.truth.connected()

    def disconnected(self, transport: asyncio.Transport) -> None:
        self._connections.discard(transport)
        self.truth.disconnected()

    async def start(self) -> None:
        """Listen; after `stop`, on the same port as before."""
        self._is_stopped = False
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: DemoConnection(self), self.host, self.port, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and break those that are open."""
        self._is_stopped = True
        await stop_listening(self._server)
        for transport in list(self._connections):
            transport.abort()
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class DemoHttpRequest(NamedTuple):
    """`given` are the headers by name in lower case."""

    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    given: dict[bytes, bytes]
    body: bytes
    keeps_alive: bool

    def header(self, name: bytes) -> str:
        return self.given.get(name, b"").decode("latin-1")

    @property
    def bearer(self) -> str:
        """The key of the request, in whichever header it came."""
        return next((self.header(name) for name in KEY_HEADERS if name in self.given), "").removeprefix("Bearer ")


class DemoConnection(asyncio.Protocol):
    """One connection to the demo upstream."""

    def __init__(self, upstream: DemoUpstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._playback: Playback | None = None
        self._waiting: deque[DemoHttpRequest] = deque()
        self._answered_early = False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._upstream.connected(self._transport)
        script = self._upstream.script
        if script.halts_at("on_connect") and script.halt == "reset":
            reset(self._transport)
        elif script.halts_at("on_connect") and script.halt == "close":
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._upstream.script.halts_at("on_connect"):
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # A defect of the demo upstream, not of the request.
        except httptools.HttpParserError:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._playback is not None:
            self._playback.cancel()
        self._upstream.disconnected(self._transport)

    def pause_writing(self) -> None:
        if self._playback is not None:
            self._playback.pause()

    def resume_writing(self) -> None:
        if self._playback is not None:
            self._playback.resume()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._given = {name.lower(): value for name, value in self._headers}
        self._answered_early = self._upstream.script.early_answer
        if self._answered_early:
            self._answer(self._request())
        elif self._given.get(b"expect") == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if not self._answered_early:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._answered_early:
            return
        if self._playback is None:
            self._answer(self._request())
        else:
            self._waiting.append(self._request())

    def _request(self) -> DemoHttpRequest:
        method, keep_alive = self._parser.get_method().decode(), self._parser.should_keep_alive()
        path, _, query = self._url.decode("latin-1").partition("?")
        body = b"".join(self._body)
        return DemoHttpRequest(method, unquote(path), query, self._headers, self._given, body, keep_alive)

    # The answers.

    def _answer(self, request: DemoHttpRequest) -> None:
        if request.path.startswith("/__"):
            served, response = ServedRequest(request.method, request.path, [], b""), self._control(request)
        else:
            served, response = self._serve(request)
        self._keeps_alive = request.keeps_alive
        self._playback = Playback(response, served, self._upstream.truth, self._ended)
        self._playback.start(self._transport)

    def _serve(self, request: DemoHttpRequest) -> tuple[ServedRequest, DemoResponse]:
        served = ServedRequest(request.method, request.path, request.headers, request.body, bearer=request.bearer)
        call = DemoCall.of(request.path)
        metered = request.method == "POST" and call.api in DEMO_APIS
        try:
            response = self._model_response(request, call, served) if metered else self._without_model(request)
        except BadRequest as error:
            response = self._upstream.responder.refusal(400, str(error), request.path)
        self._upstream.truth.begin(served, metered)
        return served, response

    def _model_response(self, request: DemoHttpRequest, call: DemoCall, served: ServedRequest) -> DemoResponse:
        script = self._upstream.next_script()
        fields = ScriptedRequest()
        if not self._answered_early:
            fields = self._upstream.responder.read(request.body, request.header(b"content-type"))
        if call.model:
            fields.model, fields.stream = call.model, "alt=sse" in request.query
        served.model, served.stream = fields.model, bool(fields.stream)
        script = self._upstream.responder.script_for(fields, script)
        response = self._upstream.responder.answer(call.api, fields, script, int(time.time()))
        served.number = self._upstream.responder.made
        return response

    def _without_model(self, request: DemoHttpRequest) -> DemoResponse:
        if request.path == "/v1/models" and request.method == "GET":
            return self._upstream.responder.models(int(time.time()))
        if request.path == "/health" and request.method == "GET":  # As vLLM and llama.cpp have it.
            return self._upstream.responder.document(200, {"status": "ok"})
        kept = self._upstream.responder.kept(request.method, request.path, request.body, int(time.time()))
        if kept is not None:
            return kept
        missing = f"{request.method} {request.path} is not served here."
        return self._upstream.responder.refusal(404, missing, request.path)

    def _control(self, request: DemoHttpRequest) -> DemoResponse:
        """GET and DELETE /__truth, POST /__script: they belong to no API and are not counted."""
        responder, truth = self._upstream.responder, self._upstream.truth
        if (request.method, request.path) == ("GET", "/__truth"):
            return responder.document(200, truth.as_json())
        if (request.method, request.path) == ("DELETE", "/__truth"):
            truth.reset()
            return responder.document(200, {})
        if (request.method, request.path) == ("POST", "/__script"):
            return self._set_scripts(request.body)
        return responder.refusal(404, "There are GET and DELETE /__truth, and POST /__script.")

    def _set_scripts(self, body: bytes) -> DemoResponse:
        try:
            scripts = msgspec.json.decode(body, type=DemoScript | list[DemoScript])
        except msgspec.MsgspecError as error:
            return self._upstream.responder.refusal(400, str(error))
        self._upstream.queue_scripts(scripts if isinstance(scripts, list) else [scripts])
        return self._upstream.responder.document(200, {})

    def _ended(self) -> None:
        self._playback = None
        if not self._keeps_alive:
            self._transport.close()
        elif self._waiting:
            self._answer(self._waiting.popleft())


class Playback:
    """One answer on one connection. `ended` is called once, at its end, if the connection can go on."""

    __slots__ = (
        "_congested",
        "_due",
        "_ended",
        "_loop",
        "_next",
        "_pieces",
        "_response",
        "_served",
        "_timer",
        "_transport",
        "_truth",
    )

    def __init__(self, response: DemoResponse, served: ServedRequest, truth: Truth, ended: Callable[[], None]) -> None:
        self._response = response
        self._served = served
        self._truth = truth
        self._ended = ended
        self._pieces = _ahead(response.pieces)
        self._next: Piece | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._congested = False
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()

    def start(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._served.status = self._response.script.status
        self._send_due([])

    def pause(self) -> None:
        self._congested = True

    def resume(self) -> None:
        self._congested = False
        if self._next is None:
            self._send_due([])
        elif self._timer is None:
            self._send_next()

    def cancel(self) -> None:
        """The peer has left."""
        if self._timer is not None:
            self._timer.cancel()
        self._truth.end(self._served, "cancelled")

    def _send_due(self, ready: list[bytes]) -> None:
        """Send what is due, up to the next wait or until the peer's buffers are full."""
        size = 0
        for piece in self._pieces:
            if piece.delay_s:
                self._write(ready)
                self._wait_for(piece)
                return
            self._take(piece, ready)
            if piece.then:
                return
            size += len(piece.data)
            if size > WRITE_BYTES:
                self._write(ready)
                size = 0
                if self._congested:
                    return

    def _wait_for(self, piece: Piece) -> None:
        """A wait begins where the one before ended, so that a slow turn of the loop does not add up."""
        self._next = piece
        self._due += piece.delay_s
        self._timer = self._loop.call_at(self._due, self._send_next)

    def _send_next(self) -> None:
        self._timer = None
        piece = self._next
        if piece is None or self._congested:
            return
        self._next = None
        ready: list[bytes] = []
        self._take(piece, ready)
        if not piece.then:
            self._send_due(ready)

    def _take(self, piece: Piece, ready: list[bytes]) -> None:
        served = self._served
        ready.append(piece.data)
        if piece.reports:
            served.reported = True
        if piece.tokens and self._response.counts:
            served.completion_tokens += piece.tokens
            served.prompt_tokens = self._response.counts.prompt
        if piece.then:
            self._write(ready)
            self._finish(piece.then)

    def _write(self, ready: list[bytes]) -> None:
        if ready:
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
            ready.clear()

    def _finish(self, then: str) -> None:
        if then == "hang":
            return
        if then == "reset":
            self._truth.end(self._served, "halted")
            self._loop.call_later(RESET_DELAY_S, reset, self._transport)
        elif then == "close":
            self._truth.end(self._served, "halted")
            self._transport.close()
        else:
            self._complete(then == "close_done" or self._response.script.afterwards != "keep")

    def _complete(self, closes: bool) -> None:
        counts = self._response.counts
        outcome = self._response.outcome
        if counts and outcome == "completed":
            self._served.prompt_tokens, self._served.completion_tokens = counts.prompt, counts.output
        self._truth.end(self._served, outcome)
        if closes:
            self._transport.close()
        else:
            self._ended()


def _ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces, made several at a time: made one by one between other streams' work, each costs three times as
    much."""
    while batch := list(islice(pieces, AHEAD)):
        yield from batch


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    transport.abort()
