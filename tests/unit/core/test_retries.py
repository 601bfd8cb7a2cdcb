from __future__ import annotations

from gateway.core.retries import MOST, RetryBudget


def taken(budget: RetryBudget) -> int:
    count = 0
    while budget.take():
        count += 1
    return count


def test_a_few_may_always_be_tried_again() -> None:
    assert taken(RetryBudget(now=0)) == MOST


def test_when_all_fail_a_fifth_is_tried_again() -> None:
    budget = RetryBudget(now=0)
    taken(budget)
    retries = 0
    for number in range(10_000):
        budget.request(now=number / 1_000_000)
        retries += budget.take()
    assert 1_990 <= retries <= 2_010


def test_where_requests_are_rare_time_adds_retries() -> None:
    budget = RetryBudget(now=0)
    taken(budget)
    assert not budget.take()
    budget.request(now=10)
    assert taken(budget) == 5


def test_no_more_is_saved_up_than_there_was_at_first() -> None:
    budget = RetryBudget(now=0)
    for number in range(10_000):
        budget.request(now=number)
    assert taken(budget) == MOST
