from __future__ import annotations

import pytest

from gateway.web.cors import CorsPolicy

PAGE = "https://chat.example.com"
POLICY = CorsPolicy([PAGE, "http://localhost:3000"])
ASKED = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


def test_without_origins_no_header_is_sent() -> None:
    assert CorsPolicy().headers({"origin": PAGE}) == ()
    assert CorsPolicy().preflight("OPTIONS", ASKED) is None


def test_an_origin_that_is_configured_may_read_the_answer() -> None:
    headers = dict(POLICY.headers({"origin": PAGE}))
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["vary"] == "origin"
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens", "x-quota-reset-usd"} <= set(exposed)
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    "origin", ["", "null", "https://evil.example", f"{PAGE}.evil.example", "http://localhost", "*"]
)
def test_another_origin_gets_no_leave(origin: str) -> None:
    assert dict(POLICY.headers({"origin": origin})) == {"vary": "origin"}
    assert POLICY.preflight("OPTIONS", ASKED | {"origin": origin}) is None


def test_a_preflight_allows_the_headers_that_it_asks_for() -> None:
    headers = dict(POLICY.preflight("OPTIONS", ASKED) or ())
    assert headers["access-control-allow-headers"] == ASKED["access-control-request-headers"]
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["access-control-max-age"] == "7200"


@pytest.mark.parametrize("names", ["", "a b", "a;b", "a,,b", "ü"])
def test_what_is_no_list_of_headers_is_not_repeated(names: str) -> None:
    headers = dict(POLICY.preflight("OPTIONS", ASKED | {"access-control-request-headers": names}) or ())
    assert "access-control-allow-headers" not in headers
    assert headers["access-control-max-age"]


def test_a_request_that_is_no_preflight_is_none() -> None:
    assert POLICY.preflight("POST", ASKED) is None
    assert POLICY.preflight("OPTIONS", {"origin": PAGE}) is None


def test_every_origin_may_call_where_the_operator_says_so_and_never_with_credentials() -> None:
    headers = dict(CorsPolicy(["*"]).headers({"origin": "https://anywhere.example"}))
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers
