"""Admit: what the store is asked in one atomic step, whether every limit lets the request pass, and what follows from
its verdict.

What the store has just refused is refused again without a call: `refused_at_once` needs no await.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

from gateway.core.errors import LimitRefusal
from gateway.core.estimate import Estimates, least_tokens
from gateway.core.exchange import Exchange
from gateway.core.input_size import InputSize
from gateway.core.limit_status import refusal_error
from gateway.core.limits import Limit
from gateway.core.refused_requests import RefusedRequest
from gateway.core.request import ParsedRequest
from gateway.core.reservation import CHARGE_MAX, OUTPUT_SHARE_FLOOR, AdmissionRequest, Refusal, Reservation
from gateway.core.snapshot import MILLION, ChargeRules
from gateway.store.contract import Counters

MOST_WITHOUT_CAP = 4
"""How many times what it lately needed an answer may take, where neither client nor model has a maximum."""

ANSWER_AFTER_THINKING = 1_024
"""Tokens that a quota grants beyond a thinking budget, as far as so much is asked for and left."""


def ask(exchange: Exchange, parsed: ParsedRequest, estimates: Estimates, user: str) -> AdmissionRequest:
    """What the request asks of its limits; `exchange` keeps it. `user` is the end user whose counters are charged."""
    binding = parsed.binding
    estimator = exchange.estimator = estimates.of(binding.caller.team, binding.model.name)
    exchange.estimated_input = estimator.input_tokens(parsed.input_size)
    limits = binding.limits_for(user) if user else binding.limits
    exchange.asked = asked = admission_request(exchange, parsed, limits, estimator.output_tokens())
    return asked


def refused_at_once(
    exchange: Exchange, parsed: ParsedRequest, asked: AdmissionRequest, counters: Counters
) -> LimitRefusal | None:
    """The refusal, if the store has just refused a request that asked the same, and would do so again."""
    repeated = counters.repeated_refusal(asked)
    if repeated is None:
        return None
    exchange.store_seconds = 0.0
    return _refused(exchange, parsed, repeated)


def refused_again(exchange: Exchange, before: RefusedRequest, counters: Counters) -> LimitRefusal | None:
    """The same for a request that is like one that was refused `before`."""
    repeated = counters.repeated_refusal(before.asked)
    if repeated is None:
        return None
    exchange.estimated_input, exchange.store_seconds = before.entered, 0.0
    error = before.error
    if error.refusal is not repeated:
        before.error = error = _refused(exchange, before.parsed, repeated)
    else:
        exchange.refusal = repeated
    return error


def admitted(exchange: Exchange, parsed: ParsedRequest, verdict: Reservation | Refusal) -> Reservation:
    """The reservation that the store has made under every limit that binds. Raises a LimitRefusal."""
    if isinstance(verdict, Refusal):
        raise _refused(exchange, parsed, verdict)
    return verdict


def _refused(exchange: Exchange, parsed: ParsedRequest, refusal: Refusal) -> LimitRefusal:
    exchange.refusal = refusal
    needs_budget = parsed.least_output > parsed.thinking_budget
    return refusal_error(refusal, parsed.binding.headers, parsed.thinking_budget if needs_budget else 0)


def admission_request(
    exchange: Exchange, parsed: ParsedRequest, limits: tuple[Limit, ...], expected: int
) -> AdmissionRequest:
    """What the request needs: its input and the output that it may produce, at every limit that binds it, `limits`."""
    binding, entered = parsed.binding, exchange.estimated_input
    most, least, choices = most_output(parsed, entered, expected), parsed.least_output, parsed.choices
    if least > most or not parsed.endpoint.cap_paths:
        # An answer that no cap can bind is let through only where all of it fits.
        least = most
    enough = 2 * expected if 2 * expected > OUTPUT_SHARE_FLOOR else OUTPUT_SHARE_FLOOR
    if parsed.thinking_budget and enough < parsed.thinking_budget + ANSWER_AFTER_THINKING:
        enough = parsed.thinking_budget + ANSWER_AFTER_THINKING
    if enough < least:
        enough = least
    rules = binding.rules_for(parsed.tier, entered, parsed.units)
    fixed, per_output = input_charges(rules, entered, parsed.input_size), rules.per_output
    if len(fixed) > len(limits):
        # A request that names no end user is not bound by the limits of one.
        fixed, per_output = fixed[: len(limits)], per_output[: len(limits)]
    if parsed.consulted:
        beside = consultation_charges(parsed, entered)
        fixed = [min(each + more, CHARGE_MAX) for each, more in zip(fixed, beside, strict=False)]
    likely = (expected if expected < most else most) * choices
    if parsed.asked_cap is None:
        likely = _likely_within(rules, fixed, likely)
    return AdmissionRequest(
        exchange.id,
        limits,
        fixed,
        per_output,
        likely,
        most * choices,
        least * choices,
        enough * choices,
    )


def input_charges(rules: ChargeRules, entered: int, size: InputSize) -> list[int]:
    """What each limit is charged for the input. An estimate that is more than a rate ever holds would permanently
    refuse what may fit: it is lowered to all that the rate holds, unless the input is certainly more."""
    charges = [*rules.each]
    for place, each, per_input, most in rules.by_input:
        charge = each - (-entered * per_input // MILLION)
        if charge > most >= each - (-least_tokens(size) * per_input // MILLION):
            charge = int(most) + (-rules.per_output[place] // MILLION)  # A token of output fits, too.
        charges[place] = charge
    return charges


def consultation_charges(parsed: ParsedRequest, entered: int) -> list[int]:
    """What each limit is charged for the models that the request's tools ask: each reads the whole input each time. Of
    a rate nothing is held for them, as nothing is for a long answer: it goes into debt."""
    charges = [0] * len(parsed.binding.rules_for(parsed.tier, entered, parsed.units).most)
    for each in parsed.consulted:
        rules = parsed.binding.rules_beside(each.model, entered)
        for place, most in enumerate(rules.most):
            if isinf(most):
                once = entered * rules.per_input[place] + each.tokens * rules.per_output[place]
                charges[place] -= -each.uses * once // MILLION
    return charges


def _likely_within(rules: ChargeRules, fixed: Sequence[int], likely: int) -> int:
    """The output that is likely, where the client set no cap: it is an estimate, and no more than what a rate holds."""
    for charge, per_output, most in zip(fixed, rules.per_output, rules.most, strict=False):
        if per_output and charge - (-likely * per_output // MILLION) > most:
            likely = max(1, (int(most) - charge) * MILLION // per_output)
    return likely


def most_output(parsed: ParsedRequest, entered: int, expected: int) -> int:
    """Tokens that one choice may produce: within its caps, or else within what the context leaves of its input."""
    model = parsed.binding.model
    if not parsed.endpoint.has_output:
        return 0
    most = parsed.output_cap if parsed.output_cap is not None else max(expected * MOST_WITHOUT_CAP, parsed.least_output)
    if model.context_window is None or model.max_output_tokens is not None:
        return most
    return min(most, max(1, model.context_window - entered))
