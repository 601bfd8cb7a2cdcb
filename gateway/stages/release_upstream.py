"""Release the upstream: if the client has left, ends the upstream request, or reads on for a while to learn the true
usage.
"""

from __future__ import annotations

import asyncio

from gateway.core.clock import Clock
from gateway.core.errors import ClientGone, UpstreamError, UpstreamRefused
from gateway.core.exchange import AnswerTally, Exchange
from gateway.core.health import Outcome, outcome_of_answer, outcome_of_error
from gateway.core.response import UpstreamResponse

END_S = 5.0
END_BYTES = 64 * 1024
"""How long and how far an answer is read that the client has whole, so that its connection can be kept."""

READ_ON_S = 30.0
READ_ON_BYTES = 4 * 1024 * 1024
READ_ON_AT_ONCE = 100
"""How long, how far and how many streams at once are read on whose client has left."""

_SUCCEEDED = Outcome.SUCCEEDED  # Slow to reach through the class in Python 3.11.


class UpstreamReleaser:
    """Ends the upstream's side of exchanges whose answer did not end by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read_on: set[UpstreamResponse] = set()

    def release_if_over(self, exchange: Exchange) -> bool:
        """Count how the exchange ended for the health of its upstream, if the answer has ended by itself, as most have.
        Whether it has; if not, `release` is to follow."""
        response = exchange.response
        if response is not None and not response.is_over:
            return False
        _note_outcome(exchange, exchange.ended)
        return True

    async def release(self, exchange: Exchange) -> None:
        """Leave the upstream: at once, or after a bounded time if its `reads_on` says so. How the exchange ended counts
        for the health of its upstream."""
        if exchange.response is not None and not exchange.response.is_over:
            await self._leave(exchange, exchange.response)
        _note_outcome(exchange, self._clock.monotonic())

    async def _leave(self, exchange: Exchange, response: UpstreamResponse) -> None:
        target = exchange.target
        if target is None:
            return
        tally, may_read = exchange.tally, len(self._read_on) < READ_ON_AT_ONCE
        if tally is not None and exchange.whole:
            if may_read:
                await self._to_its_end(response, tally, END_S, END_BYTES)
        elif tally is not None and isinstance(exchange.error, ClientGone) and target.upstream.reads_on and may_read:
            await self._to_its_end(response, tally, READ_ON_S, READ_ON_BYTES)
        response.abandon()

    def abort(self) -> None:
        """Leave every upstream that is still read."""
        for response in self._read_on:
            response.abandon()

    async def _to_its_end(
        self, response: UpstreamResponse, tally: AnswerTally, most_seconds: float, most_bytes: int
    ) -> None:
        taken = 0

        def take(data: bytes) -> None:
            nonlocal taken
            tally.feed(data)
            taken += len(data)
            if taken > most_bytes:
                response.abandon()

        self._read_on.add(response)
        try:
            response.deliver_to(take)
            response.resume()
            async with asyncio.timeout(most_seconds):
                await response.finished()
        except (TimeoutError, UpstreamError):
            return  # What was seen so far is what is charged.
        finally:
            self._read_on.discard(response)


def _note_outcome(exchange: Exchange, now: float) -> None:
    attempt = exchange.attempt
    if attempt is not None:
        outcome = outcome_of(exchange)
        if outcome is _SUCCEEDED:
            attempt.ended(outcome, now)
        else:
            attempt.ended(outcome, now, reason=_reason_of(exchange))


def outcome_of(exchange: Exchange) -> Outcome:
    """What an exchange says about its upstream. An error event inside a 200 says whose fault it is; a client that
    leaves says nothing; an answer that came too late to pass on its status still counts by that status."""
    error, tally, response = exchange.error, exchange.tally, exchange.response
    if error is not None and not isinstance(error, UpstreamRefused):
        return outcome_of_error(error) if isinstance(error, UpstreamError) else Outcome.NEUTRAL
    if tally is None or tally.fault is None:
        return _SUCCEEDED
    return outcome_of_answer(response.status if response is not None else exchange.status, tally.fault)


def _reason_of(exchange: Exchange) -> str:
    """One of a closed list: how the answer failed, if it did."""
    error = exchange.error
    return error.reason if isinstance(error, UpstreamError) else "error_event"
