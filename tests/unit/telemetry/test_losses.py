"""What a process counts of losses: when it was lost, what the store has been given, and how processes are added."""

from __future__ import annotations

import pytest

from gateway.core.calendar import DAY_MS
from gateway.core.losses import CHARGED, LOSSES, SLOT_MS, LossReport, LossSlot, merged, slot_of, with_unsaved
from gateway.telemetry.losses import LossHistory
from gateway.telemetry.metrics import Metrics
from tests.unit.fakes import StandingClock


@pytest.fixture
def clock() -> StandingClock:
    clock = StandingClock()
    clock.ms = slot_of(clock.ms) + 10 * DAY_MS
    return clock


@pytest.fixture
def metrics(clock: StandingClock) -> Metrics:
    return Metrics(clock, "0")


def history_of(metrics: Metrics, clock: StandingClock, dropped: dict[str, int] | None = None) -> LossHistory:
    return LossHistory(metrics, clock, "p1", lambda: dropped or {})


def test_every_kind_is_counted_by_its_metric(metrics: Metrics, clock: StandingClock) -> None:
    dropped: dict[str, int] = {}
    history = history_of(metrics, clock, dropped)
    for number, outcome in enumerate(("lost", "parked", "written", "in_memory", "replayed"), 1):
        metrics.journal_entries_were(outcome, number)
    for number, outcome in enumerate(("given_up", "parked", "dropped", "sent", "failed"), 6):
        metrics.notifications.add(("slack", outcome), number)
    for number, outcome in enumerate(("dropped", "rejected", "exported"), 11):
        metrics.spans_were(outcome, number)
    for number, by in enumerate(("upstream", "timeout", "shutdown", "client"), 14):
        metrics.aborted.add((by,), number)
    metrics.errors.add(("gateway", "store_unavailable", ""), 18)
    metrics.errors.add(("gateway", "internal_error", ""), 19)
    for direction, source, number in (
        ("input", "estimated", 20), ("output", "estimated", 21), ("cached_input", "estimated", 22),
        ("output", "reported", 23),
    ):  # fmt: skip
        metrics.tokens.add(("search", "m", "up", direction, source), number)
    dropped.update(log_lines_dropped=24, records_dropped=25)
    history.sample()
    (slot,) = history.slots
    assert slot.counts == history.totals == {
        "settlements_lost": 1, "settlements_parked": 2, "settlements_journaled": 3, "settlements_in_memory": 4,
        "notifications_given_up": 6, "notifications_parked": 7, "notifications_dropped": 8, "spans_dropped": 23,
        "streams_broken": 29, "streams_cut": 16, "refused_without_store": 18, "estimated_tokens": 41, CHARGED: 64,
        "log_lines_dropped": 24, "records_dropped": 25,
    }  # fmt: skip
    assert set(slot.counts) == {*LOSSES, CHARGED}


def test_a_loss_is_in_the_slot_in_which_it_happened_for_a_day(metrics: Metrics, clock: StandingClock) -> None:
    history, began_ms = history_of(metrics, clock), clock.ms
    metrics.journal_entries_were("lost", 2)
    history.sample()
    clock.ms += SLOT_MS - 1
    metrics.journal_entries_were("lost", 1)
    history.sample()
    clock.ms += 1
    history.sample()
    assert history.slots == [LossSlot(began_ms, {"settlements_lost": 3})]
    clock.ms += DAY_MS
    metrics.journal_entries_were("lost", 4)
    history.sample()
    assert history.slots == [LossSlot(began_ms + SLOT_MS + DAY_MS, {"settlements_lost": 4})]
    assert history.totals == {"settlements_lost": 7}


def test_a_series_that_a_reload_removes_is_no_loss_and_hides_none(metrics: Metrics, clock: StandingClock) -> None:
    history = history_of(metrics, clock)
    metrics.tokens.add(("search", "m", "up", "input", "estimated"), 5)
    history.sample()
    metrics.tokens.values.clear()
    history.sample()
    metrics.tokens.add(("search", "n", "up", "input", "estimated"), 2)
    history.sample()
    assert history.totals["estimated_tokens"] == 7


def test_what_is_saved_is_not_offered_again_and_what_came_meanwhile_is(metrics: Metrics, clock: StandingClock) -> None:
    history = history_of(metrics, clock)
    metrics.journal_entries_were("parked", 2)
    history.sample()
    offered = history.unsaved
    metrics.journal_entries_were("parked", 3)
    history.sample()
    history.saved(offered)
    assert history.unsaved == [LossSlot(clock.ms, {"settlements_parked": 3})]
    history.saved(history.unsaved)
    assert history.unsaved == []
    assert history.slots == [LossSlot(clock.ms, {"settlements_parked": 5})]


def test_the_most_that_waited_and_the_seconds_without_the_store_are_kept(
    metrics: Metrics, clock: StandingClock
) -> None:
    history, began_ms = history_of(metrics, clock), clock.ms
    history.observe_store(0, is_out=False)
    assert history.slots == []
    for waiting, is_out in ((3, True), (9, True), (4, False), (0, False)):
        clock.ms += 1_000
        history.observe_store(waiting, is_out=is_out)
    assert history.slots == history.unsaved == [LossSlot(began_ms, {}, {"p1": 9}, {"p1": 2})]
    offered = history.unsaved
    clock.ms += 1_000
    history.observe_store(10, is_out=True)
    history.saved(offered)
    # They are replaced, not added: the store gets the higher ones again.
    assert history.unsaved == [LossSlot(began_ms, {}, {"p1": 10}, {"p1": 3})]
    clock.ms = began_ms + SLOT_MS
    history.observe_store(0, is_out=True)
    assert history.slots[-1].at_ms == began_ms + SLOT_MS


def test_processes_are_added_and_one_process_is_not_added_to_itself() -> None:
    one = LossSlot(0, {"settlements_lost": 1}, {"a": 5, "b": 1}, {"a": 9})
    other = LossSlot(0, {"settlements_lost": 2, "spans_dropped": 3}, {"b": 4}, {"b": 7})
    (both,) = merged([one, other])
    assert (both.counts, both.most_waiting, both.longest_out_s) == ({"settlements_lost": 3, "spans_dropped": 3}, 9, 9)
    later = LossSlot(SLOT_MS)
    assert merged([later, one]) == [one, later]
    report = with_unsaved(LossReport(5, {"spans_dropped": 1}, [one]), [other])
    assert report == LossReport(5, {"settlements_lost": 2, "spans_dropped": 4}, [both])
