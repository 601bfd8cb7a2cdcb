from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import QuotaSpent, RateExceeded, RequestExceedsLimit
from gateway.core.limit_status import (
    LimitHeaders,
    limit_object,
    limit_status_object,
    refusal_error,
)
from gateway.core.limits import Limit, Meter, Mode, Per, Scope
from gateway.core.reservation import LimitStatus, LimitStatuses, Refusal, RefusalReason
from tests.unit.fakes import headers_in, limit_statuses_of

NOW = 1_793_880_000_000


def limit(
    meter: Meter, per: Per | None, amount: int = 100, *, scope: Scope = Scope.TEAM, mode: Mode = Mode.ENFORCE
) -> Limit:
    subject = "" if scope is Scope.ORGANISATION else "search"
    return Limit(f"{meter}-{per}", scope, subject, meter, per, amount, amount, team="search", mode=mode)


def limit_status(of: Limit, left: int, resets_ms: int = NOW + 6_000, held: int = 0) -> LimitStatus:
    return LimitStatus(of, of.amount - left - held, held, left, resets_ms)


def refusal(of: Limit, why: RefusalReason, retry_after_ms: int = 1_500, requested: int = 1) -> Refusal:
    shown = limit_status(of, 0, held=of.amount // 4)
    return Refusal(shown, requested, why, retry_after_ms, NOW, limit_statuses_of([shown]))


def headers(*limit_statuses: LimitStatus) -> dict[str, str]:
    told = LimitHeaders(each.limit for each in limit_statuses).lines(limit_statuses_of(limit_statuses), NOW)
    assert len(headers_in(told)) == told.count("\r\n")
    return headers_in(told)


def test_a_rate_is_told_in_the_headers_of_openai() -> None:
    assert headers(limit_status(limit(Meter.REQUESTS, Per.MINUTE, 600), 599, NOW + 100)) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
    }


def test_a_quota_in_dollars_is_told_in_dollars() -> None:
    assert headers(limit_status(limit(Meter.USD, Per.MONTH, 500_000_000), 499_999_999)) == {
        "x-quota-limit-usd": "500",
        "x-quota-remaining-usd": "499.999999",
        "x-quota-reset-usd": "6s",
    }


def test_a_millionth_of_a_dollar_is_no_exponent() -> None:
    assert headers(limit_status(limit(Meter.USD, Per.DAY, 1_000_000), 1))["x-quota-remaining-usd"] == "0.000001"


def test_the_tightest_of_a_kind_is_told() -> None:
    loose = limit_status(limit(Meter.TOKENS, Per.MINUTE, 1_000), 900)
    tight = limit_status(limit(Meter.OUTPUT_TOKENS, Per.SECOND, 500), 20)
    for order in ((loose, tight), (tight, loose)):
        assert headers(*order)["x-ratelimit-limit-tokens"] == "500"
        assert headers(*order)["x-ratelimit-remaining-tokens"] == "20"


def test_limits_without_a_status_are_left_out_whatever_was_told_before() -> None:
    """Those of end users come last, and not every request names one."""
    wide, own = limit(Meter.REQUESTS, Per.MINUTE, 600), limit(Meter.REQUESTS, Per.MINUTE, 20)
    told = LimitHeaders([wide, own])
    every = limit_statuses_of([limit_status(wide, 599), limit_status(own, 7)])
    for statuses, left in ((every, "7"), (limit_statuses_of([every[0]]), "599"), (every, "7")):
        assert headers_in(told.lines(statuses, NOW))["x-ratelimit-remaining-requests"] == left
    assert told.lines(LimitStatuses(), NOW) == ""


def test_rates_and_quotas_requests_and_tokens_are_told_apart() -> None:
    told = headers(
        limit_status(limit(Meter.REQUESTS, Per.MINUTE), 1),
        limit_status(limit(Meter.TOKENS, Per.MINUTE), 2),
        limit_status(limit(Meter.REQUESTS, Per.DAY), 3),
        limit_status(limit(Meter.INPUT_TOKENS, Per.MONTH), 4),
        limit_status(limit(Meter.USD, Per.MONTH), 5),
    )
    assert {name: value for name, value in told.items() if "remaining" in name} == {
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-remaining-tokens": "2",
        "x-quota-remaining-requests": "3",
        "x-quota-remaining-tokens": "4",
        "x-quota-remaining-usd": "0.000005",
    }


def test_what_has_no_header_is_not_told() -> None:
    silent = [
        limit_status(limit(Meter.CONCURRENT, None), 0),
        limit_status(limit(Meter.USD, Per.MINUTE), 0),
        limit_status(limit(Meter.REQUESTS, Per.MINUTE, mode=Mode.SHADOW), 0),
    ]
    assert headers(*silent) == {}


def test_a_quota_for_ever_has_no_reset() -> None:
    assert "x-quota-reset-tokens" not in headers(limit_status(limit(Meter.TOKENS, Per.TOTAL), 5, resets_ms=0))


def test_a_reset_in_the_past_is_now() -> None:
    assert headers(limit_status(limit(Meter.REQUESTS, Per.SECOND), 5, NOW - 1))["x-ratelimit-reset-requests"] == "0s"


@pytest.mark.parametrize(
    ("meter", "per", "why", "kind", "type_", "code"),
    [
        (Meter.REQUESTS, Per.MINUTE, RefusalReason.SPENT, RateExceeded, "requests", "rate_limit_exceeded"),
        (Meter.REQUESTS, Per.MINUTE, RefusalReason.HELD, RateExceeded, "requests", "rate_limit_exceeded"),
        (Meter.TOKENS, Per.MINUTE, RefusalReason.SPENT, RateExceeded, "tokens", "rate_limit_exceeded"),
        (Meter.USD, Per.HOUR, RefusalReason.SPENT, RateExceeded, "tokens", "rate_limit_exceeded"),
        (Meter.CONCURRENT, None, RefusalReason.HELD, RateExceeded, "concurrency", "rate_limit_exceeded"),
        (Meter.TOKENS, Per.MINUTE, RefusalReason.NEVER, RequestExceedsLimit, "tokens", "request_exceeds_limit"),
        (Meter.REQUESTS, Per.MONTH, RefusalReason.NEVER, RequestExceedsLimit, "requests", "request_exceeds_limit"),
        (Meter.TOKENS, Per.MONTH, RefusalReason.SPENT, QuotaSpent, "insufficient_quota", "insufficient_quota"),
        (Meter.USD, Per.TOTAL, RefusalReason.SPENT, QuotaSpent, "insufficient_quota", "insufficient_quota"),
        (Meter.TOKENS, Per.MONTH, RefusalReason.HELD, RateExceeded, "tokens", "rate_limit_exceeded"),
    ],
)
def test_a_refusal_is_an_error_of_its_kind(
    meter: Meter, per: Per | None, why: RefusalReason, kind: type, type_: str, code: str
) -> None:
    error = refusal_error(refusal(limit(meter, per), why, 0 if why is RefusalReason.NEVER else 1_500))
    assert (type(error), error.status, error.type, error.code) == (kind, 429, type_, code)
    assert error.retry_after_ms == (None if why is RefusalReason.NEVER else 1_500)
    assert error.should_retry is (None if kind is RateExceeded else False)


def test_a_refusal_does_not_change_what_its_kind_is_for_others() -> None:
    refusal_error(refusal(limit(Meter.TOKENS, Per.MINUTE), RefusalReason.SPENT))
    assert refusal_error(refusal(limit(Meter.REQUESTS, Per.MINUTE), RefusalReason.SPENT)).type == "requests"
    assert RateExceeded.type == "requests"


def test_a_refusal_names_the_limit_for_programs() -> None:
    error = refusal_error(
        refusal(limit(Meter.USD, Per.MONTH, 2_000_000), RefusalReason.SPENT, 5_000, requested=1_500_000)
    )
    assert error.written is not None
    assert error.written.limit == {
        "name": "usd-month",
        "scope": "team",
        "subject": "search",
        "meter": "usd",
        "per": "month",
        "amount": 2.0,
        "used": 1.5,
        "held": 0.5,
        "requested": 1.5,
        "resets_at": "2026-11-05T12:00:06.000Z",
    }


def test_a_refusal_carries_the_headers_of_its_limits() -> None:
    error = refusal_error(refusal(limit(Meter.REQUESTS, Per.MINUTE), RefusalReason.SPENT))
    assert headers_in(error.limit_lines) == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "6s",
    }


def test_a_refusal_without_a_wait_still_says_when_its_limits_are_whole() -> None:
    of = limit(Meter.TOKENS, Per.DAY, 1_000)
    statuses = limit_statuses_of([limit_status(of, 0, NOW)])
    told = refusal_error(Refusal(statuses[0], 5_000, RefusalReason.NEVER, 0, NOW, statuses))
    assert headers_in(told.limit_lines)["x-quota-reset-tokens"] == "0s"
    assert "Try again" not in told.message


def words(of: Limit, why: RefusalReason, retry_after_ms: int) -> str:
    return refusal_error(refusal(of, why, retry_after_ms, requested=12_000)).message


def test_a_refusal_says_what_stands_in_the_way_and_when_to_try_again() -> None:
    assert words(limit(Meter.TOKENS, Per.MINUTE, 200_000), RefusalReason.SPENT, 1_500) == (
        "The limit 'tokens-minute' of team 'search' (200,000 tokens per minute) does not let this request pass:"
        " 150,000 used and 50,000 held by requests in flight, this request needs 12,000. Try again in 1.5s."
    )


def test_a_refusal_by_concurrency_says_how_many_are_in_flight() -> None:
    assert words(limit(Meter.CONCURRENT, None, 64), RefusalReason.HELD, 1_000) == (
        "The limit 'concurrent-None' of team 'search' (64 requests at a time) does not let this request pass:"
        " 16 in flight, this request needs 12,000. Try again in 1s."
    )


def test_a_refusal_for_ever_does_not_say_to_try_again() -> None:
    assert words(limit(Meter.OUTPUT_TOKENS, Per.TOTAL, 4, scope=Scope.ORGANISATION), RefusalReason.SPENT, 0) == (
        "The limit 'output_tokens-total' of the organisation (4 output tokens in total) does not let this request"
        " pass: 3 used and 1 held by requests in flight, this request needs 12,000."
    )


def test_a_refusal_of_too_much_says_to_ask_for_less() -> None:
    assert words(limit(Meter.INPUT_TOKENS, Per.HOUR, 1_000), RefusalReason.NEVER, 0) == (
        "The limit 'input_tokens-hour' of team 'search' (1,000 input tokens per hour) never holds as much as this"
        " request needs: 12,000. Send fewer or shorter messages."
    )


@pytest.mark.parametrize(
    ("meter", "per", "resets_ms"),
    [(Meter.REQUESTS, Per.MINUTE, NOW + 6_000), (Meter.USD, Per.DAY, NOW + 90_000), (Meter.TOKENS, Per.TOTAL, 0)],
)
def test_a_refusal_that_is_repeated_is_told_as_if_for_the_first_time(meter: Meter, per: Per, resets_ms: int) -> None:
    of, other = limit(meter, per), limit(Meter.CONCURRENT, None)
    statuses = limit_statuses_of([limit_status(of, 0, resets_ms), limit_status(other, 3, 0)])
    first = Refusal(statuses[0], 12, RefusalReason.SPENT, resets_ms and resets_ms - NOW, NOW, statuses)
    later = msgspec.structs.replace(
        first, at_ms=NOW + 70, retry_after_ms=resets_ms and resets_ms - NOW - 70, repeats=first
    )
    sooner = msgspec.structs.replace(later, retry_after_ms=later.retry_after_ms and later.retry_after_ms - 1)
    headers = LimitHeaders(statuses.limits)
    for refused in (first, later, later, sooner, first):
        told, anew = refusal_error(refused, headers), refusal_error(refused, LimitHeaders(statuses.limits))
        assert (told.message, told.left, told.type) == (anew.message, anew.left, anew.type)
        assert (told.limit_lines, told.retry_after_ms) == (anew.limit_lines, anew.retry_after_ms)
        assert ("-reset-" in told.limit_lines) == bool(resets_ms)
    assert refusal_error(later, headers).retry_after_ms == (resets_ms - NOW - 70 if resets_ms else None)
    assert refusal_error(later, headers).written is refusal_error(first, headers).written


def test_requests_that_are_refused_alike_at_the_same_moment_get_the_same_error() -> None:
    refused = refusal(limit(Meter.TOKENS, Per.MINUTE), RefusalReason.SPENT, retry_after_ms=61_234)
    later = msgspec.structs.replace(refused, retry_after_ms=61_233, at_ms=NOW + 1, repeats=refused)
    headers = LimitHeaders(refused.limit_statuses.limits)
    one = refusal_error(refused, headers)
    assert refusal_error(refused, headers) is one
    assert refusal_error(refused, headers, thinking_budget=2_000) is not one
    assert refusal_error(later, headers) is not one


@pytest.mark.parametrize(
    "changes",
    [
        {"requested": 13},
        {"why": RefusalReason.HELD},
        {"limit_status": limit_status(limit(Meter.TOKENS, Per.DAY), 0)},
        {"limit_statuses": limit_statuses_of([limit_status(limit(Meter.TOKENS, Per.DAY), 0, NOW + 9_000)])},
    ],
)
def test_another_refusal_by_the_same_limits_is_told_in_its_own_words(changes: dict[str, Any]) -> None:
    first = refusal(limit(Meter.TOKENS, Per.DAY), RefusalReason.SPENT, requested=12)
    other = msgspec.structs.replace(first, **changes)
    headers = LimitHeaders(first.limit_statuses.limits)
    refusal_error(first, headers)
    told, anew = refusal_error(other, headers), refusal_error(other, LimitHeaders(first.limit_statuses.limits))
    assert (type(told), told.message, told.limit_lines) == (type(anew), anew.message, anew.limit_lines)
    assert told.written is not None
    assert anew.written is not None
    assert told.written.limit == anew.written.limit
    assert "thinking" in refusal_error(other, headers, 2_000).message


def test_a_standing_for_people_says_what_is_left_and_whether_it_binds() -> None:
    shown = limit_status_object(limit_status(limit(Meter.REQUESTS, Per.DAY, mode=Mode.SHADOW), 40))
    assert (shown["used"], shown["left"], shown["mode"]) == (60, 40, "shadow")


def test_what_never_resets_has_no_time() -> None:
    assert limit_object(limit_status(limit(Meter.CONCURRENT, None), 1, resets_ms=0))["resets_at"] is None


@given(
    st.sampled_from(Meter),
    st.sampled_from([None, *Per]),
    st.sampled_from(RefusalReason),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
)
def test_every_refusal_can_be_told(
    meter: Meter, per: Per | None, why: RefusalReason, amount: int, wait_ms: int
) -> None:
    error = refusal_error(refusal(limit(meter, per, amount), why, wait_ms, requested=2**53))
    assert error.message
    assert error.written is not None
    assert error.written.limit["name"]


@pytest.mark.parametrize(
    ("meter", "per", "is_named"),
    [(Meter.OUTPUT_TOKENS, Per.DAY, True), (Meter.USD, Per.MONTH, True), (Meter.INPUT_TOKENS, Per.DAY, False),
     (Meter.OUTPUT_TOKENS, Per.MINUTE, False)],
)  # fmt: skip
def test_a_thinking_budget_is_named_where_a_quota_has_to_pay_for_it(meter: Meter, per: Per, is_named: bool) -> None:
    error = refusal_error(refusal(limit(meter, per), RefusalReason.SPENT), thinking_budget=2_000)
    assert ("thinking budget of 2,000 tokens" in str(error)) is is_named
