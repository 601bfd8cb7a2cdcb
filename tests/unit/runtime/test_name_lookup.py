from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from gateway.runtime.name_lookup import LookupFailed, NameLookups, ResolvedAddress, resolve
from gateway.runtime.tasks import BackgroundTasks


class FakeNames:
    """Every host has the address 127.0.0.1 but those whose name server hangs, until it is `freed`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.freed = threading.Event()

    def resolve(self, host: str, port: int) -> list[ResolvedAddress]:
        self.asked.append(host)
        if host.startswith("hanging"):
            self.freed.wait()
        return resolve("127.0.0.1", port)


@pytest.fixture
async def tasks() -> AsyncIterator[BackgroundTasks]:
    errors: list[BaseException] = []
    tasks = BackgroundTasks(lambda _doing, error: errors.append(error))
    yield tasks
    await tasks.close()
    assert errors == []


async def test_hosts_whose_name_server_hangs_hold_up_no_other(tasks: BackgroundTasks) -> None:
    names = FakeNames()
    lookups = NameLookups(tasks, names.resolve)
    hanging = [asyncio.ensure_future(lookups.addresses(f"hanging-{number}", 1)) for number in range(40)]
    [(*_, address)] = await lookups.addresses("redis", 6379)
    assert address == ("127.0.0.1", 6379)
    assert not any(one.done() for one in hanging)
    names.freed.set()
    await asyncio.gather(*hanging)


async def test_a_host_is_looked_up_once_however_many_ask_and_give_up(tasks: BackgroundTasks) -> None:
    names = FakeNames()
    lookups = NameLookups(tasks, names.resolve)
    asking = [asyncio.ensure_future(lookups.addresses("hanging", 1)) for _ in range(10)]
    await asyncio.sleep(0)
    asking.pop().cancel()
    names.freed.set()
    assert await asyncio.gather(*asking) == [resolve("127.0.0.1", 1)] * 9
    assert names.asked == ["hanging"]
    await lookups.addresses("hanging", 1)
    assert names.asked == ["hanging"] * 2


async def test_an_address_is_not_looked_up(tasks: BackgroundTasks) -> None:
    names = FakeNames()
    lookups = NameLookups(tasks, names.resolve)
    assert [entry[4][0] for host in ("127.0.0.1", "::1") for entry in await lookups.addresses(host, 1)] == [
        "127.0.0.1",
        "::1",
    ]
    assert names.asked == []


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long"), RuntimeError("no threads")],
)
async def test_each_who_asked_gets_the_failure(tasks: BackgroundTasks, error: Exception) -> None:
    def fail(host: str, port: int) -> list[ResolvedAddress]:
        raise error

    lookups = NameLookups(tasks, fail)
    asking = [asyncio.ensure_future(lookups.addresses("redis", 1)) for _ in range(2)]
    for one in asking:
        with pytest.raises(LookupFailed, match=r"cannot be resolved \((Name|label|no threads)"):
            await one


async def test_who_waits_as_the_process_stops_is_turned_away() -> None:
    names = FakeNames()
    tasks = BackgroundTasks(lambda _doing, _error: None)
    asking = asyncio.ensure_future(NameLookups(tasks, names.resolve).addresses("hanging", 1))
    await asyncio.sleep(0)
    await tasks.close()
    with pytest.raises(LookupFailed, match="shutting down"):
        await asking
    names.freed.set()
