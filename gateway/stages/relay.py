"""Relay: the upstream's bytes to the client as they come, while a tally watches.

A piece of a stream goes from socket to socket inside one callback; this coroutine only waits for the
end. A slow client pauses the upstream's socket, so little is ever held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.clock import Clock
from gateway.core.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from gateway.core.exchange import Exchange
from gateway.core.header_rules import TO_CLIENT
from gateway.core.request import ParsedRequest
from gateway.core.response import Headers, ResponseWriter, UpstreamResponse
from gateway.core.stream_format import stream_of_plain
from gateway.core.tally import KEPT_MAX, OutputBudget, PlainTally, StreamTally
from gateway.core.upstream_json import error_message
from gateway.runtime.tasks import wait_first

WHOLE_MAX = 128 * 1024
"""Bytes of a plain answer that are collected, to be sent as one; a longer one is relayed as it comes."""


async def relay(
    exchange: Exchange, parsed: ParsedRequest, response: UpstreamResponse, writer: ResponseWriter, clock: Clock
) -> None:
    """Give the answer to the client. Raises UpstreamBroke, UpstreamTimedOut once a part was given."""
    exchange.status = 200 if writer.started else response.status
    exchange.first_byte_at = clock.monotonic()
    merge = parsed.endpoint.asks_with_stream_options and not parsed.asks_usage
    try:
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            exchange.tally = stream = StreamTally(parsed.endpoint, merge=merge, budget=_output_budget(exchange, parsed))
            await writer.start(response.status, answer_headers(exchange, response))
            await _relay_stream(exchange, response, writer, stream)
        else:
            plain = PlainTally(parsed.endpoint, failed=response.status >= 400)
            if writer.started:
                await _relay_late(exchange, parsed, response, writer, plain)
            else:
                exchange.tally = plain
                await _relay_plain(response, writer, plain, answer_headers(exchange, response))
        exchange.whole = True
    finally:
        exchange.upstream_seconds += clock.monotonic() - exchange.first_byte_at


def answer_headers(exchange: Exchange, response: UpstreamResponse) -> Headers:
    """The head that the client sees: a few of the upstream's headers and the state of the caller's limits."""
    return [*TO_CLIENT.passed(response.headers), *exchange.limit_headers()]


def _output_budget(exchange: Exchange, parsed: ParsedRequest) -> OutputBudget | None:
    """What the stream may deliver where a quota wants it stopped when that is spent."""
    reservation, shape = exchange.reservation, parsed.endpoint.stream_format
    if reservation is None or shape is None or not any(hold.limit.stops for hold in reservation.holds):
        return None
    return OutputBudget(
        shape, output=reservation.granted, input_tokens=exchange.estimated_input, choices=parsed.choices
    )


def _pass_on(response: UpstreamResponse, writer: ResponseWriter, digest: Callable[[bytes], bytes]) -> None:
    """Give the client what `digest` makes of each piece, at the client's own pace."""

    def take(data: bytes) -> None:
        passed = digest(data)
        if passed:
            writer.write(passed)
            if writer.congested:
                response.pause()

    writer.on_writable(response.resume)
    response.deliver_to(take)


async def _relay_stream(
    exchange: Exchange, response: UpstreamResponse, writer: ResponseWriter, tally: StreamTally
) -> None:
    def feed_to_the_stop(data: bytes) -> bytes:
        passed = tally.feed(data)
        if tally.stopped:
            response.abandon()
        return passed

    _pass_on(response, writer, feed_to_the_stop if tally.may_stop else tally.feed)
    try:
        await response.finished()
    except UpstreamError:
        if not tally.stopped:
            writer.write(tally.cut())
            raise
    except asyncio.CancelledError:
        # A client that has left needs no more, and its stream may still be read on.
        if not writer.gone:
            writer.write(tally.cut())
        raise
    if not tally.stopped and not tally.ends_whole:
        writer.write(tally.cut())
        raise UpstreamBroke(f"The upstream {_name(exchange)!r} ended its answer inside an event.")
    writer.write(tally.close())
    writer.finish()


async def _relay_plain(response: UpstreamResponse, writer: ResponseWriter, tally: PlainTally, headers: Headers) -> None:
    collected = _CollectedAnswer(response, tally, WHOLE_MAX)
    if await collected.is_whole():
        tally.close()
        writer.send(response.status, headers, collected.body)
        return
    await writer.start(response.status, headers)
    collected.pass_on_to(writer)
    await response.finished()
    tally.close()
    writer.finish()


async def _relay_late(
    exchange: Exchange, parsed: ParsedRequest, response: UpstreamResponse, writer: ResponseWriter, tally: PlainTally
) -> None:
    """A keep-alive has begun a stream, and the upstream answers with something else: an error, or the whole answer
    at once. Raises UpstreamRefused for what cannot be written as the stream that was asked for."""
    collected = _CollectedAnswer(response, tally, KEPT_MAX)
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
    """A plain answer until it is whole, or longer than `max_bytes`."""

    def __init__(self, response: UpstreamResponse, tally: PlainTally, max_bytes: int) -> None:
        self._response = response
        self._tally = tally
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size = 0
        self._grown_too_long: asyncio.Event | None = None
        response.deliver_to(self._take)

    @property
    def body(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    async def is_whole(self) -> bool:
        """Wait until the answer has ended, or is longer than `max_bytes`."""
        length = self._response.headers.get("content-length", "")
        if length.isdecimal() and int(length) <= self._max_bytes:
            await self._response.finished()
        elif self._size <= self._max_bytes:
            self._grown_too_long = asyncio.Event()
            await wait_first(self._response.finished(), self._grown_too_long.wait())
        return self._size <= self._max_bytes

    def pass_on_to(self, writer: ResponseWriter) -> None:
        """Give what was collected, and from now on each piece as it comes."""

        def digest(data: bytes) -> bytes:
            self._tally.feed(data)
            return data

        for piece in self._pieces:
            writer.write(piece)
        self._pieces.clear()
        _pass_on(self._response, writer, digest)
        if not writer.congested:
            self._response.resume()

    def _take(self, data: bytes) -> None:
        self._tally.feed(data)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._max_bytes:
            self._response.pause()
            if self._grown_too_long is not None:
                self._grown_too_long.set()
