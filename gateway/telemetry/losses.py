"""What this process has lost or put at risk, by time: the increase of a few metrics, and the state of the store.

The metrics say how much since the process began, this says when. `sample` adds what has increased to the current slot;
`observe_store` is called each second. The slots of the last day are kept, those with something in them; what has not
been given to the store is `unsaved`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from gateway.core.calendar import DAY_MS
from gateway.core.clock import Clock
from gateway.core.losses import CHARGED, LossSlot, merged, slot_of
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Counter as Series

_NO_STORE = "store_unavailable"


class LossHistory:
    """`process` is this process's id. `dropped` gives the number of kinds that no metric has before it is scraped."""

    def __init__(self, metrics: Metrics, clock: Clock, process: str, dropped: Callable[[], Mapping[str, int]]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._process = process
        self._dropped = dropped
        self._before: Mapping[str, int] = {}
        self._kept: dict[int, LossSlot] = {}
        self._unsaved: dict[int, LossSlot] = {}
        self._totals: Counter[str] = Counter()
        self._out_ms = 0
        self._observed_ms = clock.now_ms()

    @property
    def slots(self) -> list[LossSlot]:
        """Of the last day, whether saved or not."""
        return merged(self._kept.values())

    @property
    def totals(self) -> dict[str, int]:
        """Since the process began."""
        return dict(self._totals)

    @property
    def unsaved(self) -> list[LossSlot]:
        return list(self._unsaved.values())

    def sample(self) -> None:
        """Add what has increased since the last sample to the current slot. A total falls if a reload removes series:
        that counts as zero."""
        totals = dict(self._read())
        grown = {kind: more for kind, now in totals.items() if (more := now - self._before.get(kind, 0)) > 0}
        self._before = totals
        if grown:
            self._totals.update(grown)
            self._add(LossSlot(slot_of(self._clock.now_ms()), counts=grown))

    def observe_store(self, waiting: int, *, is_out: bool) -> None:
        """How many settlements wait now, and whether the store has not answered since the last call."""
        now_ms = self._clock.now_ms()
        at_ms, passed_ms = slot_of(now_ms), max(0, now_ms - self._observed_ms)
        if at_ms != slot_of(self._observed_ms):
            self._out_ms = 0
        self._observed_ms = now_ms
        if is_out:
            self._out_ms += passed_ms
        if waiting or is_out:
            out = {self._process: max(1, round(self._out_ms / 1000))} if is_out else {}
            self._add(LossSlot(at_ms, waiting={self._process: waiting} if waiting else {}, store_out_s=out))

    def saved(self, slots: Sequence[LossSlot]) -> None:
        """The store has these, which were all of `unsaved`."""
        for slot in slots:
            later = self._unsaved.pop(slot.at_ms, slot)
            rest = {kind: more for kind, now in later.counts.items() if (more := now - slot.counts.get(kind, 0)) > 0}
            if rest or later.waiting != slot.waiting or later.store_out_s != slot.store_out_s:
                self._unsaved[slot.at_ms] = LossSlot(slot.at_ms, rest, later.waiting, later.store_out_s)

    def _add(self, slot: LossSlot) -> None:
        for slots in (self._kept, self._unsaved):
            known = slots.get(slot.at_ms)
            (slots[slot.at_ms],) = merged([slot] if known is None else [known, slot])
            oldest = slot.at_ms - DAY_MS
            for at_ms in [at_ms for at_ms in slots if at_ms < oldest]:
                del slots[at_ms]

    def _read(self) -> Iterator[tuple[str, int]]:
        metrics = self._metrics
        metrics.add_counted()
        yield "settlements_lost", _sum(metrics.journal_entries, "lost")
        yield "settlements_parked", _sum(metrics.journal_entries, "parked")
        yield "settlements_journaled", _sum(metrics.journal_entries, "written")
        yield "settlements_in_memory", _sum(metrics.journal_entries, "in_memory")
        yield "notifications_given_up", _sum(metrics.notifications, "given_up")
        yield "notifications_parked", _sum(metrics.notifications, "parked")
        yield "notifications_dropped", _sum(metrics.notifications, "dropped")
        yield "spans_dropped", _sum(metrics.spans, "dropped", "rejected")
        yield "streams_broken", _sum(metrics.aborted, "upstream", "timeout")
        yield "streams_cut", _sum(metrics.aborted, "shutdown")
        yield "refused_without_store", sum(n for (_, code, _), n in metrics.errors.values.items() if code == _NO_STORE)
        tokens = Counter[str]()
        for (_, _, _, direction, source), number in metrics.tokens.values.items():
            if direction in ("input", "output"):
                tokens[source] += number
        yield "estimated_tokens", tokens["estimated"]
        yield CHARGED, tokens.total()
        yield from self._dropped().items()


def _sum(series: Series, *last_labels: str) -> int:
    """Of the label sets that end with one of these."""
    return sum(int(number) for labels, number in series.values.items() if labels[-1] in last_labels)
