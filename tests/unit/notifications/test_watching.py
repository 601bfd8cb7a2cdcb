"""What processes notice, and that one of them notifies."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from gateway.core.calendar import DAY_MS
from gateway.core.health import UpstreamStatus
from gateway.core.notifications import EventType
from gateway.core.snapshot import Caller
from gateway.identity.contract import AuditEntry, StoredKey
from gateway.identity.in_memory import InMemoryKeyStore
from gateway.notifications.watching import EXPIRES_SOON_MS, LASTING_MS, NotificationWatch, Speaker, WatchedParts
from tests.unit.notifications.test_delivery import World


class Place:
    """Two processes that share a store, and see an upstream and the store by themselves."""

    def __init__(self) -> None:
        self.world = World()
        self.keys = InMemoryKeyStore(self.world.clock)
        self.up = [True, True]
        self.trouble: str | None = None
        self.watches = [self._watch(number) for number in (0, 1)]

    async def look(self, *who: int, seconds: float = 0.0) -> None:
        self.world.clock.at_ms += round(seconds * 1000)
        for number in who:
            await self.watches[number]._look_at_store()
            await self.watches[number]._look_at_upstreams()

    async def told(self) -> list[EventType]:
        await self.world.rounds()
        return [message.type for _, message in self.world.sender.sent]

    def _watch(self, number: int) -> NotificationWatch:
        world = self.world

        def upstreams() -> Sequence[UpstreamStatus]:
            return [UpstreamStatus("main", self.up[number], 0, ())]

        watched = WatchedParts(upstreams, lambda: self.trouble, self.keys, lambda: world.snapshot)
        watch = NotificationWatch(world.another(), watched, Speaker("gw-1", "refuse"), world.clock)
        watch.speaks = number == 0
        return watch


@pytest.fixture
def place() -> Place:
    return Place()


async def test_an_upstream_that_is_down_for_all_is_told_of_once_and_so_is_that_it_is_back(place: Place) -> None:
    place.up = [False, False]
    await place.look(0, 1)
    assert await place.told() == []
    for _ in range(20):
        await place.look(0, 1, seconds=10)
    assert await place.told() == [EventType.UPSTREAM_DOWN]
    place.up = [True, True]
    await place.look(0, 1, seconds=5)
    assert await place.told() == [EventType.UPSTREAM_DOWN]
    await place.look(0, 1, seconds=31)
    await place.look(0, 1, seconds=31)
    assert await place.told() == [EventType.UPSTREAM_DOWN, EventType.UPSTREAM_UP]


async def test_an_upstream_that_is_down_for_a_moment_is_no_news(place: Place) -> None:
    for up in (False, True, False, True):
        place.up = [up, True]
        await place.look(0, seconds=9)
    assert await place.told() == []


async def test_an_upstream_that_goes_down_again_is_told_of_again(place: Place) -> None:
    for up in (False, True, False):
        place.up = [up, True]
        await place.look(0, seconds=1)
        await place.look(0, seconds=31)
    assert await place.told() == [EventType.UPSTREAM_DOWN, EventType.UPSTREAM_UP, EventType.UPSTREAM_DOWN]


async def test_a_process_that_dies_leaves_no_flag_behind_for_ever(place: Place) -> None:
    place.up = [False, True]
    await place.look(0)
    await place.look(0, seconds=11)
    place.world.clock.at_ms += LASTING_MS + 1
    place.up = [True, False]
    await place.look(1)
    await place.look(1, seconds=11)
    assert await place.told() == [EventType.UPSTREAM_DOWN, EventType.UPSTREAM_DOWN]


async def test_an_outage_of_the_store_is_told_of_by_one_process_of_a_gateway(place: Place) -> None:
    place.trouble = "does not answer"
    await place.look(0, 1)
    assert await place.told() == []
    await place.look(0, 1, seconds=11)
    await place.look(0, 1, seconds=60)
    assert [message.data for _, message in place.world.sender.sent] == [
        {"gateway": "gw-1", "reason": "does not answer", "on_outage": "refuse"}
    ]
    place.trouble = None
    await place.look(0, 1, seconds=1)
    await place.look(0, 1, seconds=6)
    assert await place.told() == [EventType.STORE_UNAVAILABLE, EventType.STORE_AVAILABLE]


async def test_an_outage_of_a_moment_is_no_news(place: Place) -> None:
    place.trouble = "does not answer"
    await place.look(0, 1)
    place.trouble = None
    await place.look(0, 1, seconds=9)
    await place.look(0, 1, seconds=60)
    assert await place.told() == []


def stored(name: str, now_ms: int, days: float | None, **changes: object) -> StoredKey:
    expires_ms = None if days is None else now_ms + round(days * DAY_MS)
    key = StoredKey(name, name * 5, name, "red", now_ms, name, expires_ms=expires_ms)
    return msgspec.structs.replace(key, **changes)


async def test_keys_that_expire_within_a_week_are_told_of_once(place: Place) -> None:
    now_ms = place.world.clock.at_ms
    keys = [
        stored("soon", now_ms, 6.9),
        stored("later", now_ms, 7.1),
        stored("never", now_ms, None),
        stored("past", now_ms, -1),
        stored("revoked", now_ms, 3, revoked_ms=now_ms),
        stored("disabled", now_ms, 3, disabled=True),
    ]
    await place.keys.write(keys, AuditEntry("a", "b", "c"))
    of_file = {"x": Caller("file", "of the file", "red", expires_ms=now_ms + DAY_MS)}
    place.world.snapshot = msgspec.structs.replace(place.world.snapshot, callers=of_file)
    for watch in place.watches:
        await watch.look_at_keys()
    await place.told()
    found = {message.data["key"]: message.data for _, message in place.world.sender.sent}
    assert found.keys() == {"soon", "file"}
    assert (found["soon"]["team"], found["soon"]["owner"]) == ("red", "leads")

    place.world.clock.at_ms += 3_600_000
    await place.watches[0].look_at_keys()
    assert len(await place.told()) == 2
    place.world.clock.at_ms += DAY_MS
    await place.watches[1].look_at_keys()
    assert len(await place.told()) == 3
    assert EXPIRES_SOON_MS == 7 * DAY_MS


async def test_a_refused_configuration_is_told_of_by_one_of_those_that_read_it(place: Place) -> None:
    for watch in place.watches:
        await watch.configuration_refused(["a: is wrong"])
    await place.watches[0].configuration_refused(["b: is wrong"])
    assert await place.told() == [EventType.CONFIGURATION_REFUSED] * 2
