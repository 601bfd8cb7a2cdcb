from __future__ import annotations

import itertools

import pytest
from multidict import CIMultiDict

from gateway.core.header_rules import (
    REMEMBERED_LINES,
    SESSION_HEADERS,
    TO_CLIENT,
    TO_UPSTREAM,
    first_of,
    may_name_session,
    pass_header_fault,
)

CREDENTIALS = ("authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "set-cookie")


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
    assert TO_UPSTREAM.passed({name.title(): "x"}).lines() == [(name, "x")]


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
    assert TO_UPSTREAM.passed({name: "x"}).lines() == []


def test_every_line_of_a_header_passes_in_its_order() -> None:
    lines = [("Anthropic-Beta", "one"), ("tracestate", "a=1"), ("anthropic-beta", "two"), ("tracestate", "b=2")]
    assert TO_UPSTREAM.passed(CIMultiDict(lines)).lines() == [(name.lower(), value) for name, value in lines]


def test_a_value_stays_with_its_name_whatever_passes_beside_it() -> None:
    for number, names in itertools.product(
        range(2), itertools.permutations(("Accept", "host", "openai-beta", "cookie"))
    ):
        lines = [(name, f"{name}{number}") for name in names]
        passing = [(name.lower(), value) for name, value in lines if name in ("Accept", "openai-beta")]
        assert TO_UPSTREAM.passed(CIMultiDict(lines)).lines() == passing


def test_of_more_lines_than_are_remembered_each_passes() -> None:
    lines = [(f"x-stainless-{number}", str(number)) for number in range(REMEMBERED_LINES + 1)]
    assert TO_UPSTREAM.passed(dict(lines)).lines() == lines


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


@pytest.mark.parametrize("rounds", [1, 2])
def test_ever_new_names_pass_by_the_same_rule(rounds: int) -> None:
    for number in range(rounds * 300):
        name = f"X-Stainless-{number}"
        assert TO_UPSTREAM.passed({name: "x", f"x-{number}": "y"}).lines() == [(name.lower(), "x")]


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


@pytest.mark.parametrize("name", SESSION_HEADERS)
def test_no_session_is_overlooked(name: str) -> None:
    others = {"host": "gateway", "user-agent": "curl/8", "content-type": "application/json"}
    assert may_name_session(CIMultiDict({**others, name.title(): "s-1"}))
    assert not may_name_session(CIMultiDict(others))
