"""Requests that belong together go to the same target, while that is well and not overloaded."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from gateway.core.affinity import favourite, key_of
from gateway.core.endpoints import CHAT
from gateway.core.health import Candidate
from gateway.core.input_size import InputSize
from gateway.core.json_spans import read_json_spans
from gateway.core.request import ParsedRequest
from gateway.core.snapshot import Caller, Model, Target, Upstream, bind


def candidate(name: str, *, weight: int = 1, priority: int = 1, share: float = 1.0, in_flight: int = 0) -> Candidate:
    return Candidate(Target(Upstream(name, f"http://{name}/v1"), "m", weight, priority), share, in_flight)


def parsed(
    messages: list[dict[str, Any]], *, affinity: str = "prefix", user: str = "", **members: Any
) -> ParsedRequest:
    body = json.dumps({"model": "m", "messages": messages, **members}).encode()
    model = Model("m", (), affinity=affinity)
    return ParsedRequest(
        endpoint=CHAT,
        binding=bind(Caller("1", "key", "team"), model),
        asked_model="m",
        stream=False,
        asks_usage=False,
        output_cap=None,
        choices=1,
        user=user,
        members=read_json_spans(body),
        input_size=InputSize(len(body)),
    )


def chosen(key: bytes, candidates: list[Candidate]) -> str:
    target = favourite(key, candidates)
    return target.upstream.name if target else ""


def test_a_key_stays_with_its_target() -> None:
    candidates = [candidate(name) for name in "abc"]
    for number in range(100):
        key = b"key %d" % number
        assert len({chosen(key, candidates) for _ in range(3)}) == 1
        assert chosen(key, candidates) == chosen(key, candidates[::-1])


def test_a_target_that_leaves_moves_its_own_keys_only() -> None:
    candidates = [candidate(name) for name in "abc"]
    for number in range(200):
        key = b"key %d" % number
        before = chosen(key, candidates)
        if before != "c":
            assert chosen(key, candidates[:2]) == before


def test_keys_spread_by_weight() -> None:
    candidates = [candidate("light"), candidate("heavy", weight=3)]
    counts = Counter(chosen(b"key %d" % number, candidates) for number in range(4_000))
    assert 2_800 < counts["heavy"] < 3_200


def test_an_overloaded_favourite_is_passed_over() -> None:
    key = next(
        b"%d" % number for number in range(100) if chosen(b"%d" % number, [candidate("a"), candidate("b")]) == "a"
    )
    assert chosen(key, [candidate("a", in_flight=20), candidate("b", in_flight=20)]) == "a"
    assert chosen(key, [candidate("a", in_flight=30), candidate("b", in_flight=10)]) == "b"


def test_a_favourite_that_is_not_well_is_passed_over() -> None:
    for number in range(20):
        assert chosen(b"%d" % number, [candidate("a", share=0.5), candidate("b")]) == "b"
    assert chosen(b"key", [candidate("a", share=0.0)]) == ""


def test_only_the_first_priority_is_looked_at() -> None:
    for number in range(20):
        assert chosen(b"%d" % number, [candidate("a"), candidate("b", priority=2)]) == "a"


def test_a_conversation_keeps_its_key_while_it_grows() -> None:
    opening = [{"role": "system", "content": "Be kind. " * 500}, {"role": "user", "content": "Hello"}]
    later = [*opening, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And now?"}]
    other = [opening[0], {"role": "user", "content": "Good day"}]
    assert key_of(parsed(opening), {}) == key_of(parsed(later), {}) != key_of(parsed(other), {})


def test_a_users_requests_share_a_key() -> None:
    one = parsed([{"role": "user", "content": "a"}], affinity="user", user="anna")
    two = parsed([{"role": "user", "content": "b"}], affinity="user", user="anna")
    assert key_of(one, {}) == key_of(two, {}) == b"anna"
    assert key_of(parsed([{"role": "user", "content": "b"}], affinity="none"), {}) == b""


def test_a_session_is_named_by_a_header_or_a_member_or_else_by_the_beginning_of_its_prompt() -> None:
    messages = [{"role": "user", "content": "a"}]
    of_prompt = key_of(parsed(messages), {})
    assert key_of(parsed(messages, affinity="session", prompt_cache_key="s1"), {"x-session-id": "s2"}) == b"s2"
    assert key_of(parsed(messages, affinity="session", prompt_cache_key="s1"), {}) == b'"s1"'
    assert key_of(parsed(messages, affinity="session", prompt_cache_key=None), {}) == of_prompt != b""
