"""Settle: what the request truly used, charged once in place of what was held for it."""

from __future__ import annotations

from datetime import datetime, tzinfo

import msgspec

from gateway.core.errors import ClientGone
from gateway.core.estimate import BYTES_PER_TOKEN, Estimates, streamed_tokens
from gateway.core.exchange import AnswerTally, Exchange
from gateway.core.limits import Meter
from gateway.core.request import ParsedRequest
from gateway.core.reservation import Hold, LedgerEntry, Reservation, Settlement, SettlementLine
from gateway.core.usage import Usage, UsageSource
from gateway.store.contract import Counters

_FRAME_OF_PLAIN_ANSWER = 400
"""Bytes of a plain answer that are not its text: ids, names, usage."""


async def settle(exchange: Exchange, estimates: Estimates, zone: tzinfo, counters: Counters) -> None:
    """Note what was used in the exchange, and charge it. Raises StoreUnavailable."""
    if exchange.parsed is None or exchange.caller is None or exchange.reservation is None:
        return
    usage = usage_of(exchange, exchange.parsed)
    if usage is not None:
        price = exchange.target.price if exchange.target is not None else None
        exchange.usage = usage
        exchange.cost = price.cost(usage) if price else 0
        _learn(exchange, exchange.parsed, usage, estimates)
    await counters.settle(settlement(exchange, exchange.reservation, zone))


def usage_of(exchange: Exchange, parsed: ParsedRequest) -> Usage | None:
    """What the request used; None where it failed before anything was delivered: failures are free.

    Reported usage counts where there is any. Else the input is estimated from its bytes and the output
    from what was delivered. A client that left before the first byte still pays for its prompt.
    """
    tally, left = exchange.tally, isinstance(exchange.error, ClientGone)
    if tally is None:
        return _estimated(exchange, 0) if left and exchange.target is not None else None
    if exchange.status >= 400 and not (left and exchange.status == ClientGone.status):
        return None
    reported = tally.usage
    if reported is not None:
        return reported if exchange.whole else _at_least_delivered(reported, parsed, tally)
    nothing_came = not tally.events and not tally.text_bytes
    if nothing_came and (tally.failed or (exchange.error is not None and not left)):
        return None
    return _estimated(exchange, _delivered(tally) if parsed.endpoint.cap_members else 0)


def _at_least_delivered(reported: Usage, parsed: ParsedRequest, tally: AnswerTally) -> Usage:
    """A stream that was cut, where reports come in parts: the first one knows the input, and no output yet."""
    if not parsed.endpoint.usage_in_parts or tally.events <= reported.output:
        return reported
    return msgspec.structs.replace(reported, output=tally.events, source=UsageSource.ESTIMATED)


def settlement(exchange: Exchange, reservation: Reservation, zone: tzinfo) -> Settlement:
    """The truth about a reservation, as the store takes it."""
    usage = exchange.usage
    entry = None
    if usage is not None and exchange.caller is not None and exchange.parsed is not None:
        day = datetime.fromtimestamp(reservation.at_ms / 1000, zone).date().isoformat()
        caller, parsed, target = exchange.caller, exchange.parsed, exchange.target
        entry = LedgerEntry(
            day=day,
            team=caller.team,
            key=caller.key_id,
            model=parsed.model.name,
            usage=usage,
            cost=exchange.cost,
            upstream=target.upstream.name if target else "",
            user=parsed.user,
            cost_center=caller.cost_center,
        )
    used = usage or Usage()
    dues = tuple([SettlementLine(hold, _actual(hold, used, exchange.cost)) for hold in reservation.holds])
    return Settlement(reservation.id, reservation.at_ms, dues, entry)


def _actual(hold: Hold, usage: Usage, cost: int) -> int:
    match hold.limit.meter:
        case Meter.TOKENS:
            return usage.total
        case Meter.INPUT_TOKENS:
            return usage.input
        case Meter.OUTPUT_TOKENS:
            return usage.output
        case Meter.USD:
            return cost
        case _:
            return 0


def _estimated(exchange: Exchange, output: int) -> Usage:
    if exchange.parsed is not None and not exchange.parsed.endpoint.estimated:
        return Usage()  # Where tokens are not the measure, those that are not reported are none.
    return Usage(input=exchange.estimated_input, output=output, source=UsageSource.ESTIMATED)


def _delivered(tally: AnswerTally) -> int:
    """Tokens in what was delivered."""
    if tally.events:
        return streamed_tokens(tally.events, tally.text_bytes)
    return max(0, int((tally.text_bytes - _FRAME_OF_PLAIN_ANSWER) // BYTES_PER_TOKEN))


def _learn(exchange: Exchange, parsed: ParsedRequest, usage: Usage, estimates: Estimates) -> None:
    if exchange.whole and usage.source is UsageSource.REPORTED:
        output = usage.output // parsed.choices
        estimates.of(parsed.model.name).learn(parsed.input_bytes, usage.input, output)
