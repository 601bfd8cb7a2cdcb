from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.core import errors
from gateway.core.errors import GatewayError


def every_error(of: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from every_error(kind)


leaves = [kind for kind in every_error() if not kind.__subclasses__() and kind.__module__ == errors.__name__]


@pytest.mark.parametrize(
    ("name", "status", "type_", "code"),
    [
        ("KeyMissing", 401, "invalid_request_error", "missing_api_key"),
        ("KeyUnknown", 401, "invalid_request_error", "invalid_api_key"),
        ("KeyExpired", 401, "invalid_request_error", "expired_api_key"),
        ("BodyUnreadable", 400, "invalid_request_error", "invalid_json"),
        ("FieldInvalid", 400, "invalid_request_error", "invalid_value"),
        ("TooLarge", 413, "invalid_request_error", "request_too_large"),
        ("ModelUnknown", 404, "invalid_request_error", "model_not_found"),
        ("UrlUnknown", 404, "invalid_request_error", "unknown_url"),
        ("MethodNotAllowed", 405, "invalid_request_error", "method_not_allowed"),
        ("RateExceeded", 429, "requests", "rate_limit_exceeded"),
        ("RequestExceedsLimit", 429, "requests", "request_exceeds_limit"),
        ("QuotaSpent", 429, "insufficient_quota", "insufficient_quota"),
        ("StoreUnavailable", 503, "server_error", "store_unavailable"),
        ("NoTarget", 503, "server_error", "no_upstream_available"),
        ("UpstreamUnreachable", 502, "server_error", "upstream_unreachable"),
        ("UpstreamTimedOut", 504, "server_error", "upstream_timeout"),
        ("UpstreamAuthFailed", 502, "server_error", "upstream_auth_failed"),
        ("ShuttingDown", 503, "server_error", "shutting_down"),
        ("InternalError", 500, "server_error", "internal_error"),
    ],
)
def test_the_table_of_errors_is_the_contract(name: str, status: int, type_: str, code: str) -> None:
    kind = getattr(errors, name)
    assert (kind.status, kind.type, kind.code) == (status, type_, code)


def test_codes_tell_errors_apart() -> None:
    # To a client a busy upstream is one that is not available.
    codes = [kind.code for kind in leaves if kind is not errors.UpstreamBusy]
    assert sorted(codes) == sorted(set(codes))


def test_only_what_no_retry_can_change_tells_clients_not_to_retry() -> None:
    hopeless = {kind.__name__ for kind in leaves if kind.should_retry is False}
    keys = {"KeyMissing", "KeyUnknown"}  # Not KeyExpired: some clients have a new one made for the next try.
    assert hopeless == {*keys, "RequestExceedsLimit", "QuotaSpent", "UpstreamAuthFailed", "RequestCancelled"}


def test_a_gateway_that_shuts_down_says_when_another_answers() -> None:
    assert errors.ShuttingDown("Down.").retry_after_ms == 1000


@pytest.mark.parametrize("kind", [GatewayError, *every_error()])
def test_an_error_fails_by_its_own_party_and_code(kind: type[GatewayError]) -> None:
    assert kind.failure == (kind.blame, kind.code)
