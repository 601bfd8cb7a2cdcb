"""Prices from the configuration to the ledger: of the route that served, for the tier and tokens that it reports."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.app.snapshot_builder import loaded_snapshot
from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import DONE, content, finish, hand_upstream, usage
from tests.whole_gateway import KEY, MODEL, Json, chat_body, configuration, settings_of, whole_gateway

DAILY: Json = {"limits": [{"usd": 1, "per": "day"}]}
CLAUDE: Json = {
    "input": 3,
    "output": 15,
    "cached_input": "0.30",
    "cache_write": "3.75",
    "cache_write_1h": 6,
    "search": "0.01",
    "above": [{"tokens": 10_000, "input": 6, "output": "22.50"}],
    "tiers": {"priority": {"input": 30, "output": 150}},
    "regions": {"us": "1.1"},
}
USED: Json = {
    "input_tokens": 500,
    "cache_read_input_tokens": 6_000,
    "cache_creation_input_tokens": 3_500,
    "cache_creation": {"ephemeral_5m_input_tokens": 3_000, "ephemeral_1h_input_tokens": 500},
    "output_tokens": 1_000,
}
ROUTES = [
    {"upstream": "up1", "price": {"input": 1, "output": 2}},
    {"upstream": "up2", "priority": 2, "price": {"input": 10, "output": 20}},
]
WRITTEN_FOR_5_MINUTES = 11_250
CACHED = 1_800
WRITTEN_FOR_AN_HOUR = 3_000


@pytest.mark.parametrize(
    ("used", "cost"),
    [
        ({}, 1_500 + CACHED + WRITTEN_FOR_5_MINUTES + WRITTEN_FOR_AN_HOUR + 15_000),
        ({"input_tokens": 501}, 501 * 6 + CACHED + WRITTEN_FOR_5_MINUTES + WRITTEN_FOR_AN_HOUR + 22_500),
        (
            {"service_tier": "priority"},
            15_000 + CACHED + WRITTEN_FOR_5_MINUTES + WRITTEN_FOR_AN_HOUR + 150_000,
        ),
        (
            {"server_tool_use": {"web_search_requests": 2}},
            1_500 + CACHED + WRITTEN_FOR_5_MINUTES + WRITTEN_FOR_AN_HOUR + 15_000 + 20_000,
        ),
    ],
)
async def test_the_ledger_has_what_the_answer_names_at_its_price(used: Json, cost: int) -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, model={"price": CLAUDE}, team=DAILY) as gateway,
    ):
        asking = asyncio.create_task(gateway.post(_message(), path="/v1/messages"))
        (await upstream.asked()).answer(json.dumps({"type": "message", "content": [], "usage": USED | used}).encode())
        assert (await asking).status == 200
        assert (await gateway.ended()).cost == cost
        assert (await gateway.ledger()).cost == cost
        listed = await gateway.request("GET", "/v1/limits", headers={"authorization": f"Bearer {KEY}"})
        assert listed.json["data"][0]["used"] == cost / 1_000_000


async def test_the_region_that_the_answer_names_multiplies_what_its_tokens_cost() -> None:
    used = USED | {"inference_geo": "us", "server_tool_use": {"web_search_requests": 2}}
    tokens = 1_500 + CACHED + WRITTEN_FOR_5_MINUTES + WRITTEN_FOR_AN_HOUR + 15_000
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, model={"price": CLAUDE}, team=DAILY) as gateway,
    ):
        asking = asyncio.create_task(gateway.post(_message(), path="/v1/messages"))
        (await upstream.asked()).answer(json.dumps({"type": "message", "content": [], "usage": used}).encode())
        assert (await asking).status == 200
        exchange = await gateway.ended()
        assert exchange.cost == tokens * 11 // 10 + 20_000
        (hold,) = exchange.reservation.holds if exchange.reservation else ()
        assert hold.amount >= exchange.estimated_input * 6 * 11 // 10 + 1_000 * 15


async def test_an_advisor_is_charged_at_the_price_of_its_own_model() -> None:
    iterations = [
        {"type": "message", "input_tokens": 400, "output_tokens": 10},
        {"type": "advisor_message", "model": "claude-opus", "input_tokens": 900, "output_tokens": 200},
        {"type": "message", "input_tokens": 700, "cache_read_input_tokens": 300, "output_tokens": 20},
    ]
    used = {"input_tokens": 400, "output_tokens": 30, "iterations": iterations}
    models = {
        MODEL: {"routes": [{"upstream": "up1"}], "price": CLAUDE},
        "opus": {"routes": [{"upstream": "up1", "model": "claude-opus"}], "price": {"input": 5, "output": 25}},
    }
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, models=models, team=DAILY) as gateway:
        asking = asyncio.create_task(gateway.post(_message(), path="/v1/messages"))
        (await upstream.asked()).answer(json.dumps({"type": "message", "content": [], "usage": used}).encode())
        assert (await asking).status == 200
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert (exchange.usage.input, exchange.usage.output) == (400 + 900 + 1_000, 230)
        assert exchange.cost == (400 + 700) * 3 + 90 + 30 * 15 + 900 * 5 + 200 * 25
        assert (await gateway.ledger()).cost == exchange.cost


async def test_a_request_with_an_advisor_is_held_and_charged_for_both_models() -> None:
    iterations = [
        {"type": "message", "input_tokens": 400, "output_tokens": 10},
        {"type": "advisor_message", "model": "claude-opus-20260205", "input_tokens": 900, "output_tokens": 200},
    ]
    used = {"input_tokens": 400, "output_tokens": 10, "iterations": iterations}
    models = {
        MODEL: {"routes": [{"upstream": "up1"}], "price": CLAUDE},
        "opus": {"routes": [{"upstream": "up1", "model": "claude-opus"}], "price": {"input": 5, "output": 25}},
    }
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": "opus", "max_uses": 2, "max_tokens": 1_500}
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, models=models, team=DAILY) as gateway:
        asking = asyncio.create_task(gateway.post(_message(tools=[advisor]), path="/v1/messages"))
        turn = await upstream.asked()
        assert json.loads(turn.body)["tools"] == [{**advisor, "model": "claude-opus"}]
        turn.answer(json.dumps({"type": "message", "content": [], "usage": used}).encode())
        assert (await asking).status == 200
        exchange = await gateway.ended()
        assert exchange.cost == 400 * 3 + 10 * 15 + 900 * 5 + 200 * 25
        (hold,) = exchange.reservation.holds if exchange.reservation else ()
        assert hold.amount >= 2 * (exchange.estimated_input * 5 + 1_500 * 25) + 1_000 * 15
        assert (await gateway.ledger()).cost == exchange.cost


async def test_an_advisor_that_the_key_may_not_use_is_refused_before_anything_is_forwarded() -> None:
    models = {name: {"routes": [{"upstream": "up1"}]} for name in (MODEL, "opus")}
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": "opus"}
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url, models=models, team={"models": [MODEL]}) as gateway,
    ):
        refused = await gateway.post(_message(tools=[advisor]), path="/v1/messages")
        assert (refused.status, refused.error["type"]) == (404, "not_found_error")
        assert "'opus'" in refused.error["message"]
        refused = await gateway.chat(tools=[advisor])
        assert (refused.status, refused.error["code"], refused.error["param"]) == (
            404,
            "model_not_found",
            "tools[0].model",
        )
        assert upstream.truth.total.requests == 0


async def test_the_route_that_served_is_charged_and_the_dearest_is_reserved() -> None:
    script = DemoScript(prompt_tokens=100, completion_tokens=50)
    changes: dict[str, Any] = {"model": {"routes": ROUTES, "price": {"input": 999}}, "team": DAILY}
    async with (
        DemoUpstream(script) as first,
        DemoUpstream(script) as second,
        whole_gateway(first.base_url, second.base_url, **changes) as gateway,
    ):
        assert (await gateway.chat(max_tokens=50)).status == 200
        exchange = await gateway.ended()
        assert exchange.cost == 100 * 1 + 50 * 2
        assert exchange.reservation is not None
        (hold,) = exchange.reservation.holds
        assert hold.amount == exchange.estimated_input * 10 + 50 * 20


async def test_after_a_failure_the_route_that_answered_is_charged() -> None:
    good = DemoScript(prompt_tokens=100, completion_tokens=50)
    changes: dict[str, Any] = {"model": {"routes": ROUTES}, "team": DAILY}
    async with (
        DemoUpstream(DemoScript(status=503)) as first,
        DemoUpstream(good) as second,
        whole_gateway(first.base_url, second.base_url, **changes) as gateway,
    ):
        assert (await gateway.chat(max_tokens=50)).status == 200
        assert (await gateway.ended()).cost == 100 * 10 + 50 * 20
        assert (await gateway.ledger()).cost == 2_000


async def test_a_stream_costs_what_it_cost_when_it_began_whatever_is_reloaded_meanwhile() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, model={"price": {"input": 1, "output": 2}}, team=DAILY) as gateway,
    ):
        for cost in (100 * 1 + 50 * 2, 100 * 7 + 50 * 9):
            asking = asyncio.create_task(gateway.chat(stream=True))
            turn = await upstream.asked()
            turn.begin_stream()
            turn.send(content("word"))
            new = configuration(upstream.base_url, model={"price": {"input": 7, "output": 9}}, team=DAILY)
            gateway.gateway.swap(loaded_snapshot(settings_of(new)))
            turn.send(finish(usage=usage(100, 50)) + DONE)
            turn.end_stream()
            await turn.close()
            assert (await asking).status == 200
            assert (await gateway.ended()).cost == cost


async def test_a_tier_without_a_price_is_refused_before_anything_is_reserved_or_forwarded() -> None:
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url, model={"price": {"input": 1, "output": 2}}, team=DAILY) as gateway,
    ):
        refused = await gateway.chat(service_tier="priority")
        assert (refused.status, refused.error["code"], refused.error["param"]) == (400, "invalid_value", "service_tier")
        assert "price.tiers.priority" in refused.error["message"]
        assert (await gateway.ended()).reservation is None
        assert upstream.truth.total.requests == 0
        assert (await gateway.chat(service_tier="flex")).status == 200


def _message(**members: Any) -> bytes:
    return json.dumps(chat_body(max_tokens=1_000, **members)).encode()
