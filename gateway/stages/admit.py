"""Admit: ask the store, in one atomic step, whether every limit lets the request pass."""

from __future__ import annotations

from gateway.core.caller import Caller
from gateway.core.estimate import Estimates
from gateway.core.exchange import Exchange
from gateway.core.limit_status import refusal_error
from gateway.core.limits import Limit, Meter
from gateway.core.pricing import Price
from gateway.core.request import ParsedRequest
from gateway.core.reservation import AdmissionRequest, Charge, Refusal, Reservation
from gateway.store.contract import Counters

MOST_WITHOUT_CAP = 4
"""How many times what it lately needed an answer may take, where neither client nor model has a maximum."""

_WHOLE = 1_000_000


async def admit(
    exchange: Exchange, caller: Caller, parsed: ParsedRequest, estimates: Estimates, counters: Counters
) -> Reservation:
    """A reservation under every limit that binds. Raises a LimitRefusal, StoreUnavailable."""
    estimator = estimates.of(parsed.model.name)
    exchange.estimated_input = estimator.input_tokens(parsed.input_bytes) if parsed.endpoint.estimated else 0
    verdict = await counters.admit(ask_for(exchange, caller, parsed, estimator.output_tokens()))
    if isinstance(verdict, Refusal):
        raise refusal_error(verdict)
    return verdict


def ask_for(exchange: Exchange, caller: Caller, parsed: ParsedRequest, expected: int) -> AdmissionRequest:
    """What the request needs: its input and the output that it may produce, at every limit that binds it."""
    most = parsed.output_cap or expected * MOST_WITHOUT_CAP
    if not parsed.endpoint.cap_members:
        most = 0
    likely = most if parsed.asked_cap is not None else min(expected, most)
    limits = caller.limits_on(parsed.model, parsed.user)
    return AdmissionRequest(
        id=exchange.id,
        charges=tuple([_charge(limit, exchange.estimated_input, parsed.model.price) for limit in limits]),
        likely=likely * parsed.choices,
        most=most * parsed.choices,
        least=min(most, 1) * parsed.choices,
    )


def _charge(limit: Limit, entered: int, price: Price | None) -> Charge:
    match limit.meter:
        case Meter.TOKENS:
            return Charge(limit, entered, _WHOLE)
        case Meter.INPUT_TOKENS:
            return Charge(limit, entered)
        case Meter.OUTPUT_TOKENS:
            return Charge(limit, 0, _WHOLE)
        case Meter.USD:
            # The configuration refuses a usd limit over a model without a price.
            return Charge(limit, -(-entered * price.input // _WHOLE), price.output) if price else Charge(limit, 0)
        case _:
            return Charge(limit, 1)
