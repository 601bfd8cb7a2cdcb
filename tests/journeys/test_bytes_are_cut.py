"""However the network cuts an upstream's bytes, the client gets the same bytes and the ledger the same usage."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.usage import Usage
from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import WholeGateway, whole_gateway

ASKING = {"stream_options": {"include_usage": True}}
DIALECTS: list[dict[str, Any]] = [
    {},
    {"newline": "crlf", "comments": True, "bom": True},
    {"newline": "cr", "usage": "every"},
    {"multiline": True, "usage": "null"},
    {"usage": "last", "spaced": True},
    {"usage": "never", "no_done": True},
]
ANYWHERE = st.lists(st.integers(1, 1500), max_size=12)
AT_LINE_ENDS = st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 2)), max_size=12)
"""The number of a line end, and how far from it: where mistakes are likeliest."""


class Pair(NamedTuple):
    upstream: DemoUpstream
    gateway: WholeGateway

    async def outcome(self, script: DemoScript, **fields: Any) -> tuple[bytes, Usage | None]:
        self.upstream.script = script
        reply = await self.gateway.chat(stream=True, **fields)
        assert (reply.status, reply.broken) == (200, False)
        return reply.body, (await self.gateway.ended()).usage


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        yield Pair(upstream, gateway)


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
@given(anywhere=ANYWHERE, at_line_ends=AT_LINE_ENDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_cuts_of_a_stream_give_the_same_answer(
    pair: Pair, dialect: dict[str, Any], anywhere: list[int], at_line_ends: list[tuple[int, int]]
) -> None:
    body = _spoken(pair.upstream, dialect)
    ends = [place for place, character in enumerate(body.encode()) if character in b"\r\n"]
    cuts = (*anywhere, *(ends[number % len(ends)] + shift for number, shift in at_line_ends))
    for fields in ({}, ASKING):
        whole = await pair.outcome(DemoScript(body=body, pieces="whole"), **fields)
        assert await pair.outcome(DemoScript(body=body, cuts=cuts), **fields) == whole


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
@pytest.mark.parametrize("fields", [{}, ASKING], ids=["not asking", "asking"])
async def test_each_byte_alone_gives_the_same_answer(
    pair: Pair, dialect: dict[str, Any], fields: dict[str, Any]
) -> None:
    body = _spoken(pair.upstream, dialect)
    whole = await pair.outcome(DemoScript(body=body, pieces="whole"), **fields)
    assert await pair.outcome(DemoScript(body=body, pieces="byte"), **fields) == whole
    assert await pair.outcome(DemoScript(body=body, pieces="byte", framing="close"), **fields) == whole


@pytest.mark.parametrize("pieces", ["byte", "random", "whole"])
async def test_a_plain_answer_in_any_pieces_is_the_same(pair: Pair, pieces: str) -> None:
    pair.upstream.script = DemoScript(
        body=json.dumps({"usage": {"prompt_tokens": 3, "completion_tokens": 9}}), pieces=pieces
    )
    reply = await pair.gateway.chat()
    assert reply.body.decode() == pair.upstream.script.body
    exchange = await pair.gateway.ended()
    assert exchange.usage == Usage(input=3, output=9)


def _spoken(upstream: DemoUpstream, dialect: dict[str, Any]) -> str:
    """The bytes of one answer in this dialect, to be said again and again."""
    asked = upstream.responder.read(
        json.dumps({"stream": True, "stream_options": {"include_usage": True}}).encode(), "application/json"
    )
    reply = upstream.responder.answer(
        "/v1/chat/completions", asked, DemoScript(**{"chunks": 5, "framing": "close", **dialect}), 0
    )
    return b"".join(piece.data for piece in reply.pieces).partition(b"\r\n\r\n")[2].decode()
