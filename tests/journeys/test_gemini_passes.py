"""Gemini's API: the model and its method are in the path, the key may be in the query, a stream may be an array."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.core.usage import Usage
from tests.hand_upstream import HandUpstream, Turn, hand_upstream
from tests.raw_client import http_head, raw_client
from tests.whole_gateway import KEY, MODEL, Json, Reply, WholeGateway, whole_gateway

GOOGLE_KEY = {"x-goog-api-key": KEY, "content-type": "application/json"}
ASKED: Json = {"contents": [{"role": "user", "parts": [{"text": "How many moons has Mars?"}]}]}
REPORT: Json = {
    "promptTokenCount": 8,
    "cachedContentTokenCount": 5,
    "candidatesTokenCount": 6,
    "thoughtsTokenCount": 99,
    "totalTokenCount": 113,
}
USED = Usage(8, 105, cached_input=5, reasoning=99)


def piece(text: str, **more: Any) -> Json:
    return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}]}


def ended(text: str) -> Json:
    return {**piece(text, finishReason="STOP"), "usageMetadata": REPORT, "modelVersion": "gemini-x"}


def events(*chunks: Json) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(chunk).encode() for chunk in chunks)


def path(method: str, model: str = MODEL) -> str:
    return f"/v1beta/models/{model}:{method}"


@asynccontextmanager
async def gemini(**changes: Any) -> AsyncIterator[tuple[HandUpstream, WholeGateway]]:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        yield upstream, gateway


async def asked(
    upstream: HandUpstream,
    gateway: WholeGateway,
    method: str = "generateContent",
    body: bytes | Json = ASKED,
    *,
    answer: bytes = json.dumps(ended("Two.")).encode(),
    query: str = "",
    headers: Mapping[str, str] = GOOGLE_KEY,
) -> tuple[Turn, Reply]:
    """What reached the upstream, and what the client got of its answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    asking = asyncio.ensure_future(gateway.request("POST", path(method) + query, data=data, headers=headers))
    turn = await upstream.asked()
    if answer.startswith(b"data:"):
        turn.begin_stream()
        turn.send(answer)
        turn.end_stream()
        await turn.close()
    else:
        turn.answer(answer)
    return turn, await asking


async def test_a_request_and_its_answer_pass_byte_for_byte_and_are_charged() -> None:
    body = json.dumps(ASKED, indent=1).encode()
    answer = json.dumps(ended("Two."), indent=2).encode()
    async with gemini(model={"price": {"input": 1, "output": 10, "cached_input": 0.5}}) as (upstream, gateway):
        turn, reply = await asked(upstream, gateway, body=body, answer=answer)
        assert (reply.status, reply.body) == (200, answer)
        assert turn.request_line == f"POST {path('generateContent')} HTTP/1.1"
        assert turn.body == body
        assert not any(KEY in value for _, value in turn.headers)
        exchange = await gateway.ended()
        assert (exchange.usage, exchange.cost) == (USED, 3 + 3 + 1050)  # 3 fresh, 5 cached at half, 105 of output.
        line = gateway.lines[-1]
        assert (line["endpoint"], line["model"], line["output_tokens"]) == ("gemini.generateContent", MODEL, 105)


async def test_the_path_names_the_model_of_the_route_to_its_upstream() -> None:
    model = {"routes": [{"upstream": "up1", "model": "gemini 2.5/flash"}]}
    async with gemini(model=model) as (upstream, gateway):
        turn, _ = await asked(upstream, gateway)
        assert turn.request_line.split()[1] == "/v1beta/models/gemini%202.5/flash:generateContent"
        assert turn.json == ASKED


@pytest.mark.parametrize(
    ("method", "body", "sent"),
    [
        ("embedContent", {"model": f"models/{MODEL}", "content": {}}, {"model": "models/other", "content": {}}),
        ("embedContent", {"content": {}}, {"content": {}}),
        (
            "batchEmbedContents",
            {"requests": [{"model": f"models/{MODEL}", "content": {}}, {"content": {}}]},
            {"requests": [{"model": "models/other", "content": {}}, {"content": {}}]},
        ),
        (
            "countTokens",
            {"generateContentRequest": {"model": f"models/{MODEL}", "contents": []}},
            {"generateContentRequest": {"model": "models/other", "contents": []}},
        ),
    ],
)
async def test_a_body_that_names_the_model_once_more_is_rewritten_too(method: str, body: Json, sent: Json) -> None:
    model = {"routes": [{"upstream": "up1", "model": "other"}]}
    async with gemini(model=model) as (upstream, gateway):
        turn, _ = await asked(upstream, gateway, method, body, answer=b"{}")
        assert turn.json == sent


@pytest.mark.parametrize(
    ("method", "body", "param"),
    [
        ("generateContent", {**ASKED, "model": "another"}, "model"),
        ("embedContent", {"model": "models/another", "content": {}}, "model"),
        ("batchEmbedContents", {"requests": [{"model": MODEL}, {"model": "models/another"}]}, "requests.*.model"),
        ("countTokens", {"generateContentRequest": {"model": 1}}, "generateContentRequest.model"),
        ("generateContent", {**ASKED, "GenerationConfig": {}}, "generationConfig"),
        ("generateContent", {**ASKED, "generationConfig": {"maxoutputtokens": 1}}, "maxOutputTokens"),
        (
            "generateContent",
            {**ASKED, "generationConfig": {"maxOutputTokens": "x"}},
            "generationConfig.maxOutputTokens",
        ),
    ],
)
async def test_a_body_that_can_be_read_in_two_ways_is_refused(method: str, body: Json, param: str) -> None:
    async with gemini() as (_, gateway):
        reply = await gateway.request("POST", path(method), data=json.dumps(body), headers=GOOGLE_KEY)
        assert (reply.status, reply.error["status"]) == (400, "INVALID_ARGUMENT")
        (detail,) = reply.error["details"]
        assert (detail["reason"], detail["metadata"]) == ("invalid_value", {"param": param})


@pytest.mark.parametrize("headers", [{}, {"x-goog-api-key": KEY}, {"authorization": f"Bearer {KEY}"}])
async def test_a_key_in_the_query_is_read_and_goes_no_further(headers: dict[str, str]) -> None:
    stream = events(piece("Tw"), ended("o."))
    async with gemini() as (upstream, gateway):
        query = f"?key={KEY}&alt=sse&fields=candidates&%24alt=json"
        turn, reply = await asked(
            upstream, gateway, "streamGenerateContent", query=query, headers=headers, answer=stream
        )
        assert reply.status == 200
        assert turn.request_line.split()[1] == path("streamGenerateContent") + "?alt=sse"
        assert KEY not in json.dumps(gateway.lines)


@pytest.mark.parametrize(
    ("where", "query", "headers"),
    [
        (path("generateContent"), "", {}),
        (path("generateContent"), "?key=wrong", {}),
        (path("generateContent"), "?key=wrong", {"x-goog-api-key": KEY}),
        ("/v1/chat/completions", f"?key={KEY}", {}),
    ],
)
async def test_other_keys_are_refused(where: str, query: str, headers: dict[str, str]) -> None:
    async with gemini() as (_, gateway):
        reply = await gateway.request("POST", where + query, data=b"{}", headers=headers)
        assert reply.status == 401
        assert reply.error.get("status", "UNAUTHENTICATED") == "UNAUTHENTICATED"


async def test_a_stream_of_events_passes_byte_for_byte_and_its_last_report_counts() -> None:
    first = {**piece("Tw"), "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8}}
    stream = events(first, ended("o."))
    async with gemini() as (upstream, gateway):
        _, reply = await asked(upstream, gateway, "streamGenerateContent", query="?alt=sse", answer=stream)
        assert (reply.status, reply.body, reply.broken) == (200, stream, False)
        assert (await gateway.ended()).usage == USED


async def test_a_stream_that_is_an_array_is_passed_on_as_it_grows() -> None:
    async with gemini() as (upstream, gateway), raw_client(gateway.port) as client:
        body = json.dumps(ASKED).encode()
        client.send(
            http_head(
                f"POST {path('streamGenerateContent')} HTTP/1.1",
                {**GOOGLE_KEY, "host": "g", "content-length": str(len(body))},
            )
        )
        client.send(body)
        turn = await upstream.asked()
        assert "alt" not in turn.request_line
        turn.say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        turn.send(b"[" + json.dumps(piece("Tw")).encode())
        status, _ = await client.head()
        assert status == 200
        await client.until(b"Tw")
        turn.send(b"\r\n," + json.dumps(ended("o.")).encode() + b"]")
        turn.end_stream()
        await client.until(b"]\r\n0\r\n\r\n")
        assert (await gateway.ended()).usage == USED


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({}, {"generationConfig": {"maxOutputTokens": 40}}),
        ({"generationConfig": {"temperature": 1}}, {"generationConfig": {"temperature": 1, "maxOutputTokens": 40}}),
        ({"generationConfig": {"maxOutputTokens": 0}}, {"generationConfig": {"maxOutputTokens": 40}}),
        ({"generationConfig": {"maxOutputTokens": 99}}, {"generationConfig": {"maxOutputTokens": 40}}),
        ({"generationConfig": {"maxOutputTokens": 7}}, {"generationConfig": {"maxOutputTokens": 7}}),
        ({"generation_config": {"max_output_tokens": 99}}, {"generation_config": {"max_output_tokens": 40}}),
        ({"generation_config": {}}, {"generation_config": {"maxOutputTokens": 40}}),
        (
            {"generationConfig": {"candidateCount": 2, "maxOutputTokens": 99}},
            {"generationConfig": {"candidateCount": 2, "maxOutputTokens": 20}},
        ),
    ],
)
async def test_near_its_end_a_quota_caps_what_is_asked_for(body: Json, sent: Json) -> None:
    team = {"limits": [{"output_tokens": 40, "per": "day"}]}
    async with gemini(team=team) as (upstream, gateway):
        turn, reply = await asked(upstream, gateway, body={**ASKED, **body})
        assert turn.json == {**ASKED, **sent}
        assert ("x-quota-output-cap" in reply.headers) is (sent != {"generationConfig": {"maxOutputTokens": 7}})


async def test_a_quota_stops_a_stream_that_ignores_its_cap() -> None:
    team = {"limits": [{"output_tokens": 10, "per": "day", "when_spent": "stop"}]}
    async with gemini(team=team) as (upstream, gateway):
        stream = events(*[piece("a word of twenty letters") for _ in range(100)], ended("."))
        _, reply = await asked(upstream, gateway, "streamGenerateContent", query="?alt=sse", answer=stream)
        *passed, last = [json.loads(data) for data in reply.body.decode().replace("\r", "").split("data: ")[1:]]
        assert 0 < len(passed) < 10
        assert last["candidates"][0]["finishReason"] == "MAX_TOKENS"
        usage = (await gateway.ended()).usage
        assert usage is not None
        assert usage.output == last["usageMetadata"]["candidatesTokenCount"] <= 10


@pytest.mark.parametrize("query", ["?alt=sse", ""], ids=["events", "array"])
async def test_what_was_delivered_of_a_stream_that_breaks_is_charged(query: str) -> None:
    async with gemini() as (upstream, gateway):
        body = json.dumps(ASKED).encode()
        sending = gateway.request("POST", path("streamGenerateContent") + query, data=body, headers=GOOGLE_KEY)
        asking = asyncio.ensure_future(sending)
        turn = await upstream.asked()
        chunk = {**piece("moons " * 40), "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8}}
        if query:
            turn.begin_stream()
            turn.send(events(chunk))
        else:
            turn.say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
            turn.send(b"[" + json.dumps(chunk).encode())
        await turn.taken()
        turn.hang_up()
        reply = await asking
        assert reply.broken
        if query:
            assert json.loads(reply.body.rpartition(b"data: ")[2])["error"]["status"] == "UNAVAILABLE"
        usage = (await gateway.ended()).usage
        assert usage is not None
        assert (usage.input, usage.source) == (8, "estimated")
        assert usage.output >= 40


async def test_counting_is_free_even_where_a_quota_is_spent() -> None:
    team = {"limits": [{"tokens": 100, "per": "day"}, {"usd": 1, "per": "day"}, {"requests": 9, "per": "day"}]}
    price = {"price": {"input": 1, "request": 0.5}}
    async with gemini(team=team, model=price) as (upstream, gateway):
        counted = b'{"totalTokens": 12}'
        await asked(upstream, gateway)
        await gateway.ended()
        spent = await gateway.request("POST", path("generateContent"), data=json.dumps(ASKED), headers=GOOGLE_KEY)
        assert (spent.status, spent.error["status"]) == (429, "RESOURCE_EXHAUSTED")
        await gateway.ended()
        _, reply = await asked(upstream, gateway, "countTokens", answer=counted)
        assert (reply.status, reply.body) == (200, counted)
        exchange = await gateway.ended()
        assert (exchange.usage, exchange.cost) == (Usage(), 0)


async def test_the_models_are_listed_in_geminis_shape() -> None:
    models = {name: {"routes": [{"upstream": "up1"}], "context_window": 9, "max_output_tokens": 5} for name in "abc"}
    async with gemini(models=models) as (_, gateway):
        listed = await gateway.request("GET", f"/v1beta/models?pageSize=2&key={KEY}")
        assert [row["name"] for row in listed.json["models"]] == ["models/a", "models/b"]
        more = await gateway.request("GET", f"/v1beta/models?pageToken={listed.json['nextPageToken']}&key={KEY}")
        (last,) = more.json["models"]
        assert "nextPageToken" not in more.json
        assert last == (await gateway.request("GET", "/v1beta/models/c", headers=GOOGLE_KEY)).json
        assert (last["inputTokenLimit"], last["outputTokenLimit"]) == (9, 5)
        assert {"generateContent", "streamGenerateContent", "countTokens"} < set(last["supportedGenerationMethods"])
        absent = await gateway.request("GET", "/v1beta/models/absent", headers=GOOGLE_KEY)
        assert (absent.status, absent.error["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "spelled",
    [
        f"/v1/models/{MODEL}:generateContent",
        f"/v1alpha/models/{MODEL}:generateContent",
        f"/v1beta1/publishers/google/models/{MODEL}:generateContent",
        f"/v1/projects/p/locations/europe-west4/publishers/google/models/{MODEL}:generateContent",
    ],
)
async def test_other_versions_and_vertex_ai_spell_the_same_endpoint(spelled: str) -> None:
    async with gemini() as (upstream, gateway):
        asking = asyncio.ensure_future(
            gateway.request("POST", spelled, data=json.dumps(ASKED), headers={"authorization": f"Bearer {KEY}"})
        )
        turn = await upstream.asked()
        assert turn.request_line.split()[1] == path("generateContent")
        turn.answer(json.dumps(ended("Two.")).encode())
        assert (await asking).status == 200


@pytest.mark.parametrize(
    ("base_path", "changes", "target", "headers"),
    [
        ("/v1beta/openai", {"auth": "google"}, "/v1beta", ("x-goog-api-key", "secret")),
        ("/v1beta", {"auth": "x-goog-api-key"}, "/v1beta", ("x-goog-api-key", "secret")),
        ("", {"auth": "google"}, "/v1beta", ("x-goog-api-key", "secret")),
        (
            "/v1/projects/p/locations/l/endpoints/openapi",
            {"preset": "vertex"},
            "/v1/projects/p/locations/l/publishers/google",
            ("authorization", "Bearer secret"),
        ),
        (
            "/x/v1",
            {"base_paths": {"gemini.*": "/gemini/v1beta/"}},
            "/gemini/v1beta",
            ("authorization", "Bearer secret"),
        ),
    ],
)
async def test_an_upstream_is_asked_where_and_how_it_has_geminis_api(
    base_path: str, changes: Json, target: str, headers: tuple[str, str]
) -> None:
    async with hand_upstream() as upstream:
        url = upstream.base_url.removesuffix("/v1") + base_path
        upstreams = {"up1": {"base_url": url, "api_key": "secret", **changes}}
        async with whole_gateway(upstream.base_url, upstreams=upstreams) as gateway:
            turn, _ = await asked(upstream, gateway)
            assert turn.request_line.split()[1] == f"{target}/models/{MODEL}:generateContent"
            credentials = [line for line in turn.headers if line[1].endswith("secret")]
            assert credentials == [headers]


async def test_a_model_without_an_upstream_for_the_api_is_refused_in_its_shape() -> None:
    async with hand_upstream() as upstream:
        upstreams = {"up1": {"base_url": upstream.base_url, "endpoints": ["chat.*"]}}
        async with whole_gateway(upstream.base_url, upstreams=upstreams) as gateway:
            reply = await gateway.request("POST", path("generateContent"), data=json.dumps(ASKED), headers=GOOGLE_KEY)
            assert (reply.status, reply.error["status"]) == (404, "NOT_FOUND")
            assert "none of its upstreams has this API" in reply.error["message"]
            assert (await gateway.ended()).reservation is None
