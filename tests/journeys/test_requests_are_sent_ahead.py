"""Clients send requests ahead and read no answer: another caller's request begins among theirs, not behind them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import NamedTuple

from gateway.core.request import IncomingRequest
from gateway.demo import DemoUpstream
from tests.raw_client import http_chat, http_head, raw_client
from tests.whole_gateway import WholeGateway, whole_gateway

CLIENTS = 200
SENT_AHEAD = 10
PER_TURN = 16


class _Begun(NamedTuple):
    turn: int
    request_id: str


class _Beginnings:
    """Which requests began, in which turn of the event loop."""

    def __init__(self, gateway: WholeGateway) -> None:
        self.all: list[_Begun] = []
        self._turn = 0
        gateway.gateway.services.begin_trace = self._note
        self._count_turn()

    async def reach(self, number: int) -> None:
        async with asyncio.timeout(60):
            while len(self.all) < number:
                await asyncio.sleep(0)

    def _note(self, request: IncomingRequest) -> None:
        self.all.append(_Begun(self._turn, request.request_id))

    def _count_turn(self) -> None:
        self._turn += 1
        self._next = asyncio.get_running_loop().call_soon(self._count_turn)

    def end(self) -> None:
        self._next.cancel()


async def test_requests_that_are_sent_ahead_begin_a_few_in_each_turn_and_let_others_in() -> None:
    stranger = http_head("GET /v1/models HTTP/1.1", {"host": "gateway", "authorization": "Bearer gw_of_nobody"})
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway, AsyncExitStack() as stack:
        other = await stack.enter_async_context(raw_client(gateway.port))
        other.send(http_chat(max_tokens=1))
        assert (await other.answer()).status == 200
        clients = [await stack.enter_async_context(raw_client(gateway.port)) for _ in range(CLIENTS)]
        beginnings = _Beginnings(gateway)
        for client in clients:
            client.send(stranger * SENT_AHEAD)
        await beginnings.reach(2 * CLIENTS)
        sent_at = len(beginnings.all)
        other.send(http_chat(max_tokens=1, headers={"x-request-id": "of-the-other"}))
        assert (await other.answer()).status == 200
        beginnings.end()
        began_at = [begun.request_id for begun in beginnings.all].index("of-the-other")
        in_a_turn = Counter(begun.turn for begun in beginnings.all)
    assert began_at - sent_at < CLIENTS
    # Some may begin early in a turn, before the turn's own are counted.
    assert max(in_a_turn.values()) < 2 * PER_TURN
