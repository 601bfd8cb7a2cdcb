from __future__ import annotations

import json

import msgspec
import pytest

from gateway.core.endpoints import Dialect
from gateway.core.errors import FieldInvalid, KeyUnknown, QuotaSpent, RateExceeded
from gateway.core.limit_status import LimitHeaders, refusal_error
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.reservation import LimitStatus, Refusal, RefusalReason
from gateway.web.errors import error_body, error_fields, error_headers
from gateway.web.response_head import field_lines
from tests.unit.fakes import limit_statuses_of

NOW = 1_800_000_000_000


@pytest.mark.parametrize(("wait_ms", "shown"), [(None, None), (1, "1"), (60_000, "60"), (60_001, None)])
def test_a_spent_quota_names_a_wait_only_where_it_is_short(wait_ms: int | None, shown: str | None) -> None:
    headers = dict(error_headers(QuotaSpent("Spent.", retry_after_ms=wait_ms)))
    assert headers["x-should-retry"] == "false"
    assert (headers.get("retry-after"), headers.get("retry-after-ms")) == (shown, None)


def test_a_rate_names_its_wait_however_long_it_is() -> None:
    headers = dict(error_headers(RateExceeded("Full.", retry_after_ms=3_600_001)))
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("3601", "3600001")
    assert "x-should-retry" not in headers


def test_anthropics_clients_get_the_type_of_their_api() -> None:
    bodies = [error_body(kind("No."), Dialect.ANTHROPIC) for kind in (QuotaSpent, RateExceeded)]
    kinds = [json.loads(body)["error"]["type"] for body in bodies]
    assert kinds == ["billing_error", "rate_limit_error"]


NAME = 'all of it, 100 %(ms)d "quoted" \x01'


def refusal(per: Per | None, wait_ms: int) -> Refusal:
    limit = Limit(NAME, Scope.TEAM, "search", Meter.TOKENS if per else Meter.CONCURRENT, per, 100, 100, "search")
    status = LimitStatus(limit, 100, 0, 0, NOW + wait_ms)
    return Refusal(status, 12, RefusalReason.SPENT, wait_ms, NOW, limit_statuses_of([status]))


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(("per", "wait_ms"), [(Per.MINUTE, 1_500), (Per.MONTH, 90_061_001), (Per.TOTAL, 0), (None, 70)])
def test_a_refusal_that_is_repeated_differs_in_the_time_that_is_left(
    dialect: Dialect, per: Per | None, wait_ms: int
) -> None:
    first = refusal(per, wait_ms)
    later = msgspec.structs.replace(first, retry_after_ms=wait_ms and wait_ms - 31, at_ms=NOW + 31, repeats=first)
    headers = LimitHeaders(first.limit_statuses.limits)
    for each in (first, later, first):
        error = refusal_error(each, headers, 2_000)
        shown = json.loads(error_body(error, dialect))
        assert shown["error"]["message"] == error.message
        assert shown["limit"]["name"] == NAME
        assert shown["limit"]["retry_after_ms"] == each.retry_after_ms
        anew = refusal_error(each, LimitHeaders(first.limit_statuses.limits), 2_000)
        assert shown == json.loads(error_body(anew, dialect))
        assert error_fields(error) == field_lines(error_headers(anew)) + anew.limit_lines


def test_gemini_is_told_the_time_that_is_left_of_a_rate() -> None:
    first = refusal(Per.MINUTE, 1_500)
    headers = LimitHeaders(first.limit_statuses.limits)
    for wait_ms in (1_500, 70):
        error = refusal_error(msgspec.structs.replace(first, retry_after_ms=wait_ms, repeats=first), headers)
        assert isinstance(error, RateExceeded)
        assert gemini_details(error)["RetryInfo"]["retryDelay"] == f"{wait_ms / 1000:g}s"


def gemini_details(error: QuotaSpent | RateExceeded | FieldInvalid) -> dict[str, dict[str, object]]:
    details = json.loads(error_body(error, Dialect.GEMINI))["error"]["details"]
    return {each["@type"].rpartition(".")[2]: each for each in details}


def test_geminis_clients_wait_for_a_rate_and_give_up_on_a_quota() -> None:
    """Gemini CLI retries with the delay of RetryInfo, and stops at a violation whose quota is of a day."""
    assert gemini_details(RateExceeded("Full.", retry_after_ms=1_500))["RetryInfo"]["retryDelay"] == "1.5s"
    error = refusal_error(refusal(Per.MONTH, 442_535_000))
    assert isinstance(error, QuotaSpent)
    spent = gemini_details(error)
    assert "RetryInfo" not in spent
    assert spent["QuotaFailure"]["violations"] == [{"quotaId": f"{NAME}-PerDay", "description": error.message}]
    assert gemini_details(FieldInvalid("No.", param="n")).keys() == {"ErrorInfo"}


@pytest.mark.parametrize("dialect", list(Dialect))
def test_an_error_that_all_get_who_are_refused_alike_is_written_once(dialect: Dialect) -> None:
    own, shared = KeyUnknown("No."), KeyUnknown("No.").shared()
    assert error_body(shared, dialect) == error_body(own, dialect) == shared.bodies[dialect]
    assert error_fields(shared) == error_fields(own) == shared.fields
    assert (own.bodies, own.fields) == ({}, "")


def test_an_error_that_is_shared_has_a_body_for_each_api() -> None:
    shared = KeyUnknown("No.").shared()
    bodies = {dialect: error_body(shared, dialect) for dialect in Dialect}
    assert shared.bodies == bodies
    assert len(set(bodies.values())) > 1
