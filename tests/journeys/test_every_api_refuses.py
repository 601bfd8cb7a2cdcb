"""Every API: what is refused, and what breaks, is told in the API's own shape, and nothing is forwarded ungoverned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.endpoints import ENDPOINTS, Dialect, Endpoint
from gateway.demo import DemoScript, DemoUpstream
from tests.apis import (
    APIS,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGES,
    MESSAGES,
    MODERATIONS,
    RERANK,
    RESPONSES,
    SMALL_APIS,
    SPEAKING,
    SPEECH,
    Api,
    SmallestRequest,
    error_event,
    name_of,
    told_error,
)
from tests.whole_gateway import KEY, MODEL, Json, Reply, WholeGateway, whole_gateway

NOT_THE_TYPE = "invalid_request_error"
LONG = "x" * 600


async def send(gateway: WholeGateway, api: Api, body: bytes) -> Reply:
    return await gateway.post(body, path=api.path)


@pytest.mark.parametrize("api", APIS, ids=name_of)
@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'"text"', b'{"model":"a","model":"b"}', b'{"model":"\xff"}', b"[" * 100_000]
)
async def test_a_body_that_is_not_one_json_object_is_refused(api: Api, body: bytes) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await send(gateway, api, body)
        error = told_error(api, reply)
        assert (reply.status, error["code"], error["type"]) == (400, "invalid_json", NOT_THE_TYPE)
        assert upstream.truth.total.requests == 0


@pytest.mark.parametrize("api", APIS, ids=name_of)
@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
    ],
)
async def test_a_field_that_every_api_has_is_named_where_it_is_wrong(
    api: Api, changes: dict[str, Any], param: str
) -> None:
    await _assert_named(api, changes, param)


@pytest.mark.parametrize(
    ("api", "changes", "param"),
    [
        (COMPLETIONS, {"prompt": []}, "prompt"),
        (COMPLETIONS, {"prompt": {}}, "prompt"),
        (COMPLETIONS, {"prompt": [{"text": ""}]}, "prompt[0]"),
        (COMPLETIONS, {"max_tokens": -1}, "max_tokens"),
        (COMPLETIONS, {"temperature": 2.1}, "temperature"),
        (COMPLETIONS, {"best_of": 0}, "best_of"),
        (COMPLETIONS, {"stop": ["a"] * 5}, "stop"),
        (COMPLETIONS, {"user": LONG}, "user"),
        (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens"),
        (RESPONSES, {"max_output_tokens": "9"}, "max_output_tokens"),
        (RESPONSES, {"temperature": -1}, "temperature"),
        (RESPONSES, {"top_p": 1.1}, "top_p"),
        (RESPONSES, {"background": True}, "background"),
        (RESPONSES, {"background": "true"}, "background"),
        (RESPONSES, {"safety_identifier": LONG}, "safety_identifier"),
        (MESSAGES, {"messages": None}, "messages"),
        (MESSAGES, {"messages": []}, "messages"),
        (MESSAGES, {"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
        (MESSAGES, {"messages": [{"content": ""}]}, "messages[0].role"),
        (MESSAGES, {"max_tokens": None}, "max_tokens"),
        (MESSAGES, {"max_tokens": 0}, "max_tokens"),
        (MESSAGES, {"temperature": 1.1}, "temperature"),
        (MESSAGES, {"metadata": {"user_id": LONG}}, "metadata.user_id"),
        (EMBEDDINGS, {"input": None}, "input"),
        (EMBEDDINGS, {"input": []}, "input"),
        (EMBEDDINGS, {"input": 1.5}, "input"),
        (MODERATIONS, {"input": 5}, "input"),
        (RERANK, {"query": None}, "query"),
        (RERANK, {"documents": []}, "documents"),
        (RERANK, {"documents": 5}, "documents"),
        (IMAGES, {"prompt": ""}, "prompt"),
        (IMAGES, {"n": 11}, "n"),
        (SPEECH, {"input": ""}, "input"),
        (SPEECH, {"input": ["a"]}, "input"),
    ],
    ids=name_of,
)
async def test_a_field_out_of_its_rule_is_named(api: Api, changes: dict[str, Any], param: str) -> None:
    await _assert_named(api, changes, param)


async def _assert_named(api: Api, changes: dict[str, Any], param: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await api.ask(gateway, **changes)
        error = told_error(api, reply)
        assert (reply.status, error["code"], error["param"], error["type"]) == (
            400,
            "invalid_value",
            param,
            NOT_THE_TYPE,
        )
        assert param in error["message"]
        assert (await gateway.ledger()).requests == 0
        assert upstream.truth.total.requests == 0


@pytest.mark.parametrize("api", APIS, ids=name_of)
async def test_a_refusal_has_the_types_of_its_api(api: Api) -> None:
    """Anthropic's types by status; elsewhere OpenAI's, which its libraries sort by."""
    anthropic = api is MESSAGES
    team: Json = {"limits": [{"requests": 1, "per": "day"}]}
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url, team=team, max_body="4KiB") as gateway,
    ):
        told = {
            401: await api.ask(gateway, key="gw_wrong"),
            404: await api.ask(gateway, model="absent"),
            405: await gateway.request("GET", api.path, headers={"authorization": f"Bearer {KEY}"}),
            413: await api.ask(gateway, pad="x" * 5_000),
            200: await api.ask(gateway),
            429: await api.ask(gateway),
        }
        assert {status: reply.status for status, reply in told.items()} == {status: status for status in told}
        assert upstream.truth.total.requests == 1
    errors = {status: told_error(api, reply) for status, reply in told.items() if status != 200}
    assert {status: (error["code"], error["type"]) for status, error in errors.items()} == {
        401: ("invalid_api_key", "authentication_error" if anthropic else NOT_THE_TYPE),
        404: ("model_not_found", "not_found_error" if anthropic else NOT_THE_TYPE),
        405: ("method_not_allowed", NOT_THE_TYPE),
        413: ("request_too_large", "request_too_large" if anthropic else NOT_THE_TYPE),
        429: ("insufficient_quota", "billing_error" if anthropic else "insufficient_quota"),
    }
    assert told[429].json["limit"]["meter"] == "requests"
    assert told[429].headers["x-should-retry"] == "false"
    assert told[401].headers["x-should-retry"] == "false"


@pytest.mark.parametrize("api", APIS, ids=name_of)
@pytest.mark.parametrize(
    ("script", "status", "code", "kind"),
    [
        ({"halt": "reset", "halt_at": "before_headers"}, 502, "upstream_unreachable", "api_error"),
        ({"halt": "hang", "halt_at": "before_headers"}, 504, "upstream_timeout", "timeout_error"),
        ({"status": 401}, 502, "upstream_auth_failed", "api_error"),
    ],
)
async def test_a_failure_of_the_upstream_has_the_shape_of_its_api(
    api: Api, script: dict[str, Any], status: int, code: str, kind: str
) -> None:
    async with DemoUpstream(DemoScript(**script)) as upstream:
        upstreams = {"up1": {"base_url": upstream.base_url, "timeouts": {"first_byte": "50ms"}}}
        async with whole_gateway(upstream.base_url, upstreams=upstreams) as gateway:
            reply = await api.ask(gateway)
            error = told_error(api, reply)
            assert (reply.status, error["code"]) == (status, code)
            assert error["type"] == (kind if api is MESSAGES else "server_error")
            assert (await gateway.ledger()).requests == 0


@pytest.mark.parametrize("api", APIS, ids=name_of)
@pytest.mark.parametrize("status", [400, 422, 500, 529])
async def test_an_error_of_the_upstream_passes_as_it_is(api: Api, status: int) -> None:
    async with DemoUpstream(DemoScript(status=status)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await api.ask(gateway)
        assert reply.status == status
        assert f"answers with {status}" in reply.json["error"]["message"]
        assert reply.json.get("type") == ("error" if api is MESSAGES else None)
        assert (await gateway.ledger()).requests == 0


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
@pytest.mark.parametrize("halt_at", ["between_events", "inside_event", "inside_framing"])
@pytest.mark.parametrize(
    ("halt", "code", "kind"), [("reset", "upstream_broke", "api_error"), ("hang", "upstream_timeout", "timeout_error")]
)
async def test_a_stream_that_breaks_ends_with_the_error_event_of_its_api(
    api: Api, halt_at: str, halt: str, code: str, kind: str
) -> None:
    script = DemoScript(chunks=7, halt=halt, halt_at=halt_at, halt_after=4)  # type: ignore[arg-type]
    async with DemoUpstream(script) as upstream:
        upstreams = {"up1": {"base_url": upstream.base_url, "timeouts": {"idle": "50ms"}}}
        async with whole_gateway(upstream.base_url, upstreams=upstreams) as gateway:
            reply = await api.ask(gateway, stream=True)
            assert (reply.status, reply.broken) == (200, True)
            *whole, last, nothing = reply.body.split(b"\n\n")
            assert nothing == b""
            assert len(whole) == 4
            error = error_event(api, last + b"\n\n")
            assert error["code"] == code
            assert error.get("type", kind) == (kind if api in (MESSAGES, RESPONSES) else "server_error")
            assert b"[DONE]" not in reply.body
            usage = (await gateway.ended()).usage
            assert usage is not None
            assert (await gateway.ledger()).requests == 1


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_an_error_event_of_the_upstream_passes_and_counts_as_a_failure(api: Api) -> None:
    async with (
        DemoUpstream(DemoScript(chunks=8, error_after=5)) as upstream,
        whole_gateway(upstream.base_url) as gateway,
    ):
        reply = await api.ask(gateway, stream=True)
        assert (reply.status, reply.broken) == (200, False)
        assert b"The demo upstream's script breaks here." in reply.body
        exchange = await gateway.ended()
        assert exchange.tally is not None
        assert exchange.tally.failed


async def test_a_response_that_fails_is_no_answer_and_counts_as_a_failure() -> None:
    created = 'event: response.created\ndata: {"type":"response.created","response":{"status":"in_progress"}}\n\n'
    failed = (
        'event: response.failed\ndata: {"type":"response.failed","response":{"status":"failed","error":'
        '{"code":"server_error","message":"no"},"usage":null}}\n\n'
    )
    async with DemoUpstream(DemoScript(body=created + failed)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await RESPONSES.ask(gateway, stream=True)
        assert reply.body.decode() == created + failed
        exchange = await gateway.ended()
        assert exchange.tally is not None
        assert exchange.tally.failed


async def test_what_would_be_answered_later_is_refused_since_nobody_could_meter_it() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        assert (await RESPONSES.ask(gateway, background=True)).status == 400
        assert (await RESPONSES.ask(gateway, background=False)).status == 200
        assert (await RESPONSES.ask(gateway, background=None)).status == 200
        assert upstream.truth.total.requests == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/complete"),
        ("POST", "/v1/files"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("POST", "/v1/assistants"),
        ("POST", "/v1/threads"),
        ("POST", "/v1/uploads"),
        ("GET", "/v1/realtime"),
        ("POST", "/v1/images"),
        ("POST", "/v1/audio"),
        ("POST", "/v3/rerank"),
        ("POST", "/v1/EMBEDDINGS"),
        ("POST", "/v1/embeddings/"),
        ("POST", "/v1/engines/ada/embeddings"),
        ("POST", "/openai/deployments/gpt/files"),
        ("POST", "/openai/deployments//chat/completions"),
        ("GET", "/metrics"),
        ("POST", "/admin/v1/reload"),
    ],
)
async def test_a_path_that_is_not_in_the_table_forwards_nothing(method: str, path: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        body = json.dumps({"model": MODEL, "messages": [{"role": "user"}], "input": "text"}).encode()
        reply = await gateway.request(method, path, data=body, headers={"authorization": f"Bearer {KEY}"})
        assert (reply.status, reply.error["code"]) == (404, "unknown_url")
        assert upstream.truth.total.requests == 0
        assert upstream.truth.connections_made == 0


def test_every_row_of_the_table_is_tried_here_or_in_a_file_of_its_own() -> None:
    elsewhere = {path for path, row in ENDPOINTS.items() if row.takes_form or row.dialect is Dialect.GEMINI}
    assert {api.path for api in (*APIS, *SMALL_APIS)} == ENDPOINTS.keys() - elsewhere


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.name)
async def test_no_endpoint_evades_a_limit(endpoint: Endpoint) -> None:
    team = {"limits": [{"requests": 1, "per": "day"}]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        asked = SmallestRequest.of(endpoint)
        headers = {"content-type": asked.content_type}
        replies = [await gateway.post(asked.body, path=asked.path, headers=headers) for _ in range(2)]
        assert [reply.status for reply in replies] == [200, 429]
        assert upstream.truth.total.requests == 1
