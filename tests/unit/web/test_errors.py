from __future__ import annotations

import json

import pytest

from gateway.core.endpoints import Dialect
from gateway.core.errors import FieldInvalid, QuotaSpent, RateExceeded
from gateway.web.errors import error_body, error_headers


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


def gemini_details(error: QuotaSpent | RateExceeded | FieldInvalid) -> dict[str, dict[str, object]]:
    details = json.loads(error_body(error, Dialect.GEMINI))["error"]["details"]
    return {each["@type"].rpartition(".")[2]: each for each in details}


def test_geminis_clients_wait_for_a_rate_and_give_up_on_a_quota() -> None:
    """Gemini CLI retries with the delay of RetryInfo, and stops at a violation whose quota is of a day."""
    assert gemini_details(RateExceeded("Full.", retry_after_ms=1_500))["RetryInfo"]["retryDelay"] == "1.5s"
    spent = gemini_details(QuotaSpent("Spent.", retry_after_ms=442_535_000, limit={"name": "tokens-per-month"}))
    assert "RetryInfo" not in spent
    assert spent["QuotaFailure"]["violations"] == [{"quotaId": "tokens-per-month-PerDay", "description": "Spent."}]
    assert gemini_details(FieldInvalid("No.", param="n")).keys() == {"ErrorInfo"}
