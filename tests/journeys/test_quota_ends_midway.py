"""when_spent: stop. A stream that an upstream would carry past a quota's end is ended there, whole and exact."""

from __future__ import annotations

from tests.hand_upstream import content, hand_upstream
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import whole_gateway

QUOTA = 30
TEAM = {"limits": [{"tokens": QUOTA, "per": "day", "when_spent": "stop"}]}


async def test_an_upstream_that_ignores_its_cap_is_stopped_where_the_quota_ends() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, team=TEAM) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(stream=True))
        turn = await upstream.asked()
        cap = turn.json["max_tokens"]
        turn.begin_stream()
        for number in range(cap + 1):
            turn.send(content(f"word {number}"))
        reply = await client.answer()
        await turn.left()

        assert reply.events[-1] == "[DONE]"
        last = reply.chunks[-1]
        assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
        assert last["usage"]["total_tokens"] == QUOTA
        assert [chunk["choices"][0]["delta"]["content"] for chunk in reply.chunks[:-1]] == [
            f"word {number}" for number in range(cap)
        ]
        exchange = await gateway.ended()
        assert exchange.error is None
        assert (await gateway.ledger()).output == cap


async def test_who_asked_for_usage_gets_it_in_a_chunk_of_its_own() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, team=TEAM) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(stream=True, stream_options={"include_usage": True}))
        turn = await upstream.asked()
        turn.begin_stream()
        for number in range(QUOTA):
            turn.send(content(f"word {number}"))
        *_, finish, usage = (await client.answer()).chunks
        assert finish["choices"][0]["finish_reason"] == "length"
        assert usage["choices"] == []
        assert usage["usage"]["total_tokens"] == QUOTA


async def test_with_finish_the_stream_ends_what_it_began() -> None:
    team = {"limits": [{"tokens": QUOTA, "per": "day"}]}
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, team=team) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(stream=True))
        turn = await upstream.asked()
        turn.begin_stream()
        for number in range(QUOTA):
            turn.send(content(f"word {number}"))
        turn.end_stream()
        assert len((await client.answer()).chunks) == QUOTA
