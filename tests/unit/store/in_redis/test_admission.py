from __future__ import annotations

from gateway.store.in_redis.admission import RecordLifetimes

AT = 1_000_000


def test_a_record_may_end_once_all_of_its_second_is_settled() -> None:
    records = RecordLifetimes()
    records.begin(AT, ["a"])
    records.begin(AT + 999, ["a", "b"])
    records.end(AT)
    assert records.settled(AT + 60_000) == {}
    records.end(AT + 999)
    assert records.settled(AT + 60_000) == {1_000: {"a", "b"}}


def test_a_record_is_known_until_it_is_forgotten() -> None:
    records = RecordLifetimes()
    records.begin(AT, ["a"])
    records.end(AT)
    for _ in range(2):
        assert records.settled(AT + 60_000) == {1_000: {"a"}}
    records.forget(1_000)
    assert records.settled(AT + 60_000) == {}


def test_a_second_that_may_not_be_over_is_left() -> None:
    records = RecordLifetimes()
    records.begin(AT, ["a"])
    records.end(AT)
    assert records.settled(AT + 2_999) == {}
    assert records.settled(AT + 3_000) == {1_000: {"a"}}


def test_what_was_never_begun_here_ends_nothing() -> None:
    records = RecordLifetimes()
    records.end(AT)
    assert records.settled(AT + 60_000) == {}
