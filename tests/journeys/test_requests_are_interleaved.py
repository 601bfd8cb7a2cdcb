"""Thousands of requests of several callers at once in front of upstreams with every oddity: nobody gets another one's
answer, and no request to an upstream is made of two."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import aiohttp
import pytest

from tests.odd_upstream import (
    ANSWERING,
    FAILING,
    UNASKED,
    Oddity,
    OddUpstream,
    mark,
    marks_in,
    odd_upstream,
    second_answer,
)
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import Json, WholeGateway, chat_body, key_settings, whole_gateway

REQUESTS = 5_000
"""Of each test."""
AT_ONCE = 8
"""Of each caller."""
CALLERS = ("ada", "bob", "cleo", "dan")
MODELS = tuple(f"model-{number}" for number in range(8))
PIPELINED = 5
"""Requests that are sent in a row, without waiting, on one connection."""
LEAVING_SHARE = 0.05
PIPELINING_SHARE = 0.02


class Caller:
    """Sends requests with marks of its own; `strangers` are the marks of others that it got."""

    def __init__(self, name: str, gateway: WholeGateway, session: aiohttp.ClientSession, dice: Random) -> None:
        self.strangers: list[tuple[str, set[str]]] = []
        self.statuses: Counter[int | str] = Counter()
        self._name = name
        self._gateway = gateway
        self._session = session
        self._dice = dice
        self._sent = 0

    async def send(self, count: int) -> None:
        while self._sent < count:
            roll = self._dice.random()
            if roll < PIPELINING_SHARE:
                await self._pipeline()
            elif roll < PIPELINING_SHARE + LEAVING_SHARE:
                await self._leave()
            else:
                await self._ask()

    def _request(self) -> tuple[str, Json]:
        self._sent += 1
        marked = mark(self._name, self._sent)
        words = " ".join([marked] * self._dice.choice((1, 3, 3000)))
        body = chat_body(model=self._dice.choice(MODELS), messages=[{"role": "user", "content": words}])
        return marked, body | {"stream": self._dice.random() < 0.4}

    async def _ask(self) -> None:
        marked, body = self._request()
        url, headers = f"{self._gateway.url}/chat/completions", self._headers(marked)
        async with self._session.post(url, json=body, headers=headers) as answer:
            received = b""
            try:
                async for piece in answer.content.iter_any():
                    received += piece
            except aiohttp.ClientPayloadError:
                self.statuses["broken"] += 1
            self._look_at(marked, answer.status, answer.headers["x-request-id"].encode() + received)

    async def _leave(self) -> None:
        """In the midst of whatever happens."""
        marked, body = self._request()
        self.statuses["left"] += 1
        async with raw_client(self._gateway.port) as client:
            client.send(http_chat(json.dumps(body).encode(), headers=self._headers(marked)))
            await asyncio.sleep(self._dice.random() * 0.01)

    async def _pipeline(self) -> None:
        asked = [self._request() for _ in range(PIPELINED)]
        async with raw_client(self._gateway.port) as client:
            for marked, body in asked:
                client.send(http_chat(json.dumps(body).encode(), headers=self._headers(marked)))
            try:
                for marked, _ in asked:
                    reply = await client.answer()
                    self._look_at(marked, reply.status, reply.headers["x-request-id"].encode() + reply.body)
            except (asyncio.IncompleteReadError, ConnectionError, ValueError):
                self.statuses["broken"] += 1  # An answer that broke midway ends the connection.

    def _headers(self, marked: str) -> dict[str, str]:
        return {"authorization": f"Bearer {_key(self._name)}", "x-request-id": marked}

    def _look_at(self, marked: str, status: int, received: bytes) -> None:
        self.statuses[status] += 1
        if marks_in(received) != {marked}:
            self.strangers.append((marked, marks_in(received)))


@pytest.mark.slow
async def test_no_caller_gets_what_belongs_to_another(caplog: pytest.LogCaptureFixture) -> None:
    await _storm(ANSWERING, caplog)


@pytest.mark.slow
async def test_second_answers_that_come_late_reach_nobody_once_one_was_seen(caplog: pytest.LogCaptureFixture) -> None:
    await _storm(ANSWERING + UNASKED, caplog)


async def _storm(oddities: Sequence[Oddity], caplog: pytest.LogCaptureFixture) -> None:
    dice = Random(10)
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(odd_upstream(dice, oddities)) for _ in range(2)]
        gateway = await stack.enter_async_context(_gateway(upstreams))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        callers = [Caller(name, gateway, session, dice) for name in CALLERS]
        if UNASKED[0] in oddities:
            for upstream in upstreams:
                upstream.answering = [second_answer]
            await callers[0].send(20)
            for upstream in upstreams:
                upstream.answering = oddities
        each = REQUESTS // len(CALLERS)
        await asyncio.gather(*[caller.send(each) for caller in callers for _ in range(AT_ONCE)])
    assert [caller.strangers for caller in callers] == [[]] * len(callers)
    assert [upstream.mixed for upstream in upstreams] == [[]] * len(upstreams)
    statuses = sum((caller.statuses for caller in callers), Counter[int | str]())
    assert statuses[200] > REQUESTS * 0.6, statuses
    assert 500 not in statuses
    played = {name.partition(" ")[0] for upstream in upstreams for name in upstream.oddities}
    assert played == {oddity.__name__ for oddity in (*oddities, *FAILING)}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def _key(caller: str) -> str:
    return f"gw_{caller:x<43}"


@asynccontextmanager
async def _gateway(upstreams: list[OddUpstream]) -> AsyncIterator[WholeGateway]:
    routes = [{"upstream": f"up{number}"} for number, _ in enumerate(upstreams, 1)]
    keys = [key_settings(f"of-{caller}", _key(caller)) for caller in CALLERS]
    team = {"keys": keys, "limits": [{"tokens": 10**12, "per": "month"}]}
    models = {name: {"routes": routes} for name in MODELS}
    async with whole_gateway(*[upstream.base_url for upstream in upstreams], team=team, models=models) as gateway:
        yield gateway
