"""Relay: passes the upstream's bytes to the client as they come, while a tally counts.

What has come whole is given as one, by a plain call. A piece of a stream goes to the client's connection inside the
callback that brought it; the coroutine only waits for the end. A slow client pauses the upstream's socket, so little is
ever held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.body_kind import BodyKind
from gateway.core.clock import Clock
from gateway.core.collected_response import CollectedResponse
from gateway.core.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from gateway.core.exchange import Exchange
from gateway.core.header_rules import TO_CLIENT, UPSTREAM_ID_HEADERS
from gateway.core.output_budget import OutputBudget
from gateway.core.plain_tally import PlainTally
from gateway.core.request import ParsedRequest
from gateway.core.response import Headers, ResponseWriter
from gateway.core.stream_format import stream_of_plain
from gateway.core.stream_tally import StreamTally
from gateway.core.upstream_json import error_message

_JSON = BodyKind.JSON  # Slow to reach through the class in Python 3.11.

_passed_to_client = TO_CLIENT.passed_once  # As in forward.py: else each call binds it.


def relay_if_whole(
    exchange: Exchange, parsed: ParsedRequest, response: CollectedResponse, writer: ResponseWriter
) -> bool:
    """Give the answer to the client as one, if it has come whole. Whether it has; if not, `relay` is to follow."""
    body = response.available()
    if body is None or response.is_stream or writer.started:
        return False
    exchange.status = response.status
    exchange.tally = tally = _plain_tally(parsed, response)
    tally.feed(body)
    tally.close()
    writer.send(response.status, answer_headers(response), body, exchange.limit_lines())
    exchange.whole = True
    return True


async def relay(
    exchange: Exchange, parsed: ParsedRequest, response: CollectedResponse, writer: ResponseWriter, clock: Clock
) -> None:
    """Give an answer that did not come whole to its client. Raises UpstreamBroke, UpstreamTimedOut once a part was
    given, and UpstreamRefused for what cannot be a part of the stream that has begun."""
    exchange.status = 200 if writer.started else response.status
    began = clock.monotonic()
    try:
        if writer.started and not response.is_stream:
            _relay_late(exchange, parsed, response, writer)
            exchange.whole = True
            return
        passage = _passage_of(exchange, parsed, response, writer)
        try:
            writer.start(response.status, answer_headers(response), exchange.limit_lines())
            response.keep_headers(UPSTREAM_ID_HEADERS)
            passage.begin()
            writer.flush()
            # In place of `finished`: each of many open streams would have one more coroutine.
            while not response.is_over:
                await response.woken()
            if not passage.end():
                raise UpstreamBroke(f"The upstream {_name(exchange)!r} ended its answer inside an event.")
            exchange.whole = True
        except UpstreamError:
            passage.cut()
            raise
        except asyncio.CancelledError:
            # A client that has left needs no more, and its stream may still be read on. One that leaves after the last
            # event has the whole answer.
            if not writer.gone:
                passage.cut()
            elif passage.has_ended:
                exchange.whole = True
                writer.finish()
            raise
    finally:
        exchange.redacted = response.redacted
        exchange.upstream_seconds += clock.monotonic() - began


def answer_headers(response: CollectedResponse) -> Headers:
    """What the client sees of the upstream's headers. Clients go by the content type, so that it says what the body
    is."""
    passed, is_stream = _passed_to_client(response.headers), response.is_stream
    if is_stream != response.is_called_stream() and (is_stream or response.kind is _JSON):
        content_type = "text/event-stream; charset=utf-8" if is_stream else "application/json"
        passed = [("content-type", content_type), *[each for each in passed if each[0] != "content-type"]]
    return passed


def _output_budget(exchange: Exchange, parsed: ParsedRequest) -> OutputBudget | None:
    """What the stream may deliver where a quota wants it stopped when that is spent."""
    reservation, shape = exchange.reservation, parsed.endpoint.stream_format
    if reservation is None or shape is None or not any(limit.stops for limit in reservation.holds.limits):
        return None
    return OutputBudget(
        shape, output=reservation.granted, input_tokens=exchange.estimated_input, choices=parsed.choices
    )


class _Passage:
    """Gives the client each piece of an answer as it comes, at the client's own pace; an `AnswerSource`. One small
    object: thousands of streams take turns, and what each has of its own is seldom in the processor's caches."""

    __slots__ = ("_response", "_writer")

    has_ended = False
    """Whether the client was given the last event of a stream."""

    def __init__(self, response: CollectedResponse, writer: ResponseWriter) -> None:
        self._response = response
        self._writer = writer

    def begin(self) -> None:
        response, writer = self._response, self._writer
        writer.control_source(self)
        response.deliver_to(self._taker())
        if response.is_too_long and not writer.congested:
            response.resume()

    def end(self) -> bool:
        """The answer is over: give what is left. Whether it is whole; if not, `cut` is to follow. Raises what broke
        it."""
        raise NotImplementedError

    def cut(self) -> None:
        """The answer is broken: give what may still be given."""

    def pause(self) -> None:
        self._response.pause()

    def resume(self) -> None:
        self._response.resume()

    def is_between_events(self) -> bool:
        """Nothing may be written between the pieces of what is no stream of events."""
        return False

    def _taker(self) -> Callable[[bytes], None]:
        """What takes and writes each piece."""
        raise NotImplementedError


class _EventPassage(_Passage):
    """A stream, of which the client gets what the tally makes of each piece."""

    __slots__ = ("_tally",)

    def __init__(self, response: CollectedResponse, tally: StreamTally, writer: ResponseWriter) -> None:
        super().__init__(response, writer)
        self._tally = tally

    @property
    def has_ended(self) -> bool:  # type: ignore[override]  # It is only read.
        return self._tally.ended

    def end(self) -> bool:
        if not self._tally.stopped:
            self._response.end()
            if not self._tally.ends_whole:
                return False
        self._writer.write(self._tally.close())
        self._writer.finish()
        return True

    def cut(self) -> None:
        self._writer.write(self._tally.cut())

    def is_between_events(self) -> bool:
        return self._tally.is_between_events()

    def _taker(self) -> Callable[[bytes], None]:
        return self._take_to_the_stop if self._tally.may_stop else self._take

    def _take(self, data: bytes) -> None:
        self._writer.write(self._tally.feed(data))

    def _take_to_the_stop(self, data: bytes) -> None:
        """The same where the tally may end the stream."""
        passed = self._tally.feed(data)
        if self._tally.stopped:
            self._response.abandon()
        self._writer.write(passed)


class _PlainPassage(_Passage):
    """An answer that is long or not JSON: what has come is given, then the rest as it comes."""

    __slots__ = ("_tally",)

    def __init__(self, response: CollectedResponse, tally: PlainTally, writer: ResponseWriter) -> None:
        super().__init__(response, writer)
        self._tally = tally

    def end(self) -> bool:
        self._response.end()
        self._tally.close()
        self._writer.finish()
        return True

    def _taker(self) -> Callable[[bytes], None]:
        return self._take

    def _take(self, data: bytes) -> None:
        self._tally.feed(data)
        self._writer.write(data)


def _passage_of(
    exchange: Exchange, parsed: ParsedRequest, response: CollectedResponse, writer: ResponseWriter
) -> _Passage:
    if not response.is_stream:
        exchange.tally = plain = _plain_tally(parsed, response)
        return _PlainPassage(response, plain, writer)
    merge = parsed.endpoint.asks_with_stream_options and not parsed.asks_usage
    tally = StreamTally(parsed.endpoint, merge=merge, budget=_output_budget(exchange, parsed))
    exchange.tally = tally
    return _EventPassage(response, tally, writer)


def _plain_tally(parsed: ParsedRequest, response: CollectedResponse) -> PlainTally:
    return PlainTally(parsed.endpoint, fault=response.fault, is_opaque=response.is_opaque())


def _relay_late(exchange: Exchange, parsed: ParsedRequest, response: CollectedResponse, writer: ResponseWriter) -> None:
    """A keep-alive has begun a stream, and the upstream answers with something else: an error, or the whole answer
    at once. Raises UpstreamRefused for what cannot be written as the stream that was asked for."""
    exchange.tally = tally = _plain_tally(parsed, response)
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
