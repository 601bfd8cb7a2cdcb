from __future__ import annotations

from zoneinfo import ZoneInfo

from gateway.store.in_redis.admission import RecordLifetimes
from gateway.store.in_redis.arguments import ScriptArguments, SlotShare
from gateway.store.in_redis.keys import StoreKeys

AT = 1_000_000


def shares(*records: str) -> list[SlotShare]:
    limits = ScriptArguments(StoreKeys("gw"), ZoneInfo("UTC"), "one", by_slot=False).empty("o")
    return [SlotShare(limits, limits.window_at(AT), record) for record in records]


def test_a_record_may_end_once_all_of_its_second_is_settled() -> None:
    records = RecordLifetimes()
    records.begin(AT, shares("a"))
    records.begin(AT + 999, shares("a", "b"))
    records.end(AT)
    assert records.settled(AT + 60_000) == {}
    records.end(AT + 999)
    assert records.settled(AT + 60_000) == {1_000: {"a", "b"}}


def test_a_record_is_known_until_it_is_forgotten() -> None:
    records = RecordLifetimes()
    records.begin(AT, shares("a"))
    records.end(AT)
    for _ in range(2):
        assert records.settled(AT + 60_000) == {1_000: {"a"}}
    records.forget(1_000)
    assert records.settled(AT + 60_000) == {}


def test_a_second_that_may_not_be_over_is_left() -> None:
    records = RecordLifetimes()
    records.begin(AT, shares("a"))
    records.end(AT)
    assert records.settled(AT + 2_999) == {}
    assert records.settled(AT + 3_000) == {1_000: {"a"}}


def test_what_was_never_begun_here_ends_nothing() -> None:
    records = RecordLifetimes()
    records.end(AT)
    assert records.settled(AT + 60_000) == {}
