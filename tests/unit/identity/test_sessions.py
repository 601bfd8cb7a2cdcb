"""Browser sessions: when they begin and end, and what becomes of them while the store is out."""

from __future__ import annotations

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.identity.in_memory import InMemoryKeyStore
from gateway.identity.sessions import HOLDER_MAX, SESSION_LIFE_S, SessionDirectory, new_session_id
from tests.unit.fakes import StandingClock


class FailingStore(InMemoryKeyStore):
    """Does not answer while `out`."""

    out = False

    async def keep_session(self, name: str, holder: str, life_ms: int) -> None:
        self._refuse()
        await super().keep_session(name, holder, life_ms)

    async def session(self, name: str) -> str | None:
        self._refuse()
        return await super().session(name)

    async def end_session(self, name: str) -> None:
        self._refuse()
        await super().end_session(name)

    def _refuse(self) -> None:
        if self.out:
            raise StoreUnavailable("The store is out.")


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def store(clock: StandingClock) -> FailingStore:
    return FailingStore(clock)


def directory(store: FailingStore, clock: StandingClock, kind: str = "console") -> SessionDirectory:
    return SessionDirectory(store, kind, clock.now_ms)


async def test_a_session_is_good_in_every_process_until_it_ends_in_one(
    store: FailingStore, clock: StandingClock
) -> None:
    one, other = directory(store, clock), directory(store, clock)
    begun = await one.begin(new_session_id(), "holder")
    assert await other.find(begun.id) == begun
    await other.end(begun.id)
    assert await one.find(begun.id) is None


async def test_a_session_ends_by_itself(store: FailingStore, clock: StandingClock) -> None:
    sessions = directory(store, clock)
    begun = await sessions.begin(new_session_id(), "holder")
    clock.ms += SESSION_LIFE_S * 1000 - 1
    assert await sessions.find(begun.id) == begun
    clock.ms += 1
    assert await sessions.find(begun.id) is None


async def test_a_session_of_one_kind_is_none_of_another(store: FailingStore, clock: StandingClock) -> None:
    begun = await directory(store, clock, "me").begin(new_session_id(), "holder")
    assert await directory(store, clock, "console").find(begun.id) is None


@pytest.mark.parametrize("guess", ["", "x" * 4000, "\udcff", "a-guess"])
async def test_what_names_no_session_finds_none(store: FailingStore, clock: StandingClock, guess: str) -> None:
    assert await directory(store, clock).find(guess) is None


async def test_the_store_does_not_have_what_is_in_the_cookie(store: FailingStore, clock: StandingClock) -> None:
    begun = await directory(store, clock).begin(new_session_id(), "holder")
    assert begun.id not in repr(store._sessions)


async def test_while_the_store_is_out_a_process_goes_on_with_what_it_has_seen(
    store: FailingStore, clock: StandingClock
) -> None:
    one, other = directory(store, clock), directory(store, clock)
    begun = await one.begin(new_session_id(), "holder")
    store.out = True
    assert await one.find(begun.id) == begun
    assert await other.find(begun.id) is None
    during = await one.begin(new_session_id(), "holder")
    assert await one.find(during.id) == during


async def test_what_ended_elsewhere_meanwhile_ends_when_the_store_is_back(
    store: FailingStore, clock: StandingClock
) -> None:
    one, other = directory(store, clock), directory(store, clock)
    begun = await one.begin(new_session_id(), "holder")
    await other.end(begun.id)
    store.out = True
    assert await one.find(begun.id) == begun
    store.out = False
    assert await one.find(begun.id) is None
    store.out = True
    assert await one.find(begun.id) is None


async def test_one_holder_keeps_the_newest_sessions_alone(store: FailingStore, clock: StandingClock) -> None:
    sessions = directory(store, clock)
    another = await sessions.begin(new_session_id(), "another holder")
    begun = [await sessions.begin(new_session_id(), "holder") for _ in range(3 * HOLDER_MAX)]
    assert len(store._sessions) == HOLDER_MAX + 1
    assert [each for each in begun if await sessions.find(each.id)] == begun[-HOLDER_MAX:]
    assert await sessions.find(another.id) == another
