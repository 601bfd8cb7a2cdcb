from __future__ import annotations

from gateway.store.in_redis.records import Records

AT = 1_000_000


def test_a_record_may_end_once_all_of_its_second_is_settled() -> None:
    records = Records()
    records.begin(AT, ["a"])
    records.begin(AT + 999, ["a", "b"])
    records.end(AT)
    assert records.done(AT + 60_000) == []
    records.end(AT + 999)
    assert sorted(records.done(AT + 60_000)) == ["a", "b"]
    assert records.done(AT + 60_000) == []


def test_a_second_that_may_not_be_over_is_left() -> None:
    records = Records()
    records.begin(AT, ["a"])
    records.end(AT)
    assert records.done(AT + 2_999) == []
    assert records.done(AT + 3_000) == ["a"]


def test_what_was_never_begun_here_ends_nothing() -> None:
    records = Records()
    records.end(AT)
    assert records.done(AT + 60_000) == []
