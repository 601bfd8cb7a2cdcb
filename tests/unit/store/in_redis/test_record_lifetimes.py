from __future__ import annotations

from gateway.store.in_redis.record_lifetimes import RecordLifetimes, ReservationSecond

AT = 1_000_000


def made(records: RecordLifetimes, at_ms: int, *slots: str) -> ReservationSecond:
    second = records.second_of(at_ms)
    for slot in slots:
        second.record_in(slot)
    second.made += 1
    return second


def settled_keys(records: RecordLifetimes, now_ms: int) -> list[list[str]]:
    return [second.record_keys for second in records.settled(now_ms)]


def test_a_record_may_end_once_all_of_its_second_is_settled() -> None:
    records = RecordLifetimes()
    first, last = made(records, AT, "a:"), made(records, AT + 999, "a:", "b:")
    first.settled += 1
    assert settled_keys(records, AT + 60_000) == []
    last.settled += 1
    assert settled_keys(records, AT + 60_000) == [["a:1000", "b:1000"]]


def test_a_record_is_known_until_it_is_forgotten() -> None:
    records = RecordLifetimes()
    second = made(records, AT, "a:")
    second.settled += 1
    for _ in range(2):
        assert settled_keys(records, AT + 60_000) == [["a:1000"]]
    records.forget(second)
    assert settled_keys(records, AT + 60_000) == []


def test_a_second_that_may_not_be_over_is_left() -> None:
    records = RecordLifetimes()
    made(records, AT, "a:").settled += 1
    assert settled_keys(records, AT + 2_999) == []
    assert settled_keys(records, AT + 3_000) == [["a:1000"]]


def test_seconds_that_take_turns_are_each_counted_once() -> None:
    records = RecordLifetimes()
    first = made(records, AT, "a:")
    made(records, AT + 1_000, "a:").settled += 1
    assert made(records, AT + 500, "a:") is first
    first.settled += 1
    assert settled_keys(records, AT + 60_000) == [["a:1001"]]


def test_what_comes_after_a_second_was_forgotten_is_counted_anew() -> None:
    records = RecordLifetimes()
    second = made(records, AT, "a:")
    second.settled += 1
    records.forget(second)
    again = made(records, AT, "a:")
    assert settled_keys(records, AT + 60_000) == []
    again.settled += 1
    assert settled_keys(records, AT + 60_000) == [["a:1000"]]
