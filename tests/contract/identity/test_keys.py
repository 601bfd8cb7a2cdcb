"""What every store of keys promises."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Any

import msgspec
import pytest

from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.identity.contract import AUDIT_ENTRIES, CHANGES_MAX, AuditEntry, KeyStore, StoredGrant, StoredKey
from tests.contract.identity.conftest import keys_in_redis
from tests.redis_servers import RedisServer

LIMIT = Limit("requests-per-minute", Scope.KEY, "", Meter.REQUESTS, Per.MINUTE, 60, 60)


def key_of(number: int, **changes: Any) -> StoredKey:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    key = StoredKey(digest[:12], digest, f"key-{number}", "search", 1_000 + number, digest[:12], limits=(LIMIT,))
    return msgspec.structs.replace(key, **changes)


def entry_of(number: int = 0) -> AuditEntry:
    return AuditEntry("a test", "key.create", f"key-{number}", None, {"number": number})


async def test_what_is_written_is_read_as_it_was(keys: KeyStore) -> None:
    whole = key_of(
        1,
        models=("openai/*",),
        networks=("10.0.0.0/8",),
        metadata={"owner": "ä"},
        expires_ms=5,
        disabled=True,
        revoked_ms=7,
        rotated_from="0" * 12,
    )
    written = await keys.write([whole], entry_of())
    assert written is not None
    assert abs(written.at_ms - await keys.time_ms()) < 60_000
    assert await keys.get([whole.id, "f" * 12]) == [whole, None]
    assert await keys.get([]) == []


async def test_a_key_is_written_over_the_revision_that_its_writer_has_read_and_no_other(keys: KeyStore) -> None:
    key, other = key_of(1), key_of(2)
    assert await keys.write([key], entry_of()) is not None
    assert await keys.write([key], entry_of()) is None
    changed = msgspec.structs.replace(key, revision=2, disabled=True)
    assert await keys.write([other, msgspec.structs.replace(key, revision=3)], entry_of()) is None
    assert await keys.get([key.id, other.id]) == [key, None]
    assert await keys.write([other, changed], entry_of()) is not None
    assert await keys.get([key.id, other.id]) == [changed, other]
    assert len((await keys.audit("", 10)).entries) == 2


async def test_of_many_who_change_one_key_at_once_one_does(keys: KeyStore) -> None:
    await keys.write([key_of(1)], entry_of())
    changes = [key_of(1, revision=2, name=f"by-{number}") for number in range(20)]
    written = await asyncio.gather(*[keys.write([change], entry_of()) for change in changes])
    assert len([each for each in written if each is not None]) == 1


async def test_lists_have_pages_in_the_order_of_creation_of_all_and_of_one_team(keys: KeyStore) -> None:
    made = [key_of(number, team="search" if number % 3 else "ops") for number in range(25)]
    for key in reversed(made):
        await keys.write([key], entry_of())
    for team in ("", "search", "ops", "nobody"):
        found, cursor, pages = [], "", 0
        while cursor or not pages:
            page = await keys.page(team, cursor, 4)
            assert len(page.keys) <= 4
            found += page.keys
            cursor, pages = page.next, pages + 1
        assert found == [key for key in made if team in ("", key.team)]


def rotated(number: int, first: StoredKey, **changes: Any) -> StoredKey:
    return key_of(number, counted_as=first.id, rotated_from=first.id, **changes)


async def test_keys_are_found_by_what_their_limits_are_counted_under(keys: KeyStore) -> None:
    first, other = key_of(1), key_of(2)
    second, third = rotated(3, first), rotated(4, first)
    await keys.write([first, other], entry_of())
    assert await keys.counted_as(first.id) == [first]
    await keys.write([third], entry_of())
    await keys.write([second], entry_of())
    assert await keys.counted_as(first.id) == [first, second, third]
    assert await keys.counted_as(other.id) == [other]
    assert await keys.counted_as(second.id) == []
    assert await keys.counted_as("f" * 12) == []


async def test_a_chain_of_rotations_goes_on_without_the_keys_that_are_forgotten(keys: KeyStore) -> None:
    first = key_of(1, revoked_ms=5)
    second, third = rotated(2, first, revoked_ms=6), rotated(3, first)
    await keys.write([first, second, third], entry_of())
    assert await keys.forget_revoked(6, 10) == 1
    assert await keys.counted_as(first.id) == [second, third]
    assert await keys.forget_revoked(7, 10) == 1
    assert await keys.counted_as(first.id) == [third]
    changed = msgspec.structs.replace(third, revision=2, revoked_ms=8)
    await keys.write([changed], entry_of())
    assert await keys.counted_as(first.id) == [changed]
    assert await keys.forget_revoked(9, 10) == 1
    assert await keys.counted_as(first.id) == []


async def test_keys_that_were_rotated_before_there_was_a_set_of_chains_are_found(redis: RedisServer) -> None:
    first = key_of(1, revoked_ms=5)
    successors = [rotated(number, first) for number in range(2, 4)]
    async with keys_in_redis(redis.url) as keys:
        await keys.write([first, *successors, *(key_of(number) for number in range(10, 13))], entry_of())
        with contextlib.closing(redis.client()) as client:
            (name,) = [each for each in client.scan_iter() if each.endswith(b":chains")]
            client.delete(name)
        assert await keys.counted_as(first.id) == [first, *successors]
    async with keys_in_redis(redis.url) as keys:
        with contextlib.closing(redis.client()) as client:
            client.zrem(name, f"{first.id}:{successors[0].place}")
        assert await keys.counted_as(first.id) == [first, successors[1]], "a set that is complete is not made again"


async def test_changes_since_a_position_are_told_and_nothing_twice(keys: KeyStore) -> None:
    beginning = await keys.changes("")
    assert beginning.ids is None
    assert await keys.changes(beginning.position) == (beginning.position, [])
    await keys.write([key_of(1), key_of(2)], entry_of())
    await keys.write([], entry_of())
    await keys.write([key_of(1, revision=2)], entry_of())
    changes = await keys.changes(beginning.position)
    assert changes.ids == [key_of(1).id, key_of(2).id, key_of(1).id]
    assert await keys.changes(changes.position) == (changes.position, [])


async def test_who_has_missed_too_much_or_knows_a_change_that_is_gone_is_told_to_forget_all(keys: KeyStore) -> None:
    position = (await keys.changes("")).position
    await keys.write([key_of(1)], entry_of())
    known = (await keys.changes(position)).position
    for number in range(CHANGES_MAX + 5):
        await keys.write([key_of(1, revision=2 + number)], entry_of())
    assert (await keys.changes(known)).ids is None
    assert (await keys.changes("9999999999999-0")).ids is None


async def test_a_subscriber_hears_of_changes(keys: KeyStore) -> None:
    heard = asyncio.Event()
    keys.subscribe(heard.set)
    async with asyncio.timeout(10):
        for number in range(1, 1_000):
            await keys.write([key_of(1, revision=number)], entry_of())
            if heard.is_set():
                break
            await asyncio.sleep(0)
        heard.clear()
        await keys.write([key_of(2)], entry_of())
        await heard.wait()


async def test_the_last_use_is_kept_by_id(keys: KeyStore) -> None:
    assert await keys.last_used(["a", "b"]) == [None, None]
    await keys.touch({})
    await keys.touch({"a": 5, "c": 6})
    await keys.touch({"a": 7})
    assert await keys.last_used(["a", "b", "c"]) == [7, None, 6]


async def test_the_audit_has_pages_the_newest_first(keys: KeyStore) -> None:
    for number in range(7):
        await keys.write([], entry_of(number))
    first = await keys.audit("", 4)
    rest = await keys.audit(first.next, 4)
    assert [entry.subject for entry in (*first.entries, *rest.entries)] == [f"key-{n}" for n in reversed(range(7))]
    assert rest.next == ""
    assert first.entries[0].after == {"number": 6}
    assert first.entries[0].at_ms > 0


@pytest.mark.parametrize(
    "cursor", ["0", "1", "1-1", "0-0", "9999999999999999999", "9999999999999999999-9999999999999999999"]
)
async def test_any_cursor_of_the_audit_has_a_page(keys: KeyStore, cursor: str) -> None:
    """The admin API lets these through, whichever store they came from."""
    await keys.write([], entry_of())
    page = await keys.audit(cursor, 4)
    assert page.next == ""
    assert len(page.entries) <= 1


@pytest.mark.slow
async def test_the_audit_keeps_the_last_ten_thousand(keys: KeyStore) -> None:
    for _ in range(0, AUDIT_ENTRIES + 50, 50):
        await asyncio.gather(*[keys.write([], entry_of(number)) for number in range(50)])
    count, cursor = 0, ""
    while page := await keys.audit(cursor, 1_000):
        count, cursor = count + len(page.entries), page.next
        if not cursor:
            break
    assert count == AUDIT_ENTRIES


async def test_a_key_is_forgotten_once_it_was_revoked_long_enough_and_no_other(keys: KeyStore) -> None:
    old, later, kept = key_of(1, revoked_ms=5_000), key_of(2, revoked_ms=6_000), key_of(3)
    await keys.write([old, later, kept], entry_of())
    await keys.touch({old.id: 1, kept.id: 2})
    assert await keys.forget_revoked(5_000, 10) == 0
    assert await keys.forget_revoked(6_000, 10) == 1
    assert await keys.get([old.id, later.id, kept.id]) == [None, later, kept]
    assert await keys.last_used([old.id, kept.id]) == [None, 2]
    for team in ("", "search"):
        assert [key.id for key in (await keys.page(team, "", 10)).keys] == [later.id, kept.id]
    assert await keys.forget_revoked(6_000, 10) == 0


async def test_so_many_keys_are_forgotten_at_once(keys: KeyStore) -> None:
    await keys.write([key_of(number, revoked_ms=number) for number in range(1, 6)], entry_of())
    assert [await keys.forget_revoked(10, 2) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_revoked_key_that_is_gone_does_not_hold_up_the_others(redis: RedisServer) -> None:
    """As after a restore of some of the keys."""
    gone, old = key_of(1, revoked_ms=1), key_of(2, revoked_ms=2)
    async with keys_in_redis(redis.url) as keys:
        await keys.write([gone, old], entry_of())
        with contextlib.closing(redis.client()) as client:
            (name,) = [each for each in client.scan_iter() if each.endswith(b":keys")]
            client.hdel(name, gone.id)
        assert await keys.forget_revoked(10, 1) == 1
        assert await keys.forget_revoked(10, 1) == 1
        assert await keys.get([old.id]) == [None]
        assert await keys.forget_revoked(10, 1) == 0


def grant_of(number: int) -> StoredGrant:
    return StoredGrant(f"{number:012x}", LIMIT, 5 * number, 1_000 + number, 9_000, "launch", "a test")


async def test_grants_are_listed_as_they_were_written_until_they_are_removed(keys: KeyStore) -> None:
    assert await keys.grants() == []
    first, second, third = grant_of(1), grant_of(2), grant_of(3)
    for grant in (first, second):
        await keys.write_grant(grant, entry_of())
    assert await keys.grants() == [first, second]
    await keys.write_grant(third, entry_of(3), [first.id, "f" * 12])
    assert await keys.grants() == [second, third]
    assert await keys.remove_grant(second.id, entry_of()) is not None
    assert await keys.remove_grant(second.id, entry_of()) is None
    assert await keys.grants() == [third]
    assert len((await keys.audit("", 10)).entries) == 4


async def test_a_grant_is_written_only_beside_those_that_were_seen(keys: KeyStore) -> None:
    first, second, third = grant_of(1), grant_of(2), grant_of(3)
    assert await keys.write_grant(first, entry_of(), seen=[]) is not None
    for seen in ([], [second.id], [first.id, second.id]):
        assert await keys.write_grant(second, entry_of(), [first.id], seen=seen) is None
    assert await keys.grants() == [first]
    assert await keys.write_grant(second, entry_of(), seen=[first.id]) is not None
    assert await keys.write_grant(third, entry_of(), [first.id], seen=[second.id, first.id]) is not None
    assert await keys.grants() == [second, third]
    assert len((await keys.audit("", 10)).entries) == 3


async def test_a_change_of_grants_is_no_change_of_keys(keys: KeyStore) -> None:
    position = (await keys.changes("")).position
    await keys.write_grant(grant_of(1), entry_of())
    assert (await keys.changes(position)).ids == []
