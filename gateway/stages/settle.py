"""Settle: charges what the request truly used, once, in place of what was held for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Protocol

import msgspec

from gateway.core.errors import ClientGone, UpstreamRefused
from gateway.core.estimate import Estimator
from gateway.core.exchange import AnswerTally, Exchange
from gateway.core.limits import charged_by_use
from gateway.core.remembered import remembered
from gateway.core.request import ParsedRequest
from gateway.core.request_record import KeptRecord
from gateway.core.reservation import CHARGE_MAX, LedgerEntry, Reservation, Settlement
from gateway.core.snapshot import Target
from gateway.core.sound_length import sent_ms
from gateway.core.usage import NOTHING_USED, Usage, UsageSource
from gateway.store.contract import Counters, SettlementEnd
from gateway.upstream.contract import NOT_SENT

_REPORTED = UsageSource.REPORTED  # Slow to reach through its class in Python 3.11.

_NOTHING = (0, 0, 0, 0, 0)
"""What a request has used that is not charged, as `charged_by_use` takes it."""


class SettlementRecorder(Protocol):
    """Keeps what explains a request later, in one step with its settlement."""

    def of(self, exchange: Exchange) -> KeptRecord | None: ...

    def keep_unsettled(self, exchange: Exchange) -> None:
        """The same for a request that has nothing to settle."""
        ...


def settle(
    exchange: Exchange, zone: tzinfo, counters: Counters, recorder: SettlementRecorder, then: SettlementEnd
) -> None:
    """Note in the exchange, which was admitted, what was used, and charge it. `then` is called as
    `Counters.begin_settlement` calls it."""
    parsed, reservation, estimator = exchange.parsed, exchange.reservation, exchange.estimator
    assert parsed is not None and reservation is not None and estimator is not None, "it was admitted"  # noqa: PT018
    usage = usage_of(exchange, parsed, estimator)
    if usage is not None:
        if not parsed.endpoint.estimated:
            usage = _with_unnamed_units(exchange, parsed, usage)
        if usage.source is not _REPORTED and parsed.tier:
            usage = _at_asked_tier(usage, parsed, exchange.target)
        exchange.usage = usage
        exchange.cost = _cost(parsed, exchange.target, usage)
        if exchange.whole and usage.source is _REPORTED:
            output = usage.output // parsed.choices
            estimator.learn(parsed.input_size, usage.input, output, exchange.upstream_seconds)
    counters.begin_settlement(settlement(exchange, parsed, reservation, zone, recorder.of(exchange)), then)


def _at_asked_tier(usage: Usage, parsed: ParsedRequest, target: Target | None) -> Usage:
    """An estimate at the service tier that was asked for, if the answer named none and that tier has a price."""
    price = target.price if target is not None else None
    if usage.service_tier or price is None or parsed.tier not in price.tiers:
        return usage
    return msgspec.structs.replace(usage, service_tier=parsed.tier)


def _cost(parsed: ParsedRequest, target: Target | None, usage: Usage) -> int:
    """Micro-dollars: no more than a store can count, whatever an upstream reports."""
    if target is None or target.price is None or parsed.endpoint.is_free:
        return 0
    cost = target.price.cost(usage, parsed.prices_beside(target, usage))
    return cost if cost < CHARGE_MAX else CHARGE_MAX


def usage_of(exchange: Exchange, parsed: ParsedRequest, estimator: Estimator) -> Usage | None:
    """What the request used; None where it failed before anything was delivered: failures are free.

    Reported usage counts where there is any, and in a stream that ended early what was delivered since. Else the input
    is estimated from its size, and the output from what was delivered: nothing that was delivered is free. A zero in a
    stream that ended early is no report: some servers write zeros into every chunk but the last. A client that left
    before the first byte still pays for its prompt, if that was sent, and for the plain answer that was being written
    meanwhile.
    """
    tally, left = exchange.tally, isinstance(exchange.error, ClientGone)
    if tally is None:
        return _of_what_was_sent(exchange, parsed, estimator) if left else None
    if exchange.status >= 400 and not (left and exchange.status == ClientGone.status):
        return None
    reported = tally.usage
    if reported is not None and tally.is_final():
        if exchange.whole and tally.tells_input():
            return reported  # Nothing is left to be estimated, as in most answers.
        since = 0 if exchange.whole else tally.delivered_since
        if reported.output or not _is_cut(exchange, parsed, tally):
            return _with_rest(exchange, parsed, tally, reported, reported.output + since)
    output = tally.delivered if parsed.endpoint.has_output else 0
    if left and not exchange.whole:
        output = max(output, _made_meanwhile(exchange, parsed, estimator))
    if reported is not None:
        return _with_rest(exchange, parsed, tally, reported, output)
    if tally.is_empty and (tally.failed or (exchange.error is not None and not left)):
        return None
    if tally.failed and isinstance(exchange.error, UpstreamRefused):
        return None  # It came too late to be given to the client.
    return _estimated(exchange, parsed, output, tally.counted)


def _of_what_was_sent(exchange: Exchange, parsed: ParsedRequest, estimator: Estimator) -> Usage | None:
    """What a request has used whose client left before the first byte; None where no upstream can have got it."""
    attempts = exchange.attempts
    if exchange.target is None or (attempts and attempts[-1][1] == NOT_SENT):
        return None
    return _estimated(exchange, parsed, _made_meanwhile(exchange, parsed, estimator))


def _with_rest(exchange: Exchange, parsed: ParsedRequest, tally: AnswerTally, reported: Usage, output: int) -> Usage:
    """The reported usage, with so much output if that is more, and with the estimated input if the report tells
    none."""
    entered = reported.input
    is_told = tally.tells_input() and (entered or not _is_cut(exchange, parsed, tally))
    if parsed.endpoint.estimated and not is_told:
        entered = exchange.estimated_input
    if reported.parts:
        entered = max(entered, reported.input)
    if entered == reported.input and output <= reported.output:
        return reported
    output = max(output, reported.output)
    parts = _with_more(reported, entered - reported.input, output - reported.output) if reported.parts else ()
    return msgspec.structs.replace(reported, input=entered, output=output, source=UsageSource.ESTIMATED, parts=parts)


def _with_more(reported: Usage, entered: int, output: int) -> tuple[Usage, ...]:
    """The inferences, with so much more input and output in the last one by the model that was asked for: it wrote what
    was delivered. Other models are charged what is reported of them."""
    parts = list(reported.parts)
    own = [place for place, part in enumerate(parts) if not part.model]
    if not own:
        return (*parts, Usage(entered, output, service_tier=reported.service_tier, region=reported.region))
    last = parts[own[-1]]
    parts[own[-1]] = msgspec.structs.replace(last, input=last.input + entered, output=last.output + output)
    return tuple(parts)


def _is_cut(exchange: Exchange, parsed: ParsedRequest, tally: AnswerTally) -> bool:
    """Whether it is a stream of which a part was delivered, or which its client left before that."""
    is_left = isinstance(exchange.error, ClientGone)
    return parsed.stream and not exchange.whole and (is_left or tally.delivered > 0)


def _made_meanwhile(exchange: Exchange, parsed: ParsedRequest, estimator: Estimator) -> int:
    """Tokens of a plain answer that the upstream has made until its client left, by its usual speed. A stream shows
    what was made."""
    if parsed.stream or not parsed.endpoint.has_output:
        return 0
    cap = exchange.reservation.granted if exchange.reservation is not None else 0
    if parsed.output_cap is not None:
        cap = min(cap, parsed.output_cap * parsed.choices)
    return min(cap, estimator.output_within(exchange.upstream_seconds) * parsed.choices)


def settlement(
    exchange: Exchange, parsed: ParsedRequest, reservation: Reservation, zone: tzinfo, record: KeptRecord | None = None
) -> Settlement:
    """The truth about a reservation, as the store takes it."""
    usage, cost, caller, holds, binding = (
        exchange.usage,
        exchange.cost,
        exchange.caller,
        reservation.holds,
        parsed.binding,
    )
    charged = binding.charged if holds.limits is binding.limits else charged_by_use(holds.limits)
    entry = None
    if usage is None or caller is None:
        actual = charged(_NOTHING)
    else:
        entered, output = usage.input, usage.output
        actual = charged((0, entered + output, entered, output, cost))
        target = exchange.target
        entry = LedgerEntry(
            _days_in(zone)(reservation.at_ms // 1000),
            caller.team,
            caller.key_id,
            binding.model.name,
            usage,
            cost,
            target.upstream.name if target is not None else "",
            parsed.user,
            caller.cost_center,
        )
    created = exchange.created if parsed.creates is not None else None
    return Settlement(reservation.id, reservation.at_ms, holds, actual, entry, record, created)


@remembered(16)
def _days_in(zone: tzinfo) -> Callable[[int], str]:
    """Gives the day of a second since 1970, YYYY-MM-DD. Most reservations are settled within seconds, and many in
    each."""
    return remembered(16)(lambda second: datetime.fromtimestamp(second, zone).date().isoformat())


def _estimated(exchange: Exchange, parsed: ParsedRequest, output: int, counted: Usage = NOTHING_USED) -> Usage:
    """Usage that is not reported. Where tokens are not the measure there are none, and the units are all."""
    if not parsed.endpoint.estimated:
        return counted if _is_unread(exchange, parsed) else _with_units(counted, parsed)
    entered = exchange.estimated_input
    return msgspec.structs.replace(counted, input=entered, output=output, source=UsageSource.ESTIMATED)


def _with_unnamed_units(exchange: Exchange, parsed: ParsedRequest, usage: Usage) -> Usage:
    """The usage with the units that have a price and that the answer does not name, unless something that it names has
    a price: an answer that was delivered is not free because of what it does not say."""
    price = exchange.target.price if exchange.target is not None else None
    if price is None or parsed.endpoint.is_free or _is_unread(exchange, parsed) or price.charges(usage):
        return usage
    usage = _with_units(usage, parsed)
    if not parsed.endpoint.usage.duration_path or not price.list_for(usage).second:
        return usage
    length_ms = exchange.tally.transcribed_ms if exchange.tally is not None else 0
    length_ms = length_ms or sent_ms(exchange.request.body.size)
    return msgspec.structs.replace(usage, audio_ms=length_ms, estimated_ms=length_ms, source=UsageSource.ESTIMATED)


def _is_unread(exchange: Exchange, parsed: ParsedRequest) -> bool:
    """Whether the client left before its form was whole, so that the upstream cannot have done what it asks for."""
    return exchange.tally is None and parsed.rest is not None and not parsed.rest.has_come


def _with_units(counted: Usage, parsed: ParsedRequest) -> Usage:
    """The units that the answer shows. Of those that it cannot show, such as the characters of a text that became
    sound, what was asked for."""
    asked = parsed.units
    names = ["characters", "searches", *(["images"] if parsed.endpoint.usage.output_medium == "image" else [])]
    more = {name: n for name in names if (n := getattr(asked, name)) and not getattr(counted, name)}
    return msgspec.structs.replace(counted, **more) if more else counted
