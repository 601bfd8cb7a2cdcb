from __future__ import annotations

import json

import pytest

from gateway.core.endpoints import Dialect
from gateway.core.errors import QuotaSpent, RateExceeded
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
