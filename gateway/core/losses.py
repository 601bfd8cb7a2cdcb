"""What was lost or is at risk, counted by every gateway process: the kinds, their counts by time, and the sums.

A process counts in slots of SLOT_MS of the wall clock, so that the slots of several processes can be added. Counts are
added up. What is a state of one process and not an event, such as how many settlements wait in it, is kept by process:
of one process the highest counts, and processes are added or compared when the slot is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

SLOT_MS = 600_000


class LossClass(StrEnum):
    LOST = "lost"
    """It is gone, or comes back only if a person does something."""

    BROKEN = "broken"
    """A client did not get what it asked for, although its request was right."""

    LATE = "late"
    """It was at risk, or still is while it waits."""

    ESTIMATED = "estimated"
    """It is charged, and not exactly."""


class LossKind(NamedTuple):
    """`what` names it and `meaning` explains it to operators."""

    loss_class: LossClass
    what: str
    meaning: str


LOSSES: Mapping[str, LossKind] = {
    "settlements_lost": LossKind(
        LossClass.LOST, "Settlements lost", "Neither the store, the disk nor memory took them: never charged."
    ),
    "settlements_parked": LossKind(
        LossClass.LOST,
        "Settlements parked",
        "Damaged, or refused by the store: not charged, and kept in a .parked file beside the journal.",
    ),
    "notifications_given_up": LossKind(
        LossClass.LOST, "Notifications given up", "Their receiver did not take them for three days."
    ),
    "notifications_parked": LossKind(
        LossClass.LOST, "Notifications parked", "They cannot be read, so they are not delivered."
    ),
    "notifications_dropped": LossKind(
        LossClass.LOST, "Notifications dropped", "Too many waited, so the newest were not kept."
    ),
    "records_dropped": LossKind(
        LossClass.LOST,
        "Records of requests dropped",
        "The store did not take them in time. Their requests cannot be explained; they are charged all the same.",
    ),
    "log_lines_dropped": LossKind(
        LossClass.LOST, "Log lines dropped", "The log's reader was too slow, or its disk was full."
    ),
    "spans_dropped": LossKind(
        LossClass.LOST, "Spans of traces dropped", "The collector was too slow, did not answer or rejected them."
    ),
    "streams_broken": LossKind(
        LossClass.BROKEN, "Streams broken by upstreams", "The upstream broke or fell silent after the answer had begun."
    ),
    "streams_cut": LossKind(LossClass.BROKEN, "Streams cut by a shutdown", "They did not end within drain.timeout."),
    "refused_without_store": LossKind(
        LossClass.BROKEN, "Requests refused without the store", "The store did not answer: 503 store_unavailable."
    ),
    "settlements_journaled": LossKind(
        LossClass.LATE, "Settlements written to the journal", "The store did not take them at once. They wait on disk."
    ),
    "settlements_in_memory": LossKind(
        LossClass.LATE,
        "Settlements kept in memory alone",
        "Neither the store nor the journal took them at once. Until one does, they end with the process.",
    ),
    "estimated_tokens": LossKind(
        LossClass.ESTIMATED, "Estimated tokens", "The upstream reported no usage, so it was computed from the text."
    ),
}
"""Every kind by its name in the admin API, the worst first."""

CHARGED = "charged_tokens"
"""Counted beside them: all input and output tokens, of which some are estimated."""


class LossSlot(msgspec.Struct, frozen=True):
    """`waiting`: the most settlements that waited at once in each process, by its id. `store_out_s`: for how long each
    process got no answer of the store."""

    at_ms: int
    counts: dict[str, int] = {}
    waiting: dict[str, int] = {}
    store_out_s: dict[str, int] = {}

    @property
    def most_waiting(self) -> int:
        """At most this many waited at once in all processes."""
        return sum(self.waiting.values())

    @property
    def longest_out_s(self) -> int:
        return max(self.store_out_s.values(), default=0)


class LossReport(msgspec.Struct, frozen=True):
    """`since_ms`: when counting began; None if nothing has been counted yet. `totals` are since then; `slots` are the
    last ones."""

    since_ms: int | None
    totals: dict[str, int]
    slots: list[LossSlot]


class ProcessLosses(msgspec.Struct, frozen=True):
    """A process's own view of this moment, as it replies to others. `unsaved` is what the store has not been given
    yet. `id` is of the process alone."""

    id: str
    process: str
    began_ms: int
    waiting: int
    store_trouble: str | None
    journal_fails: bool
    unsaved: list[LossSlot]


def slot_of(now_ms: int) -> int:
    return now_ms - now_ms % SLOT_MS


def merged(slots: Iterable[LossSlot]) -> list[LossSlot]:
    """One for each time, the oldest first."""
    by_time: dict[int, LossSlot] = {}
    for slot in slots:
        known = by_time.get(slot.at_ms)
        by_time[slot.at_ms] = slot if known is None else _added(known, slot)
    return [by_time[at_ms] for at_ms in sorted(by_time)]


def with_unsaved(stored: LossReport, unsaved: Iterable[LossSlot]) -> LossReport:
    """What the store knows and what processes have not given to it yet."""
    fresh = list(unsaved)
    totals = Counter(stored.totals)
    for slot in fresh:
        totals.update(slot.counts)
    return LossReport(stored.since_ms, dict(totals), merged([*stored.slots, *fresh]))


def _added(one: LossSlot, other: LossSlot) -> LossSlot:
    counts = dict(Counter(one.counts) + Counter(other.counts))
    return LossSlot(
        one.at_ms, counts, _highest(one.waiting, other.waiting), _highest(one.store_out_s, other.store_out_s)
    )


def _highest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {process: max(one.get(process, 0), other.get(process, 0)) for process in {**one, **other}}
