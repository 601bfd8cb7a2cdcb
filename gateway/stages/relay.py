"""Relay: the upstream's bytes to the client as they come, while a tally watches.

A piece of a stream goes from socket to socket inside one callback; this coroutine only waits for the
end. A slow client pauses the upstream's socket, so little is ever held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.body_kind import BodyKind, kind_of
from gateway.core.clock import Clock
from gateway.core.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from gateway.core.exchange import Exchange
from gateway.core.request import ParsedRequest
from gateway.core.response import Headers, ResponseWriter, UpstreamResponse
from gateway.core.stream_format import stream_of_plain
from gateway.core.tally import OutputBudget, PlainTally, StreamTally
from gateway.core.upstream_json import error_message
from gateway.runtime.tasks import wait_first

WHOLE_MAX = 128 * 1024
"""Bytes of a plain answer that are collected, to be sent as one; a longer one is relayed as it comes."""

PASSED_BACK = (
    "content-type",
    "content-encoding",
    "content-language",
    "retry-after",
    "openai-processing-ms",
    "openai-version",
)
"""Headers of the upstream that reach the client. Of content codings only those that could not be decoded are left."""


async def relay(
    exchange: Exchange, parsed: ParsedRequest, response: UpstreamResponse, writer: ResponseWriter, clock: Clock
) -> None:
    """Give the answer to the client. Raises UpstreamBroke, UpstreamTimedOut once a part was given."""
    exchange.status = response.status
    exchange.first_byte_at = clock.monotonic()
    collected = _CollectedAnswer(response, WHOLE_MAX)
    try:
        kind = await collected.kind()
        # A keep-alive may have begun the client's answer meanwhile.
        exchange.status = 200 if writer.started else response.status
        if _is_stream(kind, parsed, response):
            await _relay_stream(exchange, parsed, collected, writer)
        elif writer.started:
            await _relay_late(exchange, parsed, collected, writer)
        else:
            await _relay_plain(exchange, parsed, kind, collected, writer)
        exchange.whole = True
    finally:
        exchange.upstream_seconds += clock.monotonic() - exchange.first_byte_at


def _is_stream(kind: BodyKind | None, parsed: ParsedRequest, response: UpstreamResponse) -> bool:
    """Whether the answer is an event stream: by what it is, where the request asks for one, whatever its content type
    says. Where its first bytes do not show what it is, its content type does."""
    if kind is BodyKind.JSON or "content-encoding" in response.headers:
        return False
    return _is_called_stream(response) or (parsed.stream and kind is BodyKind.EVENTS)


def _is_called_stream(response: UpstreamResponse) -> bool:
    return response.headers.get("content-type", "").lower().startswith("text/event-stream")


def answer_headers(exchange: Exchange, response: UpstreamResponse, content_type: str | None = None) -> Headers:
    """The head that the client sees: a few of the upstream's headers and the state of the caller's limits. A
    `content_type` replaces the upstream's."""
    passed = [(name, value) for name in PASSED_BACK if (value := response.headers.get(name)) is not None]
    if content_type is not None:
        passed = [("content-type", content_type), *[each for each in passed if each[0] != "content-type"]]
    return [*passed, *exchange.limit_headers()]


def _output_budget(exchange: Exchange, parsed: ParsedRequest) -> OutputBudget | None:
    """What the stream may deliver where a quota wants it stopped when that is spent."""
    reservation, shape = exchange.reservation, parsed.endpoint.stream_format
    if reservation is None or shape is None or not any(hold.limit.stops for hold in reservation.holds):
        return None
    return OutputBudget(
        shape, output=reservation.granted, input_tokens=exchange.estimated_input, choices=parsed.choices
    )


async def _relay_stream(
    exchange: Exchange, parsed: ParsedRequest, collected: _CollectedAnswer, writer: ResponseWriter
) -> None:
    response = collected.response
    merge = parsed.endpoint.asks_with_stream_options and not parsed.asks_usage
    tally = StreamTally(parsed.endpoint, merge=merge, budget=_output_budget(exchange, parsed))
    exchange.tally = tally

    def feed_to_the_stop(data: bytes) -> bytes:
        passed = tally.feed(data)
        if tally.stopped:
            response.abandon()
        return passed

    try:
        # Clients go by the content type, so that it says what the body is.
        content_type = None if _is_called_stream(response) else "text/event-stream; charset=utf-8"
        await writer.start(response.status, answer_headers(exchange, response, content_type))
        collected.pass_on_to(writer, feed_to_the_stop if tally.may_stop else tally.feed)
        await response.finished()
    except UpstreamError:
        if not tally.stopped:
            writer.write(tally.cut())
            raise
    except asyncio.CancelledError:
        # A client that has left needs no more, and its stream may still be read on. One that leaves after the last
        # event has the whole answer.
        if not writer.gone:
            writer.write(tally.cut())
        exchange.whole = writer.gone and tally.ended
        raise
    if not tally.stopped and not tally.ends_whole:
        writer.write(tally.cut())
        raise UpstreamBroke(f"The upstream {_name(exchange)!r} ended its answer inside an event.")
    writer.write(tally.close())
    writer.finish()


async def _relay_plain(
    exchange: Exchange,
    parsed: ParsedRequest,
    kind: BodyKind | None,
    collected: _CollectedAnswer,
    writer: ResponseWriter,
) -> None:
    """JSON is sent as one, unless it is long. Whatever else it is (sound, images, files) is relayed as it comes."""
    response = collected.response
    exchange.tally = tally = _plain_tally(parsed, response)
    is_miscalled = kind is BodyKind.JSON and _is_called_stream(response)
    headers = answer_headers(exchange, response, "application/json" if is_miscalled else None)
    collected.show(tally.feed)
    is_gathered = response.is_over or kind is BodyKind.JSON or response.status >= 400
    if is_gathered and await collected.is_whole():
        tally.close()
        writer.send(response.status, headers, collected.body)
        return
    await writer.start(response.status, headers)
    collected.pass_on_to(writer)
    await response.finished()
    tally.close()
    writer.finish()


def _plain_tally(parsed: ParsedRequest, response: UpstreamResponse) -> PlainTally:
    is_opaque = "content-encoding" in response.headers
    return PlainTally(parsed.endpoint, failed=response.status >= 400, is_opaque=is_opaque)


async def _relay_late(
    exchange: Exchange, parsed: ParsedRequest, collected: _CollectedAnswer, writer: ResponseWriter
) -> None:
    """A keep-alive has begun a stream, and the upstream answers with something else: an error, or the whole answer
    at once. Raises UpstreamRefused for what cannot be written as the stream that was asked for."""
    response = collected.response
    tally = _plain_tally(parsed, response)
    collected.show(tally.feed)
    is_whole = await collected.is_whole()
    # Only now: of an answer that breaks before its end the client gets nothing, and pays nothing.
    exchange.tally = tally
    tally.close()
    merge = not parsed.asks_usage
    events = None
    if is_whole and not tally.failed:
        events = stream_of_plain(parsed.endpoint.stream_format, collected.body, merge=merge)
    if events is not None:
        writer.write(events)
        writer.finish()
    elif response.status < 400 and not tally.failed:
        raise UpstreamRefused(f"The upstream {_name(exchange)!r} did not stream its answer, as the request asks.")
    else:
        reason = error_message(collected.body)
        raise UpstreamRefused(
            f"The upstream {_name(exchange)!r} answered with status {response.status} after a while: {reason}"
        )


def _name(exchange: Exchange) -> str:
    return exchange.target.upstream.name if exchange.target else ""


class _CollectedAnswer:
    """An answer's beginning, until it is known what it is; a plain one until it is whole, or longer than `max_bytes`.
    Each piece is also shown to the tally, once there is one."""

    def __init__(self, response: UpstreamResponse, max_bytes: int) -> None:
        self.response = response
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size = 0
        self._show: Callable[[bytes], object] | None = None
        self._grown: asyncio.Event | None = None
        self._gathers = False
        response.deliver_to(self._take)

    @property
    def body(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    async def kind(self) -> BodyKind | None:
        """What the answer is, as soon as that can be told; None for one that ends before."""
        kind = kind_of(self.body)
        while kind is None and not self.response.is_over:
            self._grown = asyncio.Event()
            await wait_first(self.response.finished(), self._grown.wait())
            kind = kind_of(self.body)
        return kind

    async def is_whole(self) -> bool:
        """Wait until the answer has ended, or is longer than `max_bytes`. Raises what `finished` does."""
        self._gathers = True
        if kind_of(self.body) is not BodyKind.JSON:
            self.response.resume()
        length = self.response.headers.get("content-length", "")
        if self.response.is_over or (length.isdecimal() and int(length) <= self._max_bytes):
            await self.response.finished()
        while self._size <= self._max_bytes and not self.response.is_over:
            self._grown = asyncio.Event()
            await wait_first(self.response.finished(), self._grown.wait())
        return self._size <= self._max_bytes

    def show(self, to: Callable[[bytes], object]) -> None:
        """Show what was collected, and each piece from now on."""
        for piece in self._pieces:
            to(piece)
        self._show = to

    def pass_on_to(self, writer: ResponseWriter, digest: Callable[[bytes], bytes] | None = None) -> None:
        """Give the client what was collected, and from now on each piece as it comes, at the client's own pace: what
        `digest` makes of it, or what is shown to the tally."""
        response, show = self.response, self._show

        def take(data: bytes) -> None:
            if digest is not None:
                data = digest(data)
            elif show is not None:
                show(data)
            if data:
                writer.write(data)
                if writer.congested:
                    response.pause()

        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            passed = piece if digest is None else digest(piece)
            writer.write(passed)
        writer.on_writable(response.resume)
        response.deliver_to(take)
        if writer.congested:
            response.pause()
        else:
            response.resume()

    def _take(self, data: bytes) -> None:
        if self._show is not None:
            self._show(data)
        self._pieces.append(data)
        self._size += len(data)
        # What is not gathered waits at the upstream until the client's answer has begun.
        waits = not self._gathers and kind_of(self._pieces[0]) in (BodyKind.EVENTS, BodyKind.OTHER)
        if waits or self._size > self._max_bytes:
            self.response.pause()
        if self._grown is not None:
            self._grown.set()
