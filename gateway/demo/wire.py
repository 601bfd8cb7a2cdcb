"""One connection of the demo upstream: HTTP/1.1 read by httptools, each request answered in turn by a Play."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import NamedTuple, Protocol, cast

import httptools
import msgspec

from gateway.demo.play import Play, reset
from gateway.demo.reply import BadRequest, Desk, Reply
from gateway.demo.script import Script
from gateway.demo.shapes import SHAPES
from gateway.demo.truth import Served, Truth
from gateway.demo.turn import Asked

KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key")


class House(Protocol):
    """What a connection needs of the server that it belongs to."""

    truth: Truth
    desk: Desk

    @property
    def script(self) -> Script:
        """The script that stands."""
        ...

    def take_script(self) -> Script:
        """The script for one more request: the next of those in line, else the one that stands."""
        ...

    def line_up(self, scripts: list[Script]) -> None:
        """Each serves one request, in order; the last one stands."""
        ...

    def connected(self, transport: asyncio.Transport) -> None: ...

    def disconnected(self, transport: asyncio.Transport) -> None: ...


class Request(NamedTuple):
    """`given` are the headers by name in lower case."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    given: dict[bytes, bytes]
    body: bytes
    goes_on: bool

    def header(self, name: bytes) -> str:
        return self.given.get(name, b"").decode("latin-1")

    @property
    def bearer(self) -> str:
        """The key that the request shows, however it shows it."""
        return next((self.header(name) for name in KEY_HEADERS if name in self.given), "").removeprefix("Bearer ")


class Wire(asyncio.Protocol):
    def __init__(self, house: House) -> None:
        self._house = house
        self._parser = httptools.HttpRequestParser(self)
        self._play: Play | None = None
        self._waiting: deque[Request] = deque()
        self._answered_early = False

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._house.connected(self._transport)
        script = self._house.script
        if script.halts_at("on_connect") and script.halt == "reset":
            reset(self._transport)
        elif script.halts_at("on_connect") and script.halt == "close":
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._house.script.halts_at("on_connect"):
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # A defect of the demo upstream, not of the request.
        except httptools.HttpParserError:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._play is not None:
            self._play.cancel()
        self._house.disconnected(self._transport)

    def pause_writing(self) -> None:
        if self._play is not None:
            self._play.pause()

    def resume_writing(self) -> None:
        if self._play is not None:
            self._play.resume()

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
        self._answered_early = self._house.script.early_answer
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
        if self._play is None:
            self._answer(self._request())
        else:
            self._waiting.append(self._request())

    def _request(self) -> Request:
        method, keep_alive = self._parser.get_method().decode(), self._parser.should_keep_alive()
        path = self._url.decode("latin-1").partition("?")[0]
        return Request(method, path, self._headers, self._given, b"".join(self._body), keep_alive)

    # The answers.

    def _answer(self, request: Request) -> None:
        if request.path.startswith("/__"):
            served, reply = Served(request.method, request.path, [], b""), self._about_itself(request)
        else:
            served, reply = self._serve(request)
        self._goes_on = request.goes_on
        self._play = Play(reply, served, self._house.truth, self._over)
        self._play.start(self._transport)

    def _serve(self, request: Request) -> tuple[Served, Reply]:
        served = Served(request.method, request.path, request.headers, request.body, bearer=request.bearer)
        metered = request.method == "POST" and request.path in SHAPES
        try:
            reply = self._reply(request, served) if metered else self._without_model(request)
        except BadRequest as error:
            reply = self._house.desk.refusal(400, str(error))
        self._house.truth.begin(served, metered)
        return served, reply

    def _reply(self, request: Request, served: Served) -> Reply:
        script = self._house.take_script()
        asked = Asked()
        if not self._answered_early:
            asked = self._house.desk.read(request.body, request.header(b"content-type"))
        served.model, served.stream = asked.model, bool(asked.stream)
        script = self._house.desk.script_for(asked, script)
        reply = self._house.desk.answer(request.path, asked, script, int(time.time()))
        served.number = self._house.desk.made
        return reply

    def _without_model(self, request: Request) -> Reply:
        if request.path == "/v1/models" and request.method == "GET":
            return self._house.desk.models(int(time.time()))
        return self._house.desk.refusal(404, f"{request.method} {request.path} is not served here.")

    def _about_itself(self, request: Request) -> Reply:
        """GET and DELETE /__truth, POST /__script: not part of any API, and left out of the truth."""
        desk, truth = self._house.desk, self._house.truth
        if (request.method, request.path) == ("GET", "/__truth"):
            return desk.document(200, truth.as_json())
        if (request.method, request.path) == ("DELETE", "/__truth"):
            truth.reset()
            return desk.document(200, {})
        if (request.method, request.path) == ("POST", "/__script"):
            return self._rescript(request.body)
        return desk.refusal(404, "There are GET and DELETE /__truth, and POST /__script.")

    def _rescript(self, body: bytes) -> Reply:
        try:
            scripts = msgspec.json.decode(body, type=Script | list[Script])
        except msgspec.MsgspecError as error:
            return self._house.desk.refusal(400, str(error))
        self._house.line_up(scripts if isinstance(scripts, list) else [scripts])
        return self._house.desk.document(200, {})

    def _over(self) -> None:
        self._play = None
        if not self._goes_on:
            self._transport.close()
        elif self._waiting:
            self._answer(self._waiting.popleft())
