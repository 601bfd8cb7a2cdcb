from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.store.in_redis.client import BegunCall, RedisServers, Router, ServerClock
from gateway.store.in_redis.connection import Command, CommandMaker, ConnectionDown, ReplyTaker
from gateway.store.in_redis.scripts import SETTLE


class FakeConnection:
    """Keeps what takes the replies of the calls that it was given."""

    def __init__(self) -> None:
        self.takers: list[ReplyTaker] = []

    def begin(self, command: Command | CommandMaker, taker: ReplyTaker) -> None:
        self.takers.append(taker)


class FakeServers:
    """One node, or none that is known."""

    def __init__(self, *, known: bool = True) -> None:
        self._known = known
        self.clock = ServerClock()
        self.urgent = FakeConnection()

    def node_of(self, key: str) -> Any:
        if not self._known:
            raise ConnectionDown("has no node that is known")
        return self

    def clock_of(self, key: str) -> ServerClock:
        return self.clock


def begun(servers: FakeServers, observe: Callable[[str, str, float], None]) -> tuple[Router, list[BegunCall]]:
    """A call that was begun, and those that have ended."""
    router, ended = Router(cast(RedisServers, servers), observe), list[BegunCall]()
    assert router.begin(SETTLE, "key", b"", ended.append)
    return router, ended


def test_a_call_that_nothing_awaits_ends_where_its_reply_arrives() -> None:
    servers, observed = FakeServers(), list[tuple[str, str]]()
    _, ended = begun(servers, lambda call, outcome, _: observed.append((call, outcome)))
    assert ended == []
    servers.urgent.takers[0].set_result([1, servers.clock.now_ms()])
    (call,) = ended
    assert call.numbers is not None
    assert (call.numbers[0], call.result(), observed) == (1, call.numbers, [("settle", "ok")])


async def test_one_that_may_be_lost_is_not_sent_again() -> None:
    servers, observed = FakeServers(), list[tuple[str, str]]()
    router, ended = begun(servers, lambda call, outcome, _: observed.append((call, outcome)))
    servers.urgent.takers[0].set_exception(ConnectionDown("broke the connection", sent=True))
    (call,) = ended
    assert call.numbers is None
    with pytest.raises(StoreUnavailable):
        await router.run(SETTLE, "key", b"", call)
    assert (len(servers.urgent.takers), observed) == (1, [("settle", "unavailable")])


def test_a_defect_in_what_is_done_with_a_reply_does_not_reach_the_connection() -> None:
    def fail(_call: str, _outcome: str, _seconds: float) -> None:
        raise KeyError

    servers = FakeServers()
    _, ended = begun(servers, fail)
    servers.urgent.takers[0].set_result([1, servers.clock.now_ms()])
    (call,) = ended
    assert call.numbers is None
    with pytest.raises(KeyError):
        call.result()


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_defect_in_what_follows_a_call_is_reported_and_does_not_reach_the_connection(is_lost: bool) -> None:
    reported: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    servers, defect = FakeServers(), KeyError()

    def fail(_call: BegunCall) -> None:
        raise defect

    assert Router(cast(RedisServers, servers), lambda *_: None).begin(SETTLE, "key", b"", fail)
    (taker,) = servers.urgent.takers
    if is_lost:
        taker.set_exception(ConnectionDown("broke the connection", sent=True))
    else:
        taker.set_result([1, servers.clock.now_ms()])
    assert reported == [defect]


def test_nothing_is_begun_where_no_node_is_known() -> None:
    ended: list[BegunCall] = []
    router = Router(cast(RedisServers, FakeServers(known=False)), lambda *_: None)
    assert not router.begin(SETTLE, "key", b"", ended.append)
    assert ended == []
