"""Relay: the upstream's bytes to the client as they come, while the tally looks on.

A piece of a stream goes from socket to socket inside one callback; this coroutine only waits for the
end. A slow client pauses the upstream's socket, so little is ever held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.clock import Clock
from gateway.core.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from gateway.core.exchange import Exchange
from gateway.core.limit_status import limit_headers
from gateway.core.output_budget import OutputBudget
from gateway.core.plain_tally import PlainTally
from gateway.core.request import ParsedRequest
from gateway.core.response import ResponseWriter, UpstreamResponse
from gateway.core.tally import StreamTally
from gateway.core.upstream_json import error_message

WHOLE_MAX = 128 * 1024
"""Bytes of a plain answer that are gathered, to be sent as one; a longer one is relayed as it comes."""

PASSED_BACK = ("content-type", "content-language", "retry-after", "openai-processing-ms", "openai-version")
"""Headers of the upstream that reach the client."""


async def relay(
    exchange: Exchange, parsed: ParsedRequest, response: UpstreamResponse, writer: ResponseWriter, clock: Clock
) -> None:
    """Give the answer to the client. Raises UpstreamBroke, UpstreamTimedOut once a part was given."""
    exchange.status = 200 if writer.started else response.status
    exchange.first_byte_at = clock.monotonic()
    headers = answer_headers(exchange, response)
    try:
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            merge = parsed.endpoint.asks_with_stream_options and not parsed.asks_usage
            budget = _output_budget(exchange, parsed)
            tally = StreamTally(parsed.endpoint, merge=merge, budget=budget)
            exchange.tally = tally
            await writer.start(response.status, headers)
            await _relay_stream(exchange, response, writer, tally)
        else:
            plain = PlainTally(parsed.endpoint, failed=response.status >= 400)
            if writer.started:
                await _raise_late(exchange, response, plain)
            exchange.tally = plain
            await _relay_plain(response, writer, plain, headers)
        exchange.whole = True
    finally:
        exchange.upstream_seconds += clock.monotonic() - exchange.first_byte_at


def answer_headers(exchange: Exchange, response: UpstreamResponse) -> list[tuple[str, str]]:
    """The head that the client sees: a few of the upstream's headers and how the caller's limits stand."""
    headers = [(name, value) for name in PASSED_BACK if (value := response.headers.get(name)) is not None]
    reservation = exchange.reservation
    if reservation is not None:
        headers += limit_headers(reservation.limit_statuses, reservation.at_ms)
    return headers


def _output_budget(exchange: Exchange, parsed: ParsedRequest) -> OutputBudget | None:
    """What the stream may have where a quota wants it stopped when that is spent."""
    reservation = exchange.reservation
    if reservation is None or not parsed.endpoint.asks_with_stream_options:
        return None
    if not any(hold.limit.stops for hold in reservation.holds):
        return None
    return OutputBudget(reservation.granted, exchange.estimated_input, parsed.choices)


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


async def _relay_plain(
    response: UpstreamResponse, writer: ResponseWriter, tally: PlainTally, headers: list[tuple[str, str]]
) -> None:
    gathered = _Gathered(response, tally)
    response.deliver_to(gathered.take)
    if await gathered.is_whole():
        tally.close()
        writer.send(response.status, headers, b"".join(gathered.pieces))
        return
    await writer.start(response.status, headers)
    gathered.pass_on_to(writer)
    await response.finished()
    tally.close()
    writer.finish()


async def _raise_late(exchange: Exchange, response: UpstreamResponse, tally: PlainTally) -> None:
    """A keep-alive has begun a stream, and the upstream answers with something else. Raises UpstreamRefused."""
    gathered = _Gathered(response, tally)
    response.deliver_to(gathered.take)
    await gathered.is_whole()
    said = error_message(b"".join(gathered.pieces))
    raise UpstreamRefused(
        f"The upstream {_name(exchange)!r} answered with status {response.status} after a while: {said}"
    )


def _name(exchange: Exchange) -> str:
    return exchange.target.upstream.name if exchange.target else ""


class _Gathered:
    """A plain answer until it is whole, or too long to be kept."""

    def __init__(self, response: UpstreamResponse, tally: PlainTally) -> None:
        self.pieces: list[bytes] = []
        self._size = 0
        self._answer = response
        self._tally = tally
        self._too_long: asyncio.Future[None] | None = None

    def take(self, data: bytes) -> None:
        self._tally.feed(data)
        self.pieces.append(data)
        self._size += len(data)
        if self._size > WHOLE_MAX:
            self._answer.pause()
            if self._too_long is not None and not self._too_long.done():
                self._too_long.set_result(None)

    async def is_whole(self) -> bool:
        """Wait until the answer has ended, or is longer than WHOLE_MAX."""
        length = self._answer.headers.get("content-length", "")
        if length.isdecimal() and int(length) <= WHOLE_MAX:
            await self._answer.finished()
            return True
        if self._size > WHOLE_MAX:
            return False
        self._too_long = asyncio.get_running_loop().create_future()
        finished = asyncio.ensure_future(self._answer.finished())
        try:
            await asyncio.wait((finished, self._too_long), return_when=asyncio.FIRST_COMPLETED)
            if finished.done():
                finished.result()
            return finished.done() and self._size <= WHOLE_MAX
        finally:
            finished.cancel()

    def pass_on_to(self, writer: ResponseWriter) -> None:
        """Give what was gathered, and from now on each piece as it comes."""

        def digest(data: bytes) -> bytes:
            self._tally.feed(data)
            return data

        for piece in self.pieces:
            writer.write(piece)
        self.pieces.clear()
        _pass_on(self._answer, writer, digest)
        if not writer.congested:
            self._answer.resume()
