"""A model that says more than its cap, near a quota's end: its stream is stopped, or finishes, as the limit says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.estimate import CHARACTERS_PER_STREAMED_TOKEN
from gateway.core.text_weight import weight_of_string
from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import Json, whole_gateway

MANY = 5_000
SCRIPT = DemoScript(chunks=MANY, prompt_tokens=11)


def _team(when_spent: str) -> Json:
    return {"limits": [{"tokens": 111, "per": "day", "when_spent": when_spent}]}


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}], ids=["not asking", "asking"])
async def test_a_model_that_ignores_its_cap_is_stopped_where_the_quota_ends(asked: dict[str, Any]) -> None:
    async with _Deaf(SCRIPT) as upstream, whole_gateway(upstream.base_url, team=_team("stop")) as gateway:
        reply = await gateway.chat(stream=True, **asked)
        assert not reply.broken
        assert reply.events[-1] == "[DONE]"
        texts = [chunk for chunk in reply.chunks if chunk["choices"] and chunk["choices"][0]["delta"].get("content")]
        words = [chunk["choices"][0]["delta"]["content"] for chunk in texts]
        delivered = max(len(words), weight_of_string("".join(words)) // CHARACTERS_PER_STREAMED_TOKEN)
        assert 98 <= delivered <= 100
        ends = [chunk for chunk in reply.chunks if chunk["choices"] and chunk["choices"][0].get("finish_reason")]
        assert [chunk["choices"][0]["finish_reason"] for chunk in ends] == ["length"]
        told = [chunk["usage"] for chunk in reply.chunks if chunk.get("usage")]
        assert told == [{"prompt_tokens": 11, "completion_tokens": delivered, "total_tokens": 11 + delivered}]
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert (exchange.usage.input, exchange.usage.output) == (11, delivered)
        await upstream.truth.quiet()
        assert upstream.truth.total.partial.completion < MANY
        assert (await gateway.chat()).error["code"] == "insufficient_quota"


async def test_where_the_limit_lets_it_a_stream_finishes_what_it_began() -> None:
    async with _Deaf(SCRIPT) as upstream, whole_gateway(upstream.base_url, team=_team("finish")) as gateway:
        reply = await gateway.chat(stream=True)
        assert reply.chunks[-1]["usage"]["completion_tokens"] == MANY
        assert (await gateway.ended()).usage is not None
        assert (await gateway.ledger()).output == MANY


async def test_streams_at_once_share_what_is_left() -> None:
    team = {"limits": [{"tokens": 400, "per": "day", "when_spent": "stop"}]}
    async with _Deaf(SCRIPT) as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        replies = await asyncio.gather(*(gateway.chat(stream=True, max_tokens=80) for _ in range(10)))
        for _ in replies:
            await gateway.ended()
        row = await gateway.ledger()
        assert {reply.status for reply in replies} == {200, 429}
        assert row.input + row.output <= 400


class _Deaf(DemoUpstream):
    """A model server that does not heed `max_tokens`."""

    def __init__(self, script: DemoScript) -> None:
        super().__init__(script)
        heeding = self.responder.read
        self.responder.read = lambda body, kind: _without_cap(heeding(body, kind))  # type: ignore[method-assign]


def _without_cap(asked: Any) -> Any:
    asked.max_tokens = asked.max_completion_tokens = None
    return asked
