"""What one process knows of stored keys, over a store whose answers wait until they are let go."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.snapshot import Caller, ConfigSnapshot, TeamTerms
from gateway.identity.contract import REVOKED_DAYS, AuditEntry, StoredKey
from gateway.identity.directory import KNOWN_MAX, LOOKUPS_MAX, UNKNOWN_MAX, KeyDirectory
from gateway.identity.in_memory import InMemoryKeyStore
from gateway.runtime.tasks import BackgroundTasks
from tests.unit.fakes import StandingClock

ENTRY = AuditEntry("a test", "key.create", "")
SHARED = Limit("tokens-per-day", Scope.TEAM, "search", Meter.TOKENS, Per.DAY, 100, 100, team="search")
OWN = Limit("requests-per-minute", Scope.KEY, "", Meter.REQUESTS, Per.MINUTE, 60, 60)
EACH_KEY = Limit("requests-per-minute", Scope.KEY, "", Meter.REQUESTS, Per.MINUTE, 5, 5)
TEAM = TeamTerms(Caller("", "", "search", models=(("a*",),), limits=(SHARED,)), (EACH_KEY,))
SNAPSHOT = ConfigSnapshot({}, {}, {"search": TEAM})


def digest_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def key_of(number: int, **changes: object) -> StoredKey:
    digest = digest_of(number)
    key = StoredKey(digest[:12], digest, f"key-{number}", "search", number, digest[:12])
    return msgspec.structs.replace(key, **changes)


class SlowKeyStore(InMemoryKeyStore):
    """Counts look-ups. While it is `held` they have their answer, which they give once it is let go."""

    def __init__(self) -> None:
        super().__init__(StandingClock())
        self.lookups = 0
        self.outage = False
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def get(self, ids: Sequence[str]) -> list[StoredKey | None]:
        self.lookups += 1
        found = await super().get(ids)
        await self.let_go.wait()
        if self.outage:
            raise StoreUnavailable("The store is out.")
        return found


@pytest.fixture
def store() -> SlowKeyStore:
    return SlowKeyStore()


@pytest.fixture
async def directory(store: SlowKeyStore) -> AsyncIterator[KeyDirectory]:
    failures: list[str] = []
    tasks = BackgroundTasks(lambda what, _error: failures.append(what))
    directory = KeyDirectory(store, SNAPSHOT, lambda: 77, tasks)
    await directory.catch_up()
    yield directory
    await directory.close()
    assert failures == []


async def test_a_key_is_looked_up_by_one_call_and_then_known(store: SlowKeyStore, directory: KeyDirectory) -> None:
    await store.write([key_of(1)], ENTRY)
    found = await asyncio.gather(*[directory.find(digest_of(1)) for _ in range(50)])
    assert {caller.key_name for caller in found if caller} == {"key-1"}
    assert store.lookups == 1
    assert directory.callers == {digest_of(1): found[0]}


async def test_an_unknown_hash_is_looked_up_once_until_a_key_has_it(
    store: SlowKeyStore, directory: KeyDirectory
) -> None:
    assert not directory.is_unknown(digest_of(1))
    for _ in range(3):
        assert await directory.find(digest_of(1)) is None
        assert directory.is_unknown(digest_of(1))
    assert store.lookups == 1
    await store.write([key_of(1)], ENTRY)
    await directory.catch_up()
    assert not directory.is_unknown(digest_of(1))
    assert await directory.find(digest_of(1)) is not None


async def test_another_hash_with_the_same_beginning_is_no_key(store: SlowKeyStore, directory: KeyDirectory) -> None:
    await store.write([key_of(1)], ENTRY)
    assert await directory.find(digest_of(1)[:12] + "0" * 52) is None
    assert await directory.find(digest_of(1)) is not None
    assert await directory.find(digest_of(1)[:12] + "0" * 52) is None


async def test_a_change_is_forgotten_and_nothing_else(store: SlowKeyStore, directory: KeyDirectory) -> None:
    await store.write([key_of(1), key_of(2)], ENTRY)
    await directory.catch_up()
    await directory.find(digest_of(1))
    await directory.find(digest_of(2))
    await store.write([key_of(1, revision=2, revoked_ms=5)], ENTRY)
    await directory.catch_up()
    assert set(directory.callers) == {digest_of(2)}
    assert await directory.find(digest_of(1)) is None


async def test_what_changes_while_it_is_looked_up_is_not_kept(store: SlowKeyStore, directory: KeyDirectory) -> None:
    await store.write([key_of(1)], ENTRY)
    store.let_go.clear()
    asking = asyncio.ensure_future(directory.find(digest_of(1)))
    while not store.lookups:
        await asyncio.sleep(0)
    await store.write([key_of(1, revision=2, revoked_ms=5)], ENTRY)
    await directory.catch_up()
    store.let_go.set()
    await asking
    assert directory.callers == {}
    assert await directory.find(digest_of(1)) is None


async def test_all_is_forgotten_where_the_store_cannot_say_what_has_changed(directory: KeyDirectory) -> None:
    restored = SlowKeyStore()
    await restored.write([key_of(1)], ENTRY)
    directory._store = restored
    directory._position = "5"
    await directory.find(digest_of(1))
    await directory.catch_up()
    assert directory.callers == {}


async def test_while_the_store_is_out_known_keys_go_on_and_others_are_an_outage(
    store: SlowKeyStore, directory: KeyDirectory
) -> None:
    await store.write([key_of(1), key_of(2)], ENTRY)
    await directory.catch_up()
    await directory.find(digest_of(1))
    store.outage = True
    assert directory.callers[digest_of(1)].key_name == "key-1"
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await directory.find(digest_of(2))
    store.outage = False
    assert await directory.find(digest_of(2)) is not None


async def test_a_request_that_leaves_does_not_take_the_answer_from_others(
    store: SlowKeyStore, directory: KeyDirectory
) -> None:
    await store.write([key_of(1)], ENTRY)
    store.let_go.clear()
    leaving, staying = (asyncio.ensure_future(directory.find(digest_of(1))) for _ in range(2))
    while not store.lookups:
        await asyncio.sleep(0)
    leaving.cancel()
    store.let_go.set()
    assert await staying is not None
    assert store.lookups == 1


async def test_what_is_kept_and_asked_at_once_is_bounded(store: SlowKeyStore, directory: KeyDirectory) -> None:
    store.let_go.clear()
    asking = [asyncio.ensure_future(directory.find(digest_of(number))) for number in range(LOOKUPS_MAX)]
    while store.lookups < LOOKUPS_MAX:
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="Too many"):
        await directory.find(digest_of(LOOKUPS_MAX))
    store.let_go.set()
    assert await asyncio.gather(*asking) == [None] * LOOKUPS_MAX
    for number in range(UNKNOWN_MAX + 10):
        await directory.find(digest_of(number))
    assert len(directory._unknown) == UNKNOWN_MAX
    await store.write([key_of(number) for number in range(KNOWN_MAX + 10)], ENTRY)
    await directory.catch_up()
    for number in range(KNOWN_MAX + 10):
        await directory.find(digest_of(number))
    assert len(directory.callers) == len(directory._keys) == KNOWN_MAX


async def test_a_key_has_what_its_team_has_and_its_own(store: SlowKeyStore, directory: KeyDirectory) -> None:
    await store.write([key_of(1, limits=(OWN,), models=("ab",), counted_as="f" * 12), key_of(2)], ENTRY)
    caller, plain = await directory.find(digest_of(1)), await directory.find(digest_of(2))
    assert caller is not None
    assert plain is not None
    assert caller.models == (("a*",), ("ab",))
    assert caller.limits == (SHARED, msgspec.structs.replace(OWN, subject="f" * 12, team="search"))
    assert plain.limits == (SHARED, msgspec.structs.replace(EACH_KEY, subject=digest_of(2)[:12], team="search"))


async def test_of_keys_that_are_counted_as_one_the_newest_is_first_and_a_revoked_one_is_left_out(
    store: SlowKeyStore, directory: KeyDirectory
) -> None:
    first = digest_of(1)[:12]
    later = [key_of(number, counted_as=first, limits=(OWN,)) for number in (2, 3)]
    revoked, elsewhere = key_of(4, counted_as=first, revoked_ms=5), key_of(5, counted_as=first, team="gone")
    await store.write([key_of(1), *later, revoked, elsewhere, key_of(6)], ENTRY)
    found = await directory.counted_as(first)
    assert [caller.key_name for caller in found] == ["key-3", "key-2", "key-1"]
    assert {limit.subject for caller in found for limit in caller.limits if limit.scope is Scope.KEY} == {first}


async def test_a_reload_gives_keys_the_new_terms_of_their_team_without_asking_again(
    store: SlowKeyStore, directory: KeyDirectory
) -> None:
    await store.write([key_of(1)], ENTRY)
    await directory.find(digest_of(1))
    directory.keep(ConfigSnapshot({}, {}, {}))
    assert await directory.find(digest_of(1)) is None
    directory.keep(SNAPSHOT)
    assert await directory.find(digest_of(1)) is not None
    assert store.lookups == 1


async def test_the_use_of_keys_is_noted_once_for_all_requests(store: SlowKeyStore, directory: KeyDirectory) -> None:
    directory.used.update(("a", "b"))
    await directory.flush()
    assert await store.last_used(["a", "b"]) == [77, 77]
    assert directory.used == set()


async def test_a_key_that_was_revoked_long_ago_is_forgotten_and_still_refused(
    store: SlowKeyStore, directory: KeyDirectory
) -> None:
    day_ms = 86_400_000
    now_ms = await store.time_ms()
    old, young = [
        msgspec.structs.replace(key_of(number), revoked_ms=now_ms - days * day_ms)
        for number, days in ((1, REVOKED_DAYS + 1), (2, REVOKED_DAYS - 1))
    ]
    await store.write([old, young], AuditEntry("a test", "key.import", "2 keys"))
    await directory.forget_revoked()
    assert await store.get([old.id, young.id]) == [None, young]
    assert [await directory.find(key.sha256) for key in (old, young)] == [None, None]
