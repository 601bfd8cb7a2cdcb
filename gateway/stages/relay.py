"""Relay: the upstream's bytes to the client as they come, while the tally looks on.

A piece of a stream goes from socket to socket inside one callback; this coroutine only waits for the
end. A slow client pauses the upstream's socket, so little is ever held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.answer import Answer
from gateway.core.clock import Clock
from gateway.core.envelope import Envelope
from gateway.core.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from gateway.core.exchange import Exchange
from gateway.core.plain_tally import PlainTally
from gateway.core.report import error_message
from gateway.core.sink import Sink
from gateway.core.standing import limit_headers
from gateway.core.stopping import Allowance
from gateway.core.tally import StreamTally

WHOLE_MAX = 128 * 1024
"""Bytes of a plain answer that are gathered, to be sent as one; a longer one is relayed as it comes."""

PASSED_BACK = ("content-type", "content-language", "retry-after", "openai-processing-ms", "openai-version")
"""Headers of the upstream that reach the client."""


async def relay(exchange: Exchange, envelope: Envelope, answer: Answer, sink: Sink, clock: Clock) -> None:
    """Give the answer to the client. Raises UpstreamBroke, UpstreamTimedOut once a part was given."""
    exchange.status = 200 if sink.begun else answer.status
    exchange.first_byte_at = clock.monotonic()
    headers = answer_headers(exchange, answer)
    try:
        if answer.headers.get("content-type", "").lower().startswith("text/event-stream"):
            merge = envelope.endpoint.asks_with_stream_options and not envelope.asks_usage
            allowance = _allowance(exchange, envelope)
            tally = StreamTally(envelope.endpoint, merge=merge, allowance=allowance)
            exchange.tally = tally
            await sink.begin(answer.status, headers)
            await _relay_stream(exchange, answer, sink, tally)
        else:
            plain = PlainTally(envelope.endpoint, failed=answer.status >= 400)
            if sink.begun:
                await _raise_late(exchange, answer, plain)
            exchange.tally = plain
            await _relay_plain(answer, sink, plain, headers)
        exchange.whole = True
    finally:
        exchange.upstream_seconds += clock.monotonic() - exchange.first_byte_at


def answer_headers(exchange: Exchange, answer: Answer) -> list[tuple[str, str]]:
    """The head that the client sees: a few of the upstream's headers and how the caller's limits stand."""
    headers = [(name, value) for name in PASSED_BACK if (value := answer.headers.get(name)) is not None]
    reservation = exchange.reservation
    if reservation is not None:
        headers += limit_headers(reservation.standings, reservation.at_ms)
    return headers


def _allowance(exchange: Exchange, envelope: Envelope) -> Allowance | None:
    """What the stream may have where a quota wants it stopped when that is spent."""
    reservation = exchange.reservation
    if reservation is None or not envelope.endpoint.asks_with_stream_options:
        return None
    if not any(hold.limit.stops for hold in reservation.holds):
        return None
    return Allowance(reservation.granted, exchange.estimated_input, envelope.choices)


def _pass_on(answer: Answer, sink: Sink, digest: Callable[[bytes], bytes]) -> None:
    """Give the client what `digest` makes of each piece, at the client's own pace."""

    def take(data: bytes) -> None:
        passed = digest(data)
        if passed:
            sink.write(passed)
            if sink.congested:
                answer.pause()

    sink.on_relief(answer.resume)
    answer.pour(take)


async def _relay_stream(exchange: Exchange, answer: Answer, sink: Sink, tally: StreamTally) -> None:
    def feed_to_the_stop(data: bytes) -> bytes:
        passed = tally.feed(data)
        if tally.stopped:
            answer.abandon()
        return passed

    _pass_on(answer, sink, feed_to_the_stop if tally.may_stop else tally.feed)
    try:
        await answer.finished()
    except UpstreamError:
        if not tally.stopped:
            sink.write(tally.cut())
            raise
    except asyncio.CancelledError:
        # A client that has left needs no more, and its stream may still be read on.
        if not sink.gone:
            sink.write(tally.cut())
        raise
    if not tally.stopped and not tally.ends_whole:
        sink.write(tally.cut())
        raise UpstreamBroke(f"The upstream {_name(exchange)!r} ended its answer inside an event.")
    sink.write(tally.close())
    sink.end()


async def _relay_plain(answer: Answer, sink: Sink, tally: PlainTally, headers: list[tuple[str, str]]) -> None:
    gathered = _Gathered(answer, tally)
    answer.pour(gathered.take)
    if await gathered.is_whole():
        tally.close()
        sink.whole(answer.status, headers, b"".join(gathered.pieces))
        return
    await sink.begin(answer.status, headers)
    gathered.pass_on_to(sink)
    await answer.finished()
    tally.close()
    sink.end()


async def _raise_late(exchange: Exchange, answer: Answer, tally: PlainTally) -> None:
    """A keep-alive has begun a stream, and the upstream answers with something else. Raises UpstreamRefused."""
    gathered = _Gathered(answer, tally)
    answer.pour(gathered.take)
    await gathered.is_whole()
    said = error_message(b"".join(gathered.pieces))
    raise UpstreamRefused(
        f"The upstream {_name(exchange)!r} answered with status {answer.status} after a while: {said}"
    )


def _name(exchange: Exchange) -> str:
    return exchange.target.upstream.name if exchange.target else ""


class _Gathered:
    """A plain answer until it is whole, or too long to be kept."""

    def __init__(self, answer: Answer, tally: PlainTally) -> None:
        self.pieces: list[bytes] = []
        self._size = 0
        self._answer = answer
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

    def pass_on_to(self, sink: Sink) -> None:
        """Give what was gathered, and from now on each piece as it comes."""

        def digest(data: bytes) -> bytes:
            self._tally.feed(data)
            return data

        for piece in self.pieces:
            sink.write(piece)
        self.pieces.clear()
        _pass_on(self._answer, sink, digest)
        if not sink.congested:
            self._answer.resume()
