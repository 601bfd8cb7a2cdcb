"""Programs that no test can run: the requests that their source writes, sent as they are.

`FOLLOWED` says which version of each was read; its page says the same. A request has the headers that the program sets
itself and the fields of a usual turn. n8n and LibreChat write theirs by LangChain and OpenAI's SDK for Node.js, whose
headers are here; Cursor's source is closed, and its requests are what its users saw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.clients.programs.pages import FOLDER
from tests.whole_gateway import KEY, MODEL, whole_gateway

FOLLOWED = {
    "vscode-copilot": "microsoft/vscode at 00812842cec9",
    "open-webui": "Open WebUI 0.12.4",
    "librechat": "danny-avila/LibreChat at 023696c5d97c",
    "n8n": "n8n 2.41",
    "dify": "`dify_plugin` 0.7.4",
    "cursor": "its users",
}
BROWSER = "https://chat.example.com"
PERSON = "ada@example.com"
ASKS_USAGE = b',"stream_options":{"include_usage":true}'
JSON = {"content-type": "application/json"}
STAINLESS = {
    "accept": "application/json",
    "user-agent": "OpenAI/JS 6.46.0",
    "x-stainless-retry-count": "0",
    "x-stainless-lang": "js",
    "x-stainless-package-version": "6.46.0",
    "x-stainless-runtime": "node",
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA}}]
HELLO = {"role": "user", "content": "Say hello."}
USAGE = {"include_usage": True}


class ProgramRequest(NamedTuple):
    """`called` says what the program is at."""

    called: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    path: str = "/v1/chat/completions"

    def __str__(self) -> str:
        return self.called


VSCODE = {
    **JSON,
    "user-agent": "GitHubCopilotChat/0.60.0",
    "x-request-id": "0b9a2f0c-6a53-4b0e-9d5b-6a4f6a1f1c11",
    "openai-intent": "conversation-agent",
    "x-github-api-version": "2026-01-09",
    "x-interaction-type": "conversation-agent",
    "x-agent-task-id": "0b9a2f0c-6a53-4b0e-9d5b-6a4f6a1f1c11",
}
OPEN_WEBUI = {
    **JSON,
    "x-openwebui-user-name": "Ada%20Lovelace",
    "x-openwebui-user-id": "0b9a2f0c-6a53-4b0e-9d5b-6a4f6a1f1c11",
    "x-openwebui-user-email": PERSON,
    "x-openwebui-user-role": "user",
    "x-openwebui-chat-id": "6a4f6a1f-6a53-4b0e-9d5b-0b9a2f0c1c11",
}
LIBRECHAT = {**JSON, **STAINLESS, "x-librechat-user": PERSON}
DIFY = {**JSON, "accept": "*/*", "user-agent": "python-requests/2.32.5"}

REQUESTS = (
    ProgramRequest(
        "vscode-copilot: a turn of its agent",
        VSCODE,
        {
            "messages": [{"role": "system", "content": "You help."}, HELLO],
            "model": MODEL,
            "temperature": 0.1,
            "top_p": 1,
            "n": 1,
            "stream": True,
            "tools": TOOLS,
            "stream_options": USAGE,
        },
    ),
    ProgramRequest(
        "vscode-copilot: a turn by Messages",
        {**VSCODE, "x-api-key": KEY, "anthropic-version": "2023-06-01"},
        {"model": MODEL, "messages": [HELLO], "max_tokens": 32, "stream": True},
        "/v1/messages",
    ),
    ProgramRequest(
        "open-webui: a chat",
        OPEN_WEBUI,
        {"stream": True, "model": MODEL, "messages": [HELLO], "stream_options": USAGE, "tools": TOOLS},
    ),
    ProgramRequest(
        "open-webui: a chat without usage", OPEN_WEBUI, {"stream": True, "model": MODEL, "messages": [HELLO]}
    ),
    ProgramRequest(
        "open-webui: a title",
        OPEN_WEBUI,
        {"model": MODEL, "messages": [HELLO], "stream": False, "max_completion_tokens": 1000},
    ),
    ProgramRequest(
        "librechat: a turn of an agent",
        LIBRECHAT,
        {
            "model": MODEL,
            "stream": True,
            "user": "665f1c0b9a2f0c6a534b0e9d",
            "stream_options": USAGE,
            "tools": TOOLS,
            "messages": [{"role": "system", "content": "You help."}, HELLO],
        },
    ),
    ProgramRequest(
        "n8n: a chat model's node",
        {**JSON, **STAINLESS},
        {
            "model": MODEL,
            "temperature": 0.7,
            "frequency_penalty": 0,
            "stream": False,
            "tools": TOOLS,
            "messages": [HELLO],
        },
    ),
    ProgramRequest(
        "n8n: a chat model's node by Responses",
        {**JSON, **STAINLESS},
        {"model": MODEL, "input": [{"type": "message", **HELLO}], "stream": False, "prompt_cache_key": "n8n"},
        "/v1/responses",
    ),
    ProgramRequest(
        "dify: saving a model",
        DIFY,
        {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "ping"}]},
    ),
    ProgramRequest(
        "dify: a turn of an agent",
        {**DIFY, "accept-charset": "utf-8"},
        {
            "model": MODEL,
            "stream": True,
            "temperature": 0.7,
            "max_tokens": 512,
            "messages": [HELLO],
            "tool_choice": "auto",
            "tools": TOOLS,
            "stop": ["Observation"],
            "user": "665f1c0b",
        },
    ),
    ProgramRequest(
        "cursor: a chat",
        JSON,
        {
            "model": MODEL,
            "temperature": 0,
            "user": "a-hash",
            "messages": [HELLO],
            "stream": True,
            "stream_options": USAGE,
        },
    ),
)


@pytest.mark.parametrize("asked", REQUESTS, ids=str)
async def test_a_request_of_it_is_answered_and_reaches_the_upstream_untouched(asked: ProgramRequest) -> None:
    async with DemoUpstream(DemoScript(chunks=3)) as upstream, whole_gateway(upstream.base_url) as gateway:
        body = json.dumps(asked.body, separators=(",", ":")).encode()
        reply = await gateway.post(body, path=asked.path, headers=asked.headers)
        assert reply.status == 200, reply.body
        (received,) = upstream.truth.requests
        assert received.body.replace(ASKS_USAGE, b"") == body.replace(ASKS_USAGE, b"")
        assert (await gateway.ledger()).output == 3
        if asked.body.get("stream") and asked.path == "/v1/chat/completions":
            assert reply.events[-1] == "[DONE]"
            assert [event for event in reply.events[:-1] if json.loads(event).get("usage")]


@pytest.mark.parametrize(
    ("called", "path", "headers"),
    [
        ("open-webui", "/v1/models", OPEN_WEBUI),
        ("vscode-copilot", "/v1/models", JSON),
        ("librechat", "/v1/models", {"x-librechat-user": PERSON}),
        ("n8n", "/v1/models", {"openai-organization": ""}),
        ("dify", "/v1/models", DIFY),
    ],
)
async def test_it_lists_the_models_of_the_key(called: str, path: str, headers: Mapping[str, str]) -> None:
    async with whole_gateway("http://127.0.0.1:1/v1") as gateway:
        known = await gateway.request("GET", path, headers={**headers, "authorization": f"Bearer {KEY}"})
        assert [model["id"] for model in known.json["data"]] == [MODEL]
        refused = await gateway.request("GET", path, headers={**headers, "authorization": "Bearer gw_mistyped"})
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")


async def test_open_webuis_page_asks_from_the_browser() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=3)) as upstream,
        whole_gateway(upstream.base_url, cors={"origins": [BROWSER]}) as gateway,
    ):
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
            before = {
                "origin": BROWSER,
                "access-control-request-method": method,
                "access-control-request-headers": "authorization,content-type",
            }
            preflight = await gateway.request("OPTIONS", path, headers=before)
            assert preflight.status == 204
            assert preflight.headers["access-control-allow-origin"] == BROWSER
            assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
        reply = await gateway.chat(headers={"origin": BROWSER}, stream=True)
        assert reply.headers["access-control-allow-origin"] == BROWSER
        assert reply.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("header", "headers"), [("x-openwebui-user-email", OPEN_WEBUI), ("x-librechat-user", LIBRECHAT)]
)
async def test_each_person_behind_it_has_a_limit_of_their_own(header: str, headers: Mapping[str, str]) -> None:
    team = {"end_user": {"header": header}, "user_limits": [{"requests": 1, "per": "day"}]}
    async with DemoUpstream(DemoScript(chunks=3)) as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        replies = [
            await gateway.chat(headers={**headers, header: person}) for person in (PERSON, PERSON, "bob@example.com")
        ]
        assert [reply.status for reply in replies] == [200, 429, 200]
        assert replies[1].json["limit"]["scope"] == "user"


async def test_cursors_body_of_responses_at_chat_completions_is_refused_with_the_field_that_it_lacks() -> None:
    async with whole_gateway("http://127.0.0.1:1/v1") as gateway:
        body = {"model": MODEL, "user": "a-hash", "input": [HELLO], "stream": True, "store": False}
        reply = await gateway.post(json.dumps(body).encode())
        assert (reply.status, reply.error["param"]) == (400, "messages")


@pytest.mark.parametrize("name", FOLLOWED)
def test_its_page_says_what_it_follows(name: str) -> None:
    assert any(asked.called.startswith(name) for asked in REQUESTS)
    assert FOLLOWED[name] in (FOLDER / f"{name}.md").read_text(encoding="utf-8")
