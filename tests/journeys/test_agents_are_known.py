"""An agent's session: it goes where its prompt is cached, it is in the log, and what it sends and gets passes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.demo import DemoUpstream
from tests.apis import MESSAGES, RESPONSES
from tests.hand_upstream import hand_upstream
from tests.whole_gateway import KEY, MODEL, chat_body, whole_gateway

ROUTES = {"routes": [{"upstream": "up1"}, {"upstream": "up2"}, {"upstream": "up3"}], "affinity": "session"}


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"x-claude-code-session-id": "S"}, {}),
        ({"session-id": "S"}, {}),
        ({"x-session-affinity": "S", "thread-id": "other"}, {}),
        ({"x-opencode-session": "S"}, {}),
        ({}, {"prompt_cache_key": "S"}),
        ({}, {"session_id": "S"}),
        ({}, {}),
    ],
    ids=["claude code", "codex", "affinity", "opencode", "cache key", "openrouter", "prefix"],
)
async def test_a_session_stays_with_one_upstream(headers: dict[str, str], fields: dict[str, Any]) -> None:
    """Whatever each request begins with, but for one that names no session."""
    async with DemoUpstream() as one, DemoUpstream() as two, DemoUpstream() as three:
        upstreams = (one, two, three)
        async with whole_gateway(*[each.base_url for each in upstreams], model=ROUTES) as gateway:
            said = "the same" if not (headers or fields) else "number {}"
            for number in range(12):
                messages = [{"role": "user", "content": said.format(number)}]
                assert (await gateway.chat(headers=headers, messages=messages, **fields)).status == 200
            assert sorted(each.truth.total.requests for each in upstreams) == [0, 0, 12]
            sessions = {json.dumps({**headers, **fields}).replace('"S"', f'"session {n}"') for n in range(12)}
            for session in sessions if headers else ():
                assert (await gateway.chat(headers=json.loads(session))).status == 200
            assert not headers or min(each.truth.total.requests for each in upstreams) > 0


async def test_session_agent_and_turn_are_in_the_log() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        for headers, logged in [
            ({"x-claude-code-session-id": "s", "x-claude-code-agent-id": "a"}, ("s", "a", None)),
            ({"session-id": "s", "x-codex-turn-metadata": '{"turn_id": "t", "x": 1}'}, ("s", None, "t")),
            (
                {"thread-id": "s", "x-openai-subagent": "review", "x-codex-turn-metadata": "not json"},
                ("s", "review", None),
            ),
            ({"x-opencode-session": "s" * 999, "x-opencode-request": "t"}, ("s" * 200, None, "t")),
        ]:
            assert (await gateway.chat(headers=headers)).status == 200
            await gateway.ended()
            line = gateway.lines[-1]
            assert tuple(line.get(name) for name in ("session", "agent", "turn")) == logged


async def test_claude_codes_query_reaches_the_upstream_and_its_key_does_not() -> None:
    async with DemoUpstream() as upstream, hand_upstream() as other, whole_gateway(other.base_url) as gateway:
        body = json.dumps(MESSAGES.body()).encode()
        headers = {"x-api-key": KEY}
        asking = asyncio.ensure_future(
            gateway.request("POST", "/v1/messages?beta=true&api_key=k&model=x", data=body, headers=headers)
        )
        turn = await other.asked()
        assert turn.request_line == "POST /v1/messages?beta=true HTTP/1.1"
        turn.answer(b"{}")
        await asking
        assert upstream.truth.total.requests == 0


async def test_every_line_of_an_answers_header_reaches_the_client() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.ensure_future(gateway.chat())
        turn = await upstream.asked()
        turn.say(
            b"HTTP/1.1 429 No\r\nrequest-id: req_1\r\nx-should-retry: true\r\nretry-after-ms: 300\r\n"
            b"openai-model: a\r\nx-codex-flag: one\r\nOpenAI-Model: b\r\nx-codex-flag: two\r\n"
            b"retry-after: 9\r\nretry-after: 3\r\nset-cookie: c\r\ncontent-length: 2\r\n\r\n{}"
        )
        reply = await asking
        lines = {name: reply.headers.getall(name, []) for name in ("openai-model", "x-codex-flag", "retry-after")}  # type: ignore[attr-defined]  # aiohttp's have it.
        assert lines == {"openai-model": ["a", "b"], "x-codex-flag": ["one", "two"], "retry-after": ["3"]}
        assert (reply.headers["request-id"], reply.headers["retry-after-ms"]) == ("req_1", "300")
        assert reply.headers["x-should-retry"] == "true"
        assert "set-cookie" not in reply.headers


@pytest.mark.parametrize(
    ("api", "fields", "words"),
    [
        (RESPONSES, {"background": True}, "an answer that is made later cannot be metered"),
        (RESPONSES, {"max_output_tokens": -1}, "Leave it out, if you do not want to limit the answer."),
        (MESSAGES, {"max_tokens": 0}, "Send how many tokens the answer may have at most; this API requires it."),
    ],
)
async def test_what_is_refused_says_what_to_do(api: Any, fields: dict[str, Any], words: str) -> None:
    async with whole_gateway("http://127.0.0.1:1/v1") as gateway:
        reply = await api.ask(gateway, **fields)
        assert reply.status == 400
        assert words in reply.json["error"]["message"]


async def test_a_clients_default_output_above_a_teams_rate_is_served() -> None:
    """Claude Code asks for 128,000 tokens, whatever it needs."""
    team = {"limits": [{"tokens": 100_000, "per": "minute"}, {"tokens": 50_000, "per": "day"}]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        for _ in range(3):
            reply = await MESSAGES.ask(gateway, max_tokens=128_000)
            assert reply.status == 200
        cap = int(reply.headers["x-quota-output-cap"])
        assert json.loads(upstream.truth.requests[-1].body)["max_tokens"] == cap < 50_000


async def test_a_model_with_a_space_in_its_name_is_served() -> None:
    name = "qwen 2.5 (instruct)/q4"
    models = {name: {"routes": [{"upstream": "up1"}]}}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, models=models) as gateway:
        assert (await gateway.post(json.dumps(chat_body(model=name)).encode())).status == 200
        assert name != MODEL
