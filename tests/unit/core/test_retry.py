from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.retry import MOST, RetryBudget, read_retry_after


def taken(budget: RetryBudget, now: float = 0) -> int:
    count = 0
    while budget.take(now):
        count += 1
    return count


def test_a_few_may_always_be_tried_again() -> None:
    assert taken(RetryBudget(now=0)) == MOST


def test_when_all_fail_a_fifth_is_tried_again() -> None:
    budget = RetryBudget(now=0)
    taken(budget)
    retries = 0
    for number in range(10_000):
        budget.requests += 1
        retries += budget.take(now=number / 1_000_000)
    assert 1_990 <= retries <= 2_010


def test_requests_count_though_none_is_tried_again_meanwhile() -> None:
    budget = RetryBudget(now=0)
    taken(budget)
    budget.requests += 25
    assert taken(budget) == 5


def test_where_requests_are_rare_time_adds_retries() -> None:
    budget = RetryBudget(now=0)
    taken(budget)
    assert not budget.take(now=0)
    budget.requests += 1
    assert taken(budget, now=10) == 5


def test_no_more_is_saved_up_than_there_was_at_first() -> None:
    budget = RetryBudget(now=0)
    budget.requests += 10_000
    assert taken(budget, now=10_000) == MOST


NOW_MS = 1_709_000_000_000  # 2024-02-27T02:13:20Z


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "Tue, 27 Feb 2024 02:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 27 Feb 2024 02:13:00 GMT"}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "inf"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": ""}, 0.0),
        ({"retry-after": "Tue, 27 Feb 99999 02:13:50 GMT"}, 0.0),
    ],
)
def test_a_wait_is_read_in_each_of_its_forms(headers: dict[str, str], seconds: float) -> None:
    assert read_retry_after(headers, NOW_MS) == seconds


@given(st.text(max_size=40))
def test_no_text_is_an_error_or_a_negative_wait(written: str) -> None:
    assert read_retry_after({"retry-after": written}, NOW_MS) >= 0
