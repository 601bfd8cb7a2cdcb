"""Admit: ask the store, in one atomic step, whether every limit lets the request pass."""

from __future__ import annotations

from gateway.core.estimate import Estimates, least_tokens
from gateway.core.exchange import Exchange
from gateway.core.limit_status import refusal_error
from gateway.core.limits import Limit
from gateway.core.request import ParsedRequest
from gateway.core.reservation import OUTPUT_SHARE_FLOOR, AdmissionRequest, Charge, Refusal, Reservation
from gateway.core.snapshot import MILLION, ChargeRule
from gateway.store.contract import Counters

MOST_WITHOUT_CAP = 4
"""How many times what it lately needed an answer may take, where neither client nor model has a maximum."""

ANSWER_AFTER_THINKING = 1_024
"""Tokens that a quota grants beyond a thinking budget, as far as so much is asked for and left."""


async def admit(exchange: Exchange, parsed: ParsedRequest, estimates: Estimates, counters: Counters) -> Reservation:
    """A reservation under every limit that binds. Raises a LimitRefusal, StoreUnavailable."""
    estimator = estimates.of(parsed.binding.caller.team, parsed.model.name)
    exchange.estimated_input = estimator.input_tokens(parsed.input_size)
    verdict = await counters.admit(admission_request(exchange, parsed, estimator.output_tokens()))
    if isinstance(verdict, Refusal):
        needs_budget = parsed.least_output > parsed.thinking_budget
        raise refusal_error(verdict, thinking_budget=parsed.thinking_budget if needs_budget else 0)
    return verdict


def admission_request(exchange: Exchange, parsed: ParsedRequest, expected: int) -> AdmissionRequest:
    """What the request needs: its input and the output that it may produce, at every limit that binds it."""
    binding, entered = parsed.binding, exchange.estimated_input
    most = most_output(parsed, entered, expected)
    # An answer that no cap can bind is let through only where all of it fits.
    least = min(parsed.least_output, most) if parsed.endpoint.cap_paths else most
    thinking = parsed.thinking_budget + ANSWER_AFTER_THINKING if parsed.thinking_budget else 0
    enough = max(2 * expected, OUTPUT_SHARE_FLOOR, thinking, least)
    limits = binding.limits_for(parsed.user)
    rules = binding.charge_rules if parsed.endpoint.is_free else binding.rules_for(parsed.tier, entered, parsed.units)
    certain = least_tokens(parsed.input_size)
    charges = tuple([_charge(limit, rule, entered, certain) for limit, rule in zip(limits, rules, strict=False)])
    likely = min(expected, most) * parsed.choices
    if parsed.asked_cap is None:
        likely = _likely_within(charges, likely)
    return AdmissionRequest(
        id=exchange.id,
        charges=charges,
        likely=likely,
        most=most * parsed.choices,
        least=least * parsed.choices,
        enough=enough * parsed.choices,
        limits=limits,
    )


def _charge(limit: Limit, rule: ChargeRule, entered: int, least: int) -> Charge:
    """What the limit is charged for the input. An estimate that is more than a rate ever holds would refuse for good
    what may fit: it is lowered to all that the rate holds, unless the input is certainly more."""
    fixed = rule.each - (-entered * rule.per_input // MILLION)
    if limit.is_rate and fixed > limit.burst >= rule.each - (-least * rule.per_input // MILLION):
        fixed = limit.burst + (-rule.per_output // MILLION)  # A token of output fits, too.
    return Charge(limit, fixed, rule.per_output)


def _likely_within(charges: tuple[Charge, ...], likely: int) -> int:
    """The output that is likely, where the client set no cap: it is an estimate, and no more than what a rate holds."""
    for charge in charges:
        if charge.limit.is_rate and charge.per_output and charge.amount(likely) > charge.limit.burst:
            likely = max(1, (charge.limit.burst - charge.fixed) * MILLION // charge.per_output)
    return likely


def most_output(parsed: ParsedRequest, entered: int, expected: int) -> int:
    """Tokens that one choice may produce: within its caps, or else within what the context leaves of its input."""
    model = parsed.model
    if not parsed.endpoint.has_output:
        return 0
    most = parsed.output_cap if parsed.output_cap is not None else max(expected * MOST_WITHOUT_CAP, parsed.least_output)
    if model.context_window is None or model.max_output_tokens is not None:
        return most
    return min(most, max(1, model.context_window - entered))
