"""Every API: its answers pass as they are, plain and streamed, and are charged exactly as they report."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.core.usage import Usage
from gateway.demo import DemoScript, DemoUpstream
from tests.apis import (
    APIS,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGES,
    MESSAGES,
    MODERATIONS,
    RERANK,
    RESPONSES,
    SPEAKING,
    SPEECH,
    TEXT,
    Api,
    name_of,
)
from tests.whole_gateway import KEY, MODEL, Json, whole_gateway

INPUT = 6
"""Tokens of each API's smallest request, as the demo upstream counts them."""

UNITS = {"rerank": Usage(searches=1), "images": Usage(images=1), "speech": Usage(characters=len(TEXT))}
"""What a request asks for by the piece, which is charged where the answer reports nothing."""

REPORTED: dict[str, tuple[int, int]] = {
    "embeddings": (INPUT, 0),
    "rerank": (9, 0),
    "images": (INPUT, 0),
}


@pytest.mark.parametrize("api", APIS, ids=name_of)
async def test_a_plain_answer_passes_byte_for_byte_and_is_charged_as_it_reports(api: Api) -> None:
    async with DemoUpstream(DemoScript(chunks=7)) as upstream, whole_gateway(upstream.base_url) as gateway:
        body = await _direct(upstream, api)
        upstream.script = DemoScript(body=body.decode()) if api is not SPEECH else DemoScript()
        reply = await api.ask(gateway)
        assert (reply.status, reply.body) == (200, body)
        assert reply.headers["content-type"] == ("audio/mpeg" if api is SPEECH else "application/json")
        entered, output = REPORTED.get(api.name, (INPUT, 7) if api.cap else (0, 0))
        usage = (await gateway.ended()).usage
        assert usage is not None
        assert (usage.input, usage.output) == (entered, output)
        row = await gateway.ledger()
        assert (row.requests, row.input, row.output, row.estimated) == (1, entered, output, 0)
        line = gateway.lines[-1]
        assert (line["model"], line["status"], line["input_tokens"], line["output_tokens"]) == (
            MODEL,
            200,
            entered,
            output,
        )


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_what_an_answer_reports_is_what_limits_and_ledger_have(api: Api, stream: bool) -> None:
    """Cached input, reasoning and cost are the same, whichever API and whether it streams."""
    script = DemoScript(chunks=40, prompt_tokens=100, cached_tokens=60, completion_tokens=50, reasoning_tokens=10)
    model = {"price": {"input": 1, "output": 10, "cached_input": 0.5}}
    team: Json = {"limits": [{"tokens": 1000, "per": "day"}, {"usd": 1, "per": "day"}, {"requests": 9, "per": "day"}]}
    async with (
        DemoUpstream(script) as upstream,
        whole_gateway(upstream.base_url, model=model, team=team) as gateway,
    ):
        assert (await api.ask(gateway, stream=stream)).status == 200
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert (exchange.usage.source, exchange.usage.total) == ("reported", 150)
        assert exchange.usage.cached_input == 60
        assert exchange.cost == 40 + 30 + 500  # 40 fresh, 60 cached, 50 out at 1, 0.50 and 10 dollars a million.
        listed = await gateway.request("GET", "/v1/limits", headers={"authorization": f"Bearer {KEY}"})
        assert {row["meter"]: row["used"] for row in listed.json["data"]} == {
            "tokens": 150,
            "usd": 0.00057,
            "requests": 1,
        }
        assert (await gateway.ledger()).cost == 570


@pytest.mark.parametrize("api", [RESPONSES, MESSAGES], ids=name_of)
@pytest.mark.parametrize("dialect", [{}, {"pieces": "byte"}, {"newline": "crlf", "comments": True}, {"gzip": True}])
async def test_a_stream_of_typed_events_passes_byte_for_byte(api: Api, dialect: dict[str, Any]) -> None:
    async with (
        DemoUpstream(DemoScript(**{"chunks": 7, **dialect})) as upstream,
        whole_gateway(upstream.base_url) as gateway,
    ):
        upstream.script = DemoScript(**{"chunks": 7, **dialect, "gzip": False})
        body = await _direct(upstream, api, stream=True)
        upstream.script = DemoScript(**{**dialect, "body": body.decode()})
        reply = await api.ask(gateway, stream=True)
        assert (reply.status, reply.broken, reply.body) == (200, False, body)
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "stream_options" not in json.loads(upstream.truth.requests[-1].body)
        assert (await gateway.ended()).usage == Usage(INPUT, 7)
        assert (await gateway.ledger()).output == 7


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}], ids=["not asking", "asking"])
async def test_a_stream_of_completions_has_its_usage_where_a_client_expects_it(asked: dict[str, Any]) -> None:
    async with DemoUpstream(DemoScript(chunks=5)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await COMPLETIONS.ask(gateway, stream=True, n=2, **asked)
        assert reply.events[-1] == "[DONE]"
        assert json.loads(upstream.truth.requests[0].body)["stream_options"] == {"include_usage": True}
        told = {"prompt_tokens": INPUT, "completion_tokens": 10, "total_tokens": INPUT + 10}
        assert reply.chunks[-1]["usage"] == told
        assert bool(reply.chunks[-1]["choices"]) is not bool(asked)
        assert (await gateway.ended()).usage == Usage(INPUT, 10)


@pytest.mark.parametrize("api", APIS, ids=name_of)
async def test_of_a_body_only_the_name_of_the_model_is_rewritten(api: Api) -> None:
    model = {"aliases": ["alias"], "routes": [{"upstream": "up1", "model": "awq/other-name"}]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, model=model) as gateway:
        body = b' {"seed":1e0, "model" : "alias" ,' + json.dumps(api.fields).encode()[1:] + b"\n"
        assert (await gateway.post(body, path=api.path)).status == 200
        (asked,) = upstream.truth.requests
        assert asked.path == api.path
        assert asked.body == body.replace(b'"alias"', b'"awq/other-name"')
        assert gateway.lines[-1]["model"] == MODEL


@pytest.mark.parametrize("name", ["api_base", "base_url", "api_key", "custom_llm_provider", "api_version", "upstream"])
async def test_a_client_cannot_choose_who_is_asked_or_with_which_key(name: str) -> None:
    async with DemoUpstream() as elsewhere, DemoUpstream() as upstream:
        upstreams = {"up1": {"base_url": upstream.base_url, "api_key": "sk-operators"}}
        async with whole_gateway(upstream.base_url, upstreams=upstreams) as gateway:
            body = CHAT.body(**{name: elsewhere.base_url})
            headers = {f"x-{name}": elsewhere.base_url, f"x-litellm-{name}": elsewhere.base_url}
            reply = await gateway.post(json.dumps(body).encode(), headers=headers)
            assert reply.status == 200
            (asked,) = upstream.truth.requests
            assert json.loads(asked.body) == body
            assert (asked.bearer, asked.header(f"x-{name}")) == ("sk-operators", None)
            assert elsewhere.truth.connections_made == 0


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_an_output_over_the_models_most_is_lowered(api: Api) -> None:
    async with (
        DemoUpstream(DemoScript(chunks=40)) as upstream,
        whole_gateway(upstream.base_url, model={"max_output_tokens": 9}) as gateway,
    ):
        for asked, sent in ((5, 5), (9, 9), (10_000, 9)):
            assert (await api.ask(gateway, **{api.cap: asked})).status == 200
            assert json.loads(upstream.truth.requests[-1].body)[api.cap] == sent
        assert (await gateway.ledger()).output == 5 + 9 + 9


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_near_its_end_a_quota_caps_what_is_asked_for(api: Api) -> None:
    team: Json = {"limits": [{"output_tokens": 32, "per": "day"}]}
    async with (
        DemoUpstream(DemoScript(chunks=40)) as upstream,
        whole_gateway(upstream.base_url, team=team) as gateway,
    ):
        cap = {api.cap: 12}
        assert (await api.ask(gateway, **cap)).status == 200
        assert (await api.ask(gateway, **({} if api is not MESSAGES else {api.cap: 50}))).status == 200
        sent = [json.loads(asked.body) for asked in upstream.truth.requests]
        assert [body[api.cap] for body in sent] == [12, 20]
        refused = await api.ask(gateway)
        assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
        assert (await gateway.ledger()).output == 32


async def test_a_quota_with_less_than_an_api_takes_for_a_cap_is_spent() -> None:
    team: Json = {"limits": [{"output_tokens": 20, "per": "day"}]}
    async with (
        DemoUpstream(DemoScript(chunks=5)) as upstream,
        whole_gateway(upstream.base_url, team=team) as gateway,
    ):
        assert (await RESPONSES.ask(gateway)).status == 200
        await gateway.ended()
        refused = await RESPONSES.ask(gateway)
        assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
        assert refused.json["limit"]["requested"] == 16
        assert (await CHAT.ask(gateway)).status == 200


@pytest.mark.parametrize("api", [EMBEDDINGS, MODERATIONS, RERANK, IMAGES, SPEECH], ids=name_of)
async def test_what_has_no_output_needs_no_room_for_one(api: Api) -> None:
    """Whatever the model may produce elsewhere, and however little is left."""
    team: Json = {"limits": [{"tokens": 20, "per": "day"}, {"output_tokens": 1, "per": "day"}]}
    model = {"max_output_tokens": 32_768}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team, model=model) as gateway:
        reply = await api.ask(gateway)
        assert reply.status == 200
        assert upstream.truth.requests[0].body == json.dumps(api.body()).encode()
        assert (await gateway.ended()).reservation is not None


@pytest.mark.parametrize("api", [MODERATIONS, RERANK, SPEECH, IMAGES], ids=name_of)
async def test_what_passes_through_is_limited_by_requests(api: Api) -> None:
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url, team={"limits": [{"requests": 2, "per": "day"}]}) as gateway,
    ):
        assert [(await api.ask(gateway)).status for _ in range(3)] == [200, 200, 429]
        assert upstream.truth.total.requests == 2


@pytest.mark.parametrize(
    "given", ["text", ["a", "b"], [1, 2, 3], [[1, 2], [3]], [50_256] * 2_048], ids=lambda given: str(given)[:20]
)
async def test_embeddings_of_texts_and_of_tokens_pass(given: Any) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await EMBEDDINGS.ask(gateway, input=given, encoding_format="base64", dimensions=16)
        assert reply.status == 200
        assert json.loads(upstream.truth.requests[0].body)["input"] == given
        usage = (await gateway.ended()).usage
        assert usage is not None
        assert (usage.source, usage.input) == ("reported", reply.json["usage"]["prompt_tokens"])


async def test_embeddings_that_report_nothing_are_estimated_by_their_input_alone() -> None:
    async with DemoUpstream(DemoScript(usage="never")) as upstream, whole_gateway(upstream.base_url) as gateway:
        await EMBEDDINGS.ask(gateway, input="x" * 4_000)
        usage = (await gateway.ended()).usage
        assert usage is not None
        assert (usage.source, usage.output) == ("estimated", 0)
        assert 900 < usage.input < 1_100


@pytest.mark.parametrize("api", [MODERATIONS, RERANK, IMAGES, SPEECH], ids=name_of)
async def test_what_reports_no_tokens_elsewhere_is_charged_none(api: Api) -> None:
    async with DemoUpstream(DemoScript(usage="never")) as upstream, whole_gateway(upstream.base_url) as gateway:
        assert (await api.ask(gateway)).status == 200
        assert (await gateway.ended()).usage == UNITS.get(api.name, Usage())
        row = await gateway.ledger()
        assert (row.requests, row.input, row.output) == (1, 0, 0)
        assert gateway.lines[-1]["usage_source"] == "reported"


async def test_units_that_no_answer_shows_are_charged_as_they_were_asked_for() -> None:
    price = {"million_characters": 15, "image": "0.04", "search": "0.002"}
    asked = ((SPEECH, {"input": "é" * 1_000}, 15_000), (IMAGES, {"n": 3}, 120_000), (RERANK, {}, 2_000))
    async with (
        DemoUpstream(DemoScript(body="\x00\x01 no JSON")) as upstream,
        whole_gateway(upstream.base_url, model={"price": price}) as gateway,
    ):
        for api, fields, cost in asked:
            assert (await api.ask(gateway, **fields)).status == 200
            assert (await gateway.ended()).cost == cost


@pytest.mark.parametrize("size", [1_024, 3_000_000])
async def test_sound_passes_byte_for_byte_with_the_type_that_the_upstream_gives(size: int) -> None:
    sound = bytes(range(128)) * (size // 128)
    script = DemoScript(body=sound.decode("ascii"), headers={"content-type": "audio/ogg"}, framing="chunked")
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await SPEECH.ask(gateway, response_format="opus")
        assert (reply.status, reply.broken, reply.body) == (200, False, sound)
        assert reply.headers["content-type"] == "audio/ogg"
        row = await gateway.ledger()
        assert (row.requests, row.input, row.output) == (1, 0, 0)


async def test_images_that_stream_pass_and_are_charged_as_they_report() -> None:
    body = (
        'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b64_json":"'
        + "A" * 200_000
        + '"}\n\nevent: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"'
        + "B" * 200_000
        + '","usage":{"total_tokens":100,"input_tokens":30,"output_tokens":70,'
        '"input_tokens_details":{"text_tokens":10,"image_tokens":20}}}\n\n'
    )
    async with (
        DemoUpstream(DemoScript(body=body, pieces="random")) as upstream,
        whole_gateway(upstream.base_url) as gateway,
    ):
        reply = await IMAGES.ask(gateway, stream=True, partial_images=1)
        assert (reply.broken, reply.body) == (False, body.encode())
        usage = (await gateway.ended()).usage
        assert usage == Usage(30, 70, image_input=20, image_output=70, images=1)


@pytest.mark.parametrize("api", APIS, ids=name_of)
@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
async def test_a_key_may_come_as_anthropics_clients_and_azures_send_it(api: Api, header: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        given = {header: KEY, "content-type": "application/json", "anthropic-version": "2023-06-01"}
        body = json.dumps(api.body()).encode()
        reply = await gateway.request("POST", api.path, data=body, headers=given)
        assert reply.status == 200
        arrived = {name.lower(): value for name, value in upstream.truth.requests[0].headers}
        assert arrived["anthropic-version"] == "2023-06-01"
        assert KEY not in arrived.values()


async def _direct(upstream: DemoUpstream, api: Api, **changes: object) -> bytes:
    """What the upstream says without a gateway; its truth begins anew after that."""
    async with ClientSession() as session:
        body = api.body(**changes)
        async with session.post(f"{upstream.origin}{api.path}", json=body) as answer:
            told = await answer.read()
    upstream.truth.reset()
    return told
