"""A client at the edge: it asks what this is, which models there are, in whose spelling, and from where it may ask."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.app.snapshot_builder import loaded_snapshot
from gateway.core.usage import Usage
from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import hand_upstream
from tests.raw_client import http_chat, http_head, raw_client
from tests.whole_gateway import KEY, MODEL, chat_body, configuration, key_settings, settings_of, whole_gateway

BEARER = {"authorization": f"Bearer {KEY}"}
PAGE = "https://chat.example.com"
NOWHERE = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize("path", ["/chat/completions", "/openai/v1/chat/completions", "/openai/chat/completions"])
async def test_a_path_without_its_version_is_the_same_endpoint(path: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        assert (await gateway.post(json.dumps(chat_body()).encode(), path=path)).status == 200
        assert upstream.truth.requests[0].path == "/v1/chat/completions"
        assert gateway.lines[-1]["endpoint"] == "chat.completions"


async def test_an_action_of_geminis_api_that_is_not_served_is_an_unknown_path_and_no_model_to_get() -> None:
    async with whole_gateway(NOWHERE) as gateway:
        for action, status in ((":predict", 404), (":batchGenerateContent", 404), ("", 405)):
            reply = await gateway.post(b"{}", path=f"/v1beta/models/{MODEL}{action}")
            assert (reply.status, reply.error["code"]) == (status, status)
            reason = reply.error["details"][0]["reason"]
            assert reason == ("unknown_url" if action else "method_not_allowed")
            is_named = "is a path of Gemini's API that this gateway does not serve" in reply.error["message"]
            assert is_named is bool(action)


@pytest.mark.parametrize("sent", [{}, {"model": "another"}, {"model": MODEL}])
async def test_a_deployment_names_the_model_that_is_judged_and_served(sent: dict[str, str]) -> None:
    """The body's own model counts for nothing, even where the key may not use it."""
    models = {MODEL: {"routes": [{"upstream": "up1"}]}, "another": {"routes": [{"upstream": "up1"}]}}
    team = {"models": ["openai/*"], "keys": [key_settings()]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, models=models, team=team) as gateway:
        body = {**sent, "messages": [{"role": "user", "content": "Say hello."}]}
        path = f"/openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21"
        reply = await gateway.post(json.dumps(body).encode(), path=path, headers={"api-key": KEY})
        assert reply.status == 200
        assert json.loads(upstream.truth.requests[0].body) == {**body, "model": MODEL}
        assert (await gateway.ledger()).requests == 1
        refused = await gateway.post(json.dumps({**body, "model": MODEL}).encode(), path=path.replace(MODEL, "another"))
        assert (refused.status, refused.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("sent", [b"", b"another", MODEL.encode()])
async def test_a_deployment_names_the_model_of_a_form(sent: bytes) -> None:
    field = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n%b\r\n'
    file = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        path = f"/openai/deployments/{MODEL}/audio/transcriptions"
        headers = {"content-type": "multipart/form-data; boundary=b"}
        body = (field % sent if sent else b"") + file
        assert (await gateway.post(body, path=path, headers=headers)).status == 200
        received = upstream.truth.requests[0].body
        assert received.count(b'name="model"') == 1
        assert b'name="model"\r\n\r\n%b\r\n' % MODEL.encode() in received
        assert b"\r\n\r\nRIFF\r\n" in received


async def test_head_is_get_without_the_body() -> None:
    async with whole_gateway(NOWHERE) as gateway, raw_client(gateway.port) as client:
        for path, status in (
            ("/v1/models", 200),
            ("/v1/limits", 200),
            ("/v1/usage", 200),
            ("/healthz", 200),
            ("/", 200),
            ("/nothing", 404),
        ):
            got = await gateway.request("GET", path, headers={**BEARER, "host": "gateway"})
            client.send(http_head(f"HEAD {path} HTTP/1.1", {"host": "gateway", **BEARER}))
            shown, headers = await client.head()
            assert (shown, headers["content-type"]) == (status, got.headers["content-type"])


async def test_a_callers_limits_are_those_of_any_of_its_requests_and_bind_no_model_that_it_does_not_ask_for() -> None:
    """A binding for each of its models would take the place of those that requests use."""
    routes = {"routes": [{"upstream": "up1"}]}
    models = {
        "free": {**routes, "limits": [{"requests": 7, "per": "hour"}]},
        "other": {**routes, "limits": [{"requests": 8, "per": "hour"}]},
    }
    team = {
        "models": ["free"],
        "limits": [{"tokens": 9, "per": "day"}, {"concurrent": 3, "models": ["fr*"]}],
        "key_limits": [{"requests": 5, "per": "day"}],
    }
    organisation = [
        {"requests": 100, "per": "second"},
        {"requests": 6, "per": "day", "models": ["other"], "name": "of-another-model"},
    ]
    async with whole_gateway(NOWHERE, models=models, team=team, limits=organisation) as gateway:
        listed = (await gateway.request("GET", "/v1/limits", headers=BEARER)).json["data"]
        assert [(limit["scope"], limit["meter"], limit["amount"]) for limit in listed] == [
            ("organisation", "requests", 100),
            ("team", "tokens", 9),
            ("team", "concurrent", 3),
            ("key", "requests", 5),
            ("model", "requests", 7),
        ]
        assert gateway.gateway.services.snapshot.bindings == {}


async def test_a_load_balancer_needs_no_key_and_leaves_no_trace() -> None:
    async with whole_gateway(NOWHERE) as gateway:
        assert (await gateway.request("GET", "/healthz")).json == {"status": "ok"}
        assert gateway.lines == []
        gateway.gateway._data.closing = True
        reply = await gateway.request("GET", "/healthz")
        assert (reply.status, reply.error["code"]) == (503, "shutting_down")


async def test_a_browser_and_a_program_learn_which_base_url_each_client_needs() -> None:
    async with whole_gateway(NOWHERE) as gateway:
        at = f"http://127.0.0.1:{gateway.port}"
        told = await gateway.request("GET", "/")
        assert told.json["base_urls"] == {
            "openai": f"{at}/v1",
            "anthropic": at,
            "azure_openai": at,
            "gemini": at,
        }
        page = await gateway.request("GET", "/", headers={"accept": "Text/HTML,*/*"})
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert f"<code>{at}/v1</code>" in page.body.decode()
        assert not any(secret in page.body.decode() + told.body.decode() for secret in (MODEL, KEY, NOWHERE))


async def test_models_are_listed_with_their_sizes() -> None:
    model = {"context_window": 131_072, "max_output_tokens": 32_768}
    async with whole_gateway(NOWHERE, model=model) as gateway:
        (listed,) = (await gateway.request("GET", "/v1/models", headers=BEARER)).json["data"]
        assert {name: listed[name] for name in model} == model
        assert (await gateway.request("GET", f"/v1/models/{MODEL}", headers=BEARER)).json == listed


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ("", "abcde", False),
        ("?limit=1000", "abcde", False),
        ("?limit=2", "ab", True),
        ("?limit=2&after_id=b", "cd", True),
        ("?limit=2&after_id=c", "de", False),
        ("?after_id=e", "", False),
        ("?limit=2&before_id=d", "bc", True),
        ("?limit=9&before_id=c", "ab", False),
    ],
)
async def test_anthropics_clients_page_through_the_models(query: str, ids: str, has_more: bool) -> None:
    models = {name: {"routes": [{"upstream": "up1"}]} for name in "abcde"}
    async with whole_gateway(NOWHERE, models=models) as gateway:
        headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        told = (await gateway.request("GET", f"/v1/models{query}", headers=headers)).json
        assert ["".join(row["id"] for row in told["data"]), told["has_more"]] == [ids, has_more]
        assert (told["first_id"], told["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        assert {row["type"] for row in told["data"]} <= {"model"}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "after_id=absent"])
async def test_a_wrong_parameter_of_the_list_is_refused_in_anthropics_shape(query: str) -> None:
    async with whole_gateway(NOWHERE) as gateway:
        headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        reply = await gateway.request("GET", f"/v1/models?{query}", headers=headers)
        assert (reply.status, reply.json["type"], reply.error["type"]) == (400, "error", "invalid_request_error")


@pytest.mark.parametrize(
    ("headers", "shape"),
    [
        ({}, {"type": "invalid_request_error", "code": "unknown_url"}),
        ({"anthropic-version": "2023-06-01"}, {"type": "not_found_error"}),
        ({"x-goog-api-key": KEY}, {"code": 404, "status": "NOT_FOUND"}),
    ],
)
async def test_an_unknown_path_is_refused_in_the_shape_of_the_clients_api(
    headers: dict[str, str], shape: dict[str, Any]
) -> None:
    async with whole_gateway(NOWHERE) as gateway:
        reply = await gateway.request("POST", "/v1/absent?key=secret", headers={"user-agent": "x", **headers})
        assert reply.status == 404
        assert {name: reply.error[name] for name in shape} == shape
        line = gateway.lines[-1]
        assert (line["endpoint"], line["method"], line["path"]) == ("", "POST", "/v1/absent")
        assert (line["client_ip"], line["user_agent"]) == ("127.0.0.1", "x")


@pytest.mark.parametrize("path", ["/v1/responses", "/openai/v1/realtime?model=m", "/responses", "/v1/absent", "/"])
@pytest.mark.parametrize(
    ("connection", "upgrade"),
    [("Upgrade", "websocket"), ("keep-alive, upgrade", "WebSocket"), ("upgrade", "h2c, websocket")],
)
async def test_an_upgrade_to_websocket_is_refused_at_once_without_a_key(
    path: str, connection: str, upgrade: str
) -> None:
    async with whole_gateway(NOWHERE) as gateway, raw_client(gateway.port) as client:
        head = {"host": "gateway", "connection": connection, "upgrade": upgrade, "sec-websocket-version": "13"}
        client.send(http_head(f"GET {path} HTTP/1.1", head))
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (426, "upgrade_required")
        assert (reply.headers["upgrade"], reply.headers["connection"]) == ("HTTP/1.1", "upgrade, close")
        assert await client.rest() == b""


async def test_an_upgrade_to_http_2_is_ignored() -> None:
    async with whole_gateway(NOWHERE) as gateway, raw_client(gateway.port) as client:
        upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABk"}
        client.send(http_head("GET /v1/models HTTP/1.1", {"host": "gateway", **BEARER, **upgrade}))
        assert (await client.answer()).status == 200


async def test_a_web_page_of_a_configured_origin_may_call() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=3)) as upstream,
        whole_gateway(upstream.base_url, cors={"origins": [PAGE]}) as gateway,
    ):
        asked = {
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        preflight = await gateway.request("OPTIONS", "/v1/chat/completions", headers=asked)
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert preflight.headers["access-control-allow-headers"] == "authorization"
        plain, stream, refused = (
            await gateway.chat(headers={"origin": PAGE}),
            await gateway.chat(headers={"origin": PAGE}, stream=True),
            await gateway.chat(headers={"origin": PAGE}, key="wrong"),
        )
        assert [reply.status for reply in (plain, stream, refused)] == [200, 200, 401]
        for reply in (plain, stream, refused):
            assert reply.headers["access-control-allow-origin"] == PAGE
            assert "x-ratelimit-remaining-tokens" in reply.headers["access-control-expose-headers"]
        assert all(request.header("origin") is None for request in upstream.truth.requests)


@pytest.mark.parametrize("cors", [{}, {"origins": [PAGE]}])
async def test_a_web_page_of_another_origin_gets_nothing(cors: dict[str, Any]) -> None:
    async with whole_gateway(NOWHERE, cors=cors) as gateway:
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        replies = [
            await gateway.request("OPTIONS", "/v1/chat/completions", headers=asked),
            await gateway.request("GET", "/v1/models", headers={**BEARER, "origin": "https://evil.example"}),
        ]
        assert [reply.status for reply in replies] == [405, 200]
        assert not [name for reply in replies for name in reply.headers if name.lower().startswith("access-control-")]


async def test_origins_are_reloaded() -> None:
    async with whole_gateway(NOWHERE) as gateway:
        settings = settings_of(configuration(NOWHERE, cors={"origins": [PAGE]}))
        gateway.gateway.swap(loaded_snapshot(settings))
        reply = await gateway.request("GET", "/v1/models", headers={**BEARER, "origin": PAGE})
        assert reply.headers["access-control-allow-origin"] == PAGE


async def test_a_coding_that_the_gateway_cannot_decode_passes_with_its_header() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat())
        turn = await upstream.asked()
        turn.say(b"HTTP/1.1 200 OK\r\ncontent-encoding: x-odd\r\ncontent-length: 5\r\n\r\n\x00\x01\x02\x03\x04")
        reply = await client.answer()
        assert (reply.headers["content-encoding"], reply.body) == ("x-odd", b"\x00\x01\x02\x03\x04")


async def test_a_coding_that_names_none_hides_no_usage() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat())
        turn = await upstream.asked()
        body = b'{"choices": [{"message": {"content": "Two."}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
        turn.say(b"HTTP/1.1 200 OK\r\ncontent-encoding: utf-8\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        reply = await client.answer()
        assert (reply.headers["content-encoding"], reply.body) == ("utf-8", body)
        assert (await gateway.ended()).usage == Usage(3, 2)


async def test_a_caller_sees_what_its_own_key_has_used_and_nothing_else() -> None:
    other = "gw_another-key-of-the-same-team-0123456789abcdef"
    keys = [{"name": "first", "key": KEY}, {"name": "second", "key": other}]
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team={"keys": keys}) as gateway:
        for key in (KEY, KEY, other):
            assert (await gateway.chat(key=key)).status == 200
            await gateway.ended()
        reply = await gateway.request("GET", "/v1/usage", headers=BEARER)
        (row,) = reply.json["rows"]
        assert (row["model"], row["requests"], reply.json["total"]["requests"]) == (MODEL, 2, 2)
        of_other = await gateway.request("GET", "/v1/usage?by=month", headers={"authorization": f"Bearer {other}"})
        assert of_other.json["total"]["requests"] == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("team=x", "team"),
        ("key=x", "key"),
        ("by=key", "by"),
        ("by=user", "by"),
        ("since=x", "since"),
        ("month=x", "month"),
        ("by=day&by=model", "by"),
    ],
)
async def test_a_caller_cannot_ask_for_the_usage_of_others(query: str, param: str) -> None:
    async with whole_gateway(NOWHERE) as gateway:
        reply = await gateway.request("GET", f"/v1/usage?{query}", headers=BEARER)
        assert (reply.status, reply.error["param"]) == (400, param)


async def test_a_caller_s_limits_have_no_parameters_that_could_be_taken_for_a_filter() -> None:
    async with whole_gateway(NOWHERE) as gateway:
        reply = await gateway.request("GET", "/v1/limits?team=another", headers=BEARER)
        assert (reply.status, reply.error["param"]) == (400, "team")
