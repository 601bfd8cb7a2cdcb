"""Relay: the upstream's bytes to the client as they come, while a tally watches.

A piece of a stream goes from socket to socket inside one callback; this coroutine only waits for the
end. A slow client pauses the upstream's socket, so little is ever held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.clock import Clock
from gateway.core.collected_response import CollectedResponse
from gateway.core.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from gateway.core.exchange import Exchange
from gateway.core.header_rules import TO_CLIENT
from gateway.core.request import ParsedRequest
from gateway.core.response import Headers, ResponseWriter, UpstreamResponse
from gateway.core.stream_format import stream_of_plain
from gateway.core.tally import OutputBudget, PlainTally, StreamTally
from gateway.core.upstream_json import error_message


async def relay(
    exchange: Exchange, parsed: ParsedRequest, response: UpstreamResponse, writer: ResponseWriter, clock: Clock
) -> None:
    """Give the answer to the client. Raises UpstreamBroke, UpstreamTimedOut once a part was given, and UpstreamRefused
    for what cannot be a part of the stream that has begun."""
    exchange.status = 200 if writer.started else response.status
    began = clock.monotonic()
    try:
        if isinstance(response, CollectedResponse):
            exchange.tally = plain = PlainTally(parsed.endpoint, failed=response.status >= 400)
            plain.fault = response.fault
            if writer.started:
                _relay_late(exchange, parsed, response, writer, plain)
            else:
                await _relay_plain(response, writer, plain, answer_headers(exchange, response))
        else:
            exchange.first_byte_at = began
            merge = parsed.endpoint.asks_with_stream_options and not parsed.asks_usage
            exchange.tally = stream = StreamTally(parsed.endpoint, merge=merge, budget=_output_budget(exchange, parsed))
            await writer.start(response.status, answer_headers(exchange, response))
            await _relay_stream(exchange, response, writer, stream)
        exchange.whole = True
    finally:
        exchange.upstream_seconds += clock.monotonic() - began


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


async def _relay_plain(
    response: CollectedResponse, writer: ResponseWriter, tally: PlainTally, headers: Headers
) -> None:
    if response.is_whole:
        tally.feed(response.body)
        tally.close()
        writer.send(response.status, headers, response.body)
        return

    def watched(data: bytes) -> bytes:
        tally.feed(data)
        return data

    await writer.start(response.status, headers)
    _pass_on(response, writer, watched)
    if not writer.congested:
        response.resume()
    await response.finished()
    tally.close()
    writer.finish()


def _relay_late(
    exchange: Exchange, parsed: ParsedRequest, response: CollectedResponse, writer: ResponseWriter, tally: PlainTally
) -> None:
    """A keep-alive has begun a stream, and the upstream answers with something else: an error, or the whole answer
    at once. Raises UpstreamRefused for what cannot be written as the stream that was asked for."""
    tally.feed(response.body)
    tally.close()
    merge = not parsed.asks_usage
    events = None
    if response.is_whole and not tally.failed:
        events = stream_of_plain(parsed.endpoint.stream_format, response.body, merge=merge)
    if events is not None:
        writer.write(events)
        writer.finish()
    elif response.status < 400 and not tally.failed:
        raise UpstreamRefused(f"The upstream {_name(exchange)!r} did not stream its answer, as the request asks.")
    else:
        reason = error_message(response.body)
        raise UpstreamRefused(
            f"The upstream {_name(exchange)!r} answered with status {response.status} after a while: {reason}"
        )


def _name(exchange: Exchange) -> str:
    return exchange.target.upstream.name if exchange.target else ""
