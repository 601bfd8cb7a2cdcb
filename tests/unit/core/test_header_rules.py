from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from multidict import CIMultiDict

from gateway.core.header_rules import (
    SESSION_HEADERS,
    TO_CLIENT,
    TO_UPSTREAM,
    first_of,
    pass_header_fault,
)

CREDENTIALS = ("authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "set-cookie")


def passed(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What reaches an upstream."""
    return TO_UPSTREAM.passing(tuple([name for name, _ in headers.items()])).of(headers).lines()


@pytest.mark.parametrize(
    "name",
    [
        *("accept", "user-agent", "traceparent", "tracestate", "idempotency-key"),
        *("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access"),
        *("openai-beta", "openai-organization", "x-stainless-retry-count"),
        *("session-id", "thread-id", "x-client-request-id", "originator", "version", "x-session-id"),
        *("x-session-affinity", "x-claude-code-session-id", "x-codex-window-id", "x-opencode-session"),
        *("x-claude-code-prompt-id", "x-claude-remote-session-id", "x-anthropic-additional-protection"),
        *("x-openai-internal-codex-responses-lite", "x-openai-internal-codex-residency"),
    ],
)
def test_what_a_provider_or_an_agent_reads_reaches_the_upstream(name: str) -> None:
    assert passed({name.title(): "x"}) == [(name, "x")]


@pytest.mark.parametrize(
    "name",
    [
        *CREDENTIALS,
        *("anthropic-api-key", "openai-api-key", "x-codex-authorization", "x-codex-access-token"),
        *("x-openai-internal-codex-token", "x-openai-actor-authorization", "x-oai-attestation"),
        *("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via", "cf-connecting-ip"),
        *("host", "connection", "accept-encoding", "transfer-encoding", "content-length", "expect", "upgrade"),
        *("origin", "referer", "x-request-id", "content-encoding", "x-whatever"),
    ],
)
def test_what_is_secret_or_belongs_to_the_way_here_never_does(name: str) -> None:
    assert passed({name: "x"}) == []


def test_every_line_of_a_header_passes_in_its_order() -> None:
    lines = [("Anthropic-Beta", "one"), ("tracestate", "a=1"), ("anthropic-beta", "two"), ("tracestate", "b=2")]
    assert passed(CIMultiDict(lines)) == [(name.lower(), value) for name, value in lines]


def test_a_value_stays_with_its_name_whatever_passes_beside_it() -> None:
    for number, names in itertools.product(
        range(2), itertools.permutations(("Accept", "host", "openai-beta", "cookie"))
    ):
        lines = [(name, f"{name}{number}") for name in names]
        passing = [(name.lower(), value) for name, value in lines if name in ("Accept", "openai-beta")]
        assert passed(CIMultiDict(lines)) == passing


def test_of_an_answers_headers_each_line_of_a_repeated_one_passes() -> None:
    headers = {
        "content-type": "text/plain",
        "server": "x",
        "openai-notice": "one\ntwo",
        "date": "now",
        "retry-after": "1",
    }
    for _ in range(2):
        assert TO_CLIENT.passed_once(headers) == [
            ("content-type", "text/plain"),
            ("openai-notice", "one"),
            ("openai-notice", "two"),
            ("retry-after", "1"),
        ]
        headers["server"] = "another"


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        *((name, True) for name in ("content-type", "content-disposition", "content-encoding", "content-language")),
        *((name, True) for name in ("retry-after", "retry-after-ms", "x-should-retry", "request-id")),
        *((name, True) for name in ("openai-processing-ms", "openai-version", "anthropic-organization-id")),
        *((name, True) for name in ("x-codex-turn-state", "x-reasoning-included", "anthropic-anything")),
        *((name, False) for name in ("x-models-etag", "x-openai-authorization-error")),
        *((name, False) for name in CREDENTIALS),
        *((name, False) for name in ("anthropic-ratelimit-tokens-remaining", "anthropic-priority-input-tokens-limit")),
        *((name, False) for name in ("x-ratelimit-limit-requests", "server", "date", "connection", "x-request-id")),
        *((name, False) for name in ("access-control-allow-origin", "transfer-encoding", "content-length")),
    ],
)
def test_what_the_client_sees_of_an_upstreams_headers(name: str, passes: bool) -> None:
    assert TO_CLIENT.admits(name) is passes


@pytest.mark.parametrize("name", ["x-my-header", "X-OpenWebUI-User-Email", "helicone-session-id", "x-tenant"])
def test_an_operator_lets_a_further_header_through(name: str) -> None:
    assert pass_header_fault(name) == ""


@pytest.mark.parametrize("name", [*CREDENTIALS, "X-Auth-Token", "X-Forwarded-For", "Via", "Host", "Content-Type"])
def test_an_operator_cannot_let_through_what_never_passes(name: str) -> None:
    assert pass_header_fault(name)


def test_the_first_header_that_is_there_counts() -> None:
    headers = CIMultiDict({"X-Session-Id": "second", "thread-id": "third"})
    assert first_of(SESSION_HEADERS, headers) == "second"
    assert first_of(SESSION_HEADERS, {}) == ""
