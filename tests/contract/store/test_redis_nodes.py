"""An admission that spans two nodes of a cluster: their clocks differ, or one fails in the middle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Mode, Scope
from gateway.core.reservation import Refusal, Reservation
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis import RedisStore
from gateway.store.in_redis.scripts import ADMIT, GIVE_BACK
from tests.contract.store.asking import ask, limit
from tests.contract.store.keepers import UTC, redis_options, sure_tasks
from tests.contract.store.nodes import FakeNodes, admissions_over
from tests.redis_servers import RedisServer

TEAM = [limit("requests", "day", 9), limit("tokens", "total", 900), limit("concurrent", None, 9)]
SHADOW = limit("requests", "day", 1, name="tried", mode=Mode.SHADOW)
TIGHT = limit("requests", "day", 1, scope=Scope.ORGANISATION, subject="", team="")


@pytest.fixture
async def nodes(redis: RedisServer, tasks: BackgroundTasks) -> AsyncIterator[FakeNodes]:
    made = FakeNodes(redis.url, tasks)
    yield made
    made.close()


@pytest.fixture
async def tasks() -> AsyncIterator[BackgroundTasks]:
    made = sure_tasks()
    yield made
    await made.close()


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    """To look with."""
    opened = RedisStore(redis_options(redis.url), UTC)
    yield opened
    await opened.close()


async def used(store: RedisStore) -> list[tuple[int, int]]:
    return [(one.used, one.held) for one in await store.limit_statuses([*TEAM, SHADOW, TIGHT])]


async def until_used(store: RedisStore, expected: list[tuple[int, int]]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while await used(store) != expected:
                await asyncio.sleep(0)
    assert await used(store) == expected


@pytest.mark.parametrize("ahead_ms", [300, -86_400_000 // 2])
async def test_nodes_whose_clocks_differ_admit_what_spans_both(
    nodes: FakeNodes, tasks: BackgroundTasks, ahead_ms: int
) -> None:
    admissions = admissions_over(nodes, tasks)
    nodes.others.ahead_ms = ahead_ms
    wide = limit("requests", "minute", 100, scope=Scope.ORGANISATION, subject="", team="")
    for _ in range(5):
        assert isinstance(await admissions.admit(ask(limit("concurrent", None, 50), wide)), Reservation)
    # The first had to learn how far the second node is ahead.
    assert nodes.teams.carried_out.count(ADMIT.sha) <= 6
    assert nodes.others.carried_out.count(ADMIT.sha) <= 6


async def test_what_cannot_be_given_back_after_a_refusal_is_given_back_later(
    nodes: FakeNodes, tasks: BackgroundTasks, store: RedisStore
) -> None:
    admissions = admissions_over(nodes, tasks)
    first = await admissions.admit(ask(*TEAM, SHADOW, TIGHT))
    assert isinstance(first, Reservation)
    before = await used(store)
    nodes.fail(nodes.teams, GIVE_BACK)
    refused = await admissions.admit(ask(*TEAM, SHADOW, TIGHT))
    assert isinstance(refused, Refusal)
    assert (await used(store))[0] == (2, 0)
    nodes.fail(nodes.teams)
    await until_used(store, before)


async def test_what_a_second_node_does_not_answer_is_taken_back_from_the_first(
    nodes: FakeNodes, tasks: BackgroundTasks, store: RedisStore
) -> None:
    """Also what a shadow limit bears and does not bear, which the record says."""
    admissions = admissions_over(nodes, tasks)
    quota = limit("tokens", "total", 40, name="tried tokens", mode=Mode.SHADOW)
    assert isinstance(await admissions.admit(ask(SHADOW, quota)), Reservation)
    before = [(one.used, one.held) for one in await store.limit_statuses([*TEAM, SHADOW, TIGHT, quota])]
    nodes.fail(nodes.others, ADMIT)
    with pytest.raises(StoreUnavailable):
        await admissions.admit(ask(*TEAM, SHADOW, quota, TIGHT, fixed=5))
    nodes.fail(nodes.others)
    await until_used(store, before[:-1])
    assert [(one.used, one.held) for one in await store.limit_statuses([quota])] == before[-1:]
