"""What is counted, compacted, scored and ranked: rows of the endpoint table that have no answer of a model in words."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.apis import (
    COMPACT,
    COUNT_TOKENS,
    COUNTING,
    INPUT_TOKENS,
    QUESTION,
    SCORE,
    SMALL_APIS,
    SmallApi,
    name_of,
)
from tests.hand_upstream import Turn, hand_upstream
from tests.whole_gateway import MODEL, Json, Reply, WholeGateway, whole_gateway


async def ask(gateway: WholeGateway, api: SmallApi, **fields: object) -> Reply:
    return await gateway.post(json.dumps({**api.body, **fields}).encode(), path=api.path)


async def answered(gateway: WholeGateway, turn: Turn, asking: asyncio.Task[Reply], answer: Json) -> Reply:
    turn.answer(json.dumps(answer).encode())
    return await asking


@pytest.mark.parametrize("api", SMALL_APIS, ids=name_of)
async def test_it_passes_byte_for_byte_and_is_charged_as_it_reports(api: SmallApi) -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.ensure_future(ask(gateway, api))
        turn = await upstream.asked()
        assert turn.request_line == f"POST {api.path} HTTP/1.1"
        assert turn.json == api.body
        reply = await answered(gateway, turn, asking, api.answer)
        assert (reply.status, reply.json) == (200, api.answer)
        assert (await gateway.ended()).usage == api.used
        assert gateway.lines[-1]["endpoint"] == api.name


@pytest.mark.parametrize("api", COUNTING, ids=name_of)
async def test_counting_needs_nothing_of_a_limit_but_a_request(api: SmallApi) -> None:
    limits = [{"tokens": 1, "per": "day"}, {"usd": "0.000001", "per": "day"}, {"requests": 2, "per": "day"}]
    model = {"price": {"input": 1, "request": 0.5}}
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, team={"limits": limits}, model=model) as gateway,
    ):
        for _ in range(2):
            asking = asyncio.ensure_future(ask(gateway, api))
            assert (await answered(gateway, await upstream.asked(), asking, api.answer)).status == 200
            assert (await gateway.ended()).cost == 0
        refused = await ask(gateway, api)
        assert (refused.status, refused.json["limit"]["meter"]) == (429, "requests")
        assert (await gateway.ledger()).requests == 2


async def test_an_upstreams_404_passes_in_the_endpoints_own_shape() -> None:
    told = {"type": "error", "error": {"type": "not_found_error", "message": "Not Found"}}
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.ensure_future(ask(gateway, COUNT_TOKENS))
        turn = await upstream.asked()
        turn.answer(json.dumps(told).encode(), status=404)
        reply = await asking
        assert (reply.status, reply.json) == (404, told)


@pytest.mark.parametrize("said", [{"detail": "Not Found"}, {"error": {"message": "Not Found"}}, "<html>Not Found"])
async def test_a_404_of_another_shape_is_given_in_the_endpoints_own(said: object) -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.ensure_future(ask(gateway, COUNT_TOKENS))
        turn = await upstream.asked()
        turn.answer(json.dumps(said).encode(), status=404)
        reply = await asking
        assert (reply.status, reply.json["type"]) == (404, "error")
        assert (reply.error["type"], reply.error["code"]) == ("not_found_error", "unknown_url")
        assert reply.error["message"].startswith("The upstream 'up1' answers 'messages.count_tokens' with 404: ")
        assert (await gateway.ended()).cost == 0


@pytest.mark.parametrize(("api", "header"), [(COUNT_TOKENS, "x-api-key"), (INPUT_TOKENS, "api-key")], ids=name_of)
async def test_foundry_gets_the_key_as_each_of_its_apis_takes_it(api: SmallApi, header: str) -> None:
    async with hand_upstream() as upstream:
        foundry = {"preset": "foundry", "base_url": upstream.base_url, "api_key": "sk-operators"}
        async with whole_gateway(upstream.base_url, upstreams={"up1": foundry}) as gateway:
            asking = asyncio.ensure_future(ask(gateway, api))
            turn = await upstream.asked()
            assert [name for name, value in turn.headers if value.endswith("sk-operators")] == [header]
            assert (await answered(gateway, turn, asking, api.answer)).status == 200


async def test_a_model_without_an_upstream_that_counts_is_a_404_in_anthropics_shape() -> None:
    async with hand_upstream() as upstream:
        upstreams = {"up1": {"base_url": upstream.base_url, "endpoints": ["messages"]}}
        async with whole_gateway(upstream.base_url, upstreams=upstreams) as gateway:
            reply = await ask(gateway, COUNT_TOKENS)
            assert (reply.status, reply.json["type"]) == (404, "error")
            assert reply.json["error"]["type"] == "not_found_error"
            assert gateway.lines[-1]["refused_because"] == "model_not_served"


async def test_only_the_routes_that_have_the_endpoint_are_tried() -> None:
    async with hand_upstream() as one, hand_upstream() as two:
        upstreams = {
            "up1": {"base_url": one.base_url, "endpoints": ["chat.*"]},
            "up2": {"base_url": two.base_url, "endpoints": ["messages*"], "base_paths": {"messages*": "/anthropic/v1"}},
        }
        async with whole_gateway(one.base_url, two.base_url, upstreams=upstreams) as gateway:
            asking = asyncio.ensure_future(ask(gateway, COUNT_TOKENS))
            turn = await two.asked()
            assert turn.request_line.split()[1] == "/anthropic/v1/messages/count_tokens"
            assert (await answered(gateway, turn, asking, COUNT_TOKENS.answer)).status == 200


async def test_a_compaction_that_no_cap_can_bind_must_fit_into_a_quota() -> None:
    """Its API has no member that caps its output: what a quota could not pay for is not begun."""
    team = {"limits": [{"output_tokens": 100, "per": "day"}]}
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, team=team, model={"max_output_tokens": 101}) as gateway,
    ):
        refused = await ask(gateway, COMPACT)
        assert (refused.status, refused.error["code"]) == (429, "request_exceeds_limit")
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, team=team, model={"max_output_tokens": 100}) as gateway,
    ):
        asking = asyncio.ensure_future(ask(gateway, COMPACT))
        turn = await upstream.asked()
        assert turn.json == COMPACT.body
        assert (await answered(gateway, turn, asking, COMPACT.answer)).status == 200


async def test_a_score_needs_no_member_that_only_some_versions_have() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        body = json.dumps({"model": MODEL, "queries": QUESTION, "documents": ["Two."]}).encode()
        asking = asyncio.ensure_future(gateway.post(body, path="/score"))
        turn = await upstream.asked()
        assert turn.body == body
        assert (await answered(gateway, turn, asking, SCORE.answer)).status == 200
