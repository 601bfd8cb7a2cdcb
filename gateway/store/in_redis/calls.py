"""What is said to the scripts and what they answer, as plain values. Shapes: the heads of lua/*.lua."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

import msgspec

from gateway.core.reservation import AdmissionRequest, LedgerEntry, SettlementLine
from gateway.store.in_redis.terms import LEASES, Terminology, Terms
from gateway.store.sums import COLUMNS, figures_of


class Part(msgspec.Struct, frozen=True):
    """The charges that one call can speak of, by their places in the ask."""

    home: str
    places: tuple[int, ...]
    terms: tuple[Terms, ...]


Figures = tuple[int, int, int]
"""Of one charge: the amount that it bears or would have to bear, what is used (of a rate in parts), what is held."""


class Answer(msgspec.Struct, frozen=True):
    """Of admit.lua. `figures` are those of the part's charges, in order."""

    part: Part
    admitted: bool
    now_ms: int
    granted: int
    figures: tuple[Figures, ...]


class Timing(msgspec.Struct, frozen=True):
    """Milliseconds: how late a call may come, and how long a step of holds is."""

    slack_ms: int
    step_ms: int


def numbers(values: Sequence[int]) -> bytes:
    return pack(f"<{len(values)}d", *values)


def admit_call(
    request: AdmissionRequest, part: Part, words: Terminology, at_ms: int, timing: Timing
) -> tuple[list[str], bytes]:
    """The counters' keys, and the numbers but for the first, which is the time of the call."""
    keys: list[str] = []
    told = [timing.slack_ms, timing.step_ms, request.likely, request.most, min(request.least, request.most)]
    for place, terms in zip(part.places, part.terms, strict=True):
        charge = request.charges[place]
        key, first, second = words.counter(terms, at_ms)
        keys.append(key)
        told += (
            terms.kind, terms.enforced, terms.at_once, charge.fixed, charge.per_output, terms.capacity, first, second,
        )  # fmt: skip
    return keys, numbers(told)


def admit_answer(reply: list[int], part: Part) -> Answer | None:
    """None where the store wants to be asked again."""
    if reply[0] < 0:
        return None
    figures = tuple([(reply[at], reply[at + 1], reply[at + 2]) for at in range(3, 3 + 3 * len(part.places), 3)])
    return Answer(part, reply[0] == 1, reply[1], reply[2], figures)


def bill_of(entry: LedgerEntry | None) -> tuple[str, tuple[int, ...]]:
    """The ledger's field, and what is added to it."""
    return (f"{entry.key}|{entry.model}", figures_of(entry)) if entry else ("", (0,) * len(COLUMNS))


def due_numbers(due: SettlementLine, terms: Terms) -> tuple[int, int]:
    """(held, extra): what admission charged at once is not held, and only what goes beyond it is added."""
    if terms.at_once:
        return 0, max(0, due.actual - due.hold.amount)
    return due.hold.amount, 0 if terms.kind == LEASES else due.actual
