"""Every store finds once that a quota has crossed a threshold, and keeps the notification until it is delivered."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from gateway.core.calendar import window
from gateway.core.end_users import OTHER_USERS
from gateway.core.grants import Grant
from gateway.core.limits import Limit, Mode, Per, Scope
from gateway.store.contract import OUTBOX_MAX, OUTBOX_PAST, USERS_PACE_MS, USERS_WAIT_MS, NotificationOutbox
from tests.contract.store.asking import admitted, ask, bill, limit, truth, used_and_held
from tests.contract.store.keepers import UTC, Keeper, MemoryKeeper, RedisKeeper
from tests.redis_servers import RedisServer

AT = (50, 80, 100)
QUOTA = limit("tokens", "total", 1_000, notify_at=AT)
LEASE_MS = 400


class Crossing(NamedTuple):
    counter: str
    begins: str
    percent: int
    used: int


@pytest.fixture
def outbox(keeper: Keeper) -> NotificationOutbox:
    outbox: NotificationOutbox = keeper.store.notifications  # type: ignore[attr-defined]  # of both backends
    outbox.follow(["red"], ["m"])
    return outbox


async def use(keeper: Keeper, amount: int, *limits: Limit) -> None:
    await keeper.store.settle(truth(await admitted(keeper.store, ask(*limits, fixed=1, likely=1, most=1)), amount))


async def crossings(outbox: NotificationOutbox) -> list[Crossing]:
    """Those that wait, which are taken out."""
    found = []
    for entry in await outbox.claim(100, LEASE_MS):
        what, counter, begins, percent, used, _ = entry.split("\n")
        assert what == "quota"
        found.append(Crossing(counter, begins, int(percent), int(used)))
        await outbox.done(entry)
    return sorted(found, key=lambda crossing: crossing.percent)


async def test_a_settlement_that_crosses_a_threshold_puts_in_one_notification(
    keeper: Keeper, outbox: NotificationOutbox
) -> None:
    await use(keeper, 499, QUOTA)
    assert await crossings(outbox) == []
    await use(keeper, 1, QUOTA)
    assert await crossings(outbox) == [Crossing(outbox.counter_name(QUOTA), "0", 50, 500)]
    await use(keeper, 100, QUOTA)
    assert await crossings(outbox) == []


@pytest.mark.parametrize("name", ["tokens per:day}:c:key:x", "a" * 200])
@pytest.mark.parametrize("scope", Scope)
async def test_the_name_of_a_counter_says_whose_it_is(outbox: NotificationOutbox, scope: Scope, name: str) -> None:
    subject = "" if scope is Scope.ORGANISATION else "0123456789ab"
    of = limit("tokens", "day", 5, name=name, scope=scope, subject=subject, team="red" if scope != Scope.MODEL else "")
    owner = outbox.counter_owner(outbox.counter_name(of))
    assert owner.scope == scope
    assert owner.subject == subject or scope is Scope.USER


@pytest.mark.parametrize("name", ["", "5", "[]", "what another program has put in"])
async def test_what_is_no_name_of_a_counter_is_of_no_scope(outbox: NotificationOutbox, name: str) -> None:
    assert outbox.counter_owner(name) == ("", "")


async def test_each_of_several_thresholds_has_its_own(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await use(keeper, 1_001, QUOTA)
    assert [(crossing.percent, crossing.used) for crossing in await crossings(outbox)] == [(each, 1_001) for each in AT]


async def test_many_settlements_at_a_time_cross_each_once(keeper: Keeper, outbox: NotificationOutbox) -> None:
    held = [await admitted(keeper.store, ask(QUOTA, fixed=1, likely=1, most=1)) for _ in range(50)]
    await asyncio.gather(*[keeper.store.settle(truth(each, 30)) for each in held for _ in range(2)])
    assert [crossing.percent for crossing in await crossings(outbox)] == list(AT)


async def test_requests_that_are_counted_at_their_admission_cross_when_they_end(
    keeper: Keeper, outbox: NotificationOutbox
) -> None:
    requests = limit("requests", "total", 4, notify_at=AT)
    held = [await admitted(keeper.store, ask(requests)) for _ in range(4)]
    assert await crossings(outbox) == []
    for each in held:
        await keeper.store.settle(truth(each, 0))
    assert [crossing.percent for crossing in await crossings(outbox)] == list(AT)


async def test_a_limit_in_shadow_crosses_too(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await use(keeper, 10, limit("tokens", "total", 10, notify_at=(100,), mode=Mode.SHADOW, name="shadow"))
    assert [crossing.percent for crossing in await crossings(outbox)] == [100]


async def test_several_limits_of_a_request_cross_by_themselves(keeper: Keeper, outbox: NotificationOutbox) -> None:
    everybody = {"scope": Scope.ORGANISATION, "subject": "", "team": ""}
    of_all = limit("tokens", "month", 100, notify_at=(90,), **everybody)
    of_model = limit("tokens", "day", 1_000, notify_at=(10,), scope=Scope.MODEL, subject="m", team="")
    others = (limit("tokens", "hour", 9_000), limit("concurrent", None, 9), limit("tokens", "week", 50))
    await use(keeper, 100, *others, of_all, QUOTA, of_model)
    found = {(crossing.counter, crossing.percent) for crossing in await crossings(outbox)}
    assert found == {(outbox.counter_name(of_all), 90), (outbox.counter_name(of_model), 10)}


async def test_a_notification_names_the_window(keeper: Keeper, outbox: NotificationOutbox) -> None:
    daily = limit("tokens", "day", 10, notify_at=(100,))
    await use(keeper, 10, daily)
    (found,) = await crossings(outbox)
    (status,) = await keeper.store.limit_statuses([daily])
    assert int(found.begins) == window(Per.DAY, UTC, status.resets_ms - 1)[0]


async def test_the_next_window_crosses_again() -> None:
    keeper = MemoryKeeper()
    outbox = keeper.store.notifications  # type: ignore[attr-defined]
    daily = limit("tokens", "day", 10, notify_at=(100,))
    for _ in range(2):
        await use(keeper, 10, daily)
        assert len(await crossings(outbox)) == 1
        await keeper.pass_ms(86_400_000)


async def test_a_raised_amount_does_not_repeat_what_was_crossed(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await use(keeper, 800, QUOTA)
    assert len(await crossings(outbox)) == 2
    raised = limit("tokens", "total", 2_000, notify_at=AT)
    await use(keeper, 900, raised)
    assert await crossings(outbox) == []
    await use(keeper, 300, raised)
    assert [crossing.percent for crossing in await crossings(outbox)] == [100]


async def test_what_a_grant_adds_counts(keeper: Keeper, outbox: NotificationOutbox) -> None:
    now_ms = (await admitted(keeper.store, ask())).at_ms
    await keeper.store.grant(QUOTA, Grant("0123456789ab", 1_000, now_ms + 3_600_000))
    await use(keeper, 999, QUOTA)
    assert await crossings(outbox) == []
    await use(keeper, 1, QUOTA)
    assert [crossing.percent for crossing in await crossings(outbox)] == [50]


async def test_what_somebody_else_has_at_the_outbox_s_key_holds_no_settlement_up(redis: RedisServer) -> None:
    with redis.client() as client:
        client.set("gw:1:{o}:n", "another program's")
    keeper = RedisKeeper(redis.url, [redis])
    put_in: list[tuple[int, int]] = []
    keeper.store.notifications.subscribe(lambda *counts: put_in.append(counts))  # type: ignore[attr-defined]
    try:
        await use(keeper, 600, QUOTA)
        assert await used_and_held(keeper.store, QUOTA) == (600, 0)
        assert put_in == [(0, 1)]
    finally:
        await keeper.store.close()


async def test_an_entry_is_claimed_by_one_and_free_again_after_the_lease(
    keeper: Keeper, outbox: NotificationOutbox
) -> None:
    assert await outbox.post(["one", "two"], "flag", 60_000)
    claimed = await outbox.claim(1, LEASE_MS) + await outbox.claim(9, LEASE_MS)
    assert sorted(claimed) == ["one", "two"]
    assert await outbox.claim(9, LEASE_MS) == []
    await outbox.done("one")
    await keeper.pass_ms(LEASE_MS + 1)
    assert await outbox.claim(9, LEASE_MS) == ["two"]
    await outbox.done("two")
    await keeper.pass_ms(LEASE_MS + 1)
    assert await outbox.claim(9, LEASE_MS) == []


async def test_an_entry_that_is_deferred_is_due_later(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await outbox.post(["one"], "flag", 60_000)
    await outbox.claim(9, 60_000)
    await outbox.defer("one", LEASE_MS)
    assert await outbox.claim(9, LEASE_MS) == []
    await keeper.pass_ms(LEASE_MS + 50)
    assert await outbox.claim(9, LEASE_MS) == ["one"]


async def test_an_entry_is_replaced_once(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await use(keeper, 500, QUOTA)
    (entry,) = await outbox.claim(9, LEASE_MS)
    await outbox.replace(entry, ["a", "b"])
    await outbox.replace(entry, ["c"])
    assert sorted(await outbox.claim(9, LEASE_MS)) == ["a", "b"]


async def test_what_is_done_is_not_deferred(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await outbox.post(["one"], "flag", 60_000)
    await outbox.claim(9, LEASE_MS)
    await outbox.done("one")
    await outbox.defer("one", 1)
    await keeper.pass_ms(50)
    assert await outbox.claim(9, LEASE_MS) == []


async def test_a_flag_lets_one_post_for_all(keeper: Keeper, outbox: NotificationOutbox) -> None:
    posted = await asyncio.gather(*[outbox.post([f"down {number}"], "up1", 60_000) for number in range(5)])
    assert sum(posted) == 1
    cleared = await asyncio.gather(*[outbox.clear("up1", [f"back {number}"]) for number in range(5)])
    assert sum(cleared) == 1
    assert sorted(entry.split()[0] for entry in await outbox.claim(9, LEASE_MS)) == ["back", "down"]
    assert await outbox.post([], "up1", 60_000)


async def test_a_flag_lasts_while_it_is_raised_again(keeper: Keeper, outbox: NotificationOutbox) -> None:
    assert await outbox.post([], "flag", 600)
    await keeper.pass_ms(400)
    assert not await outbox.post([], "flag", 600)
    await keeper.pass_ms(400)
    assert not await outbox.post([], "flag", 600)
    await keeper.pass_ms(700)
    assert await outbox.post([], "flag", 600)


async def test_what_does_not_fit_is_dropped_and_reported(keeper: Keeper, outbox: NotificationOutbox) -> None:
    noted: list[tuple[int, int]] = []
    outbox.subscribe(lambda put_in, dropped: noted.append((put_in, dropped)))
    await outbox.post([str(number) for number in range(OUTBOX_MAX - 1)], "fill", 60_000)
    await outbox.post(["last", "beyond"], "more", 60_000)
    everybody = {"scope": Scope.ORGANISATION, "subject": "", "team": ""}
    await use(keeper, 1_000, limit("tokens", "total", 1_000, notify_at=AT, **everybody))
    assert noted[:2] == [(OUTBOX_MAX - 1, 0), (1, 1)]
    assert [sum(column) for column in zip(*noted[2:], strict=True)] == [0, len(AT)]
    await outbox.claim(1, LEASE_MS)
    assert outbox.waiting == OUTBOX_MAX


OF_USERS = limit("tokens", "total", 100, scope=Scope.USER, subject="", notify_at=(80, 100))


async def use_as(keeper: Keeper, user: str, amount: int, of: Limit = OF_USERS) -> None:
    held = await admitted(keeper.store, ask(of.for_user(user), fixed=1, likely=1, most=1))
    await keeper.store.settle(truth(held, amount, bill(user=user)))


async def waiting(outbox: NotificationOutbox) -> list[list[str]]:
    """The entries that wait, a list of lines each."""
    return sorted(each.entry.split("\n") for each in (await outbox.report(OUTBOX_PAST)).waiting)


async def test_end_users_who_cross_are_one_entry_that_waits(keeper: Keeper, outbox: NotificationOutbox) -> None:
    counter = outbox.counter_name(OF_USERS)
    for number in range(12):
        await use_as(keeper, f"user {number}\nof a team", 85)
    assert await waiting(outbox) == [["users", counter, "0", "80"]]
    assert await outbox.claim(9, 60_000) == [], "it waits for others"
    (entry,) = (await outbox.report(1)).waiting
    await outbox.gather(entry.entry)
    (crossed,) = await waiting(outbox)
    assert (crossed[:4], crossed[5]) == (["crossed", counter, "0", "80"], "12")
    assert crossed[6:] == [f"user {number} of a team" for number in range(5)]
    assert len(await outbox.claim(9, 60_000)) == 1


async def test_each_end_user_is_counted_once_for_each_threshold(keeper: Keeper, outbox: NotificationOutbox) -> None:
    for amount in (85, 5, 5, 10):
        await use_as(keeper, "ada", amount)
    for entry in (await outbox.report(9)).waiting:
        await outbox.gather(entry.entry)
    assert [(of[3], of[5:]) for of in await waiting(outbox)] == [("100", ["1", "ada"]), ("80", ["1", "ada"])]


async def test_who_crosses_after_the_gathering_waits_for_an_hour(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await use_as(keeper, "ada", 85)
    (first,) = (await outbox.report(1)).waiting
    await outbox.gather(first.entry)
    (crossed,) = (await outbox.report(1)).waiting
    gathered_ms = int(crossed.entry.split("\n")[4])
    assert first.due_ms - gathered_ms <= USERS_WAIT_MS
    await outbox.claim(9, 60_000)
    await outbox.done(crossed.entry)
    await use_as(keeper, "grace", 85)
    (second,) = (await outbox.report(1)).waiting
    assert second.due_ms == gathered_ms + USERS_PACE_MS
    await outbox.gather(second.entry)
    assert [of[5:] for of in await waiting(outbox)] == [["1", "grace"]]


async def test_an_entry_of_end_users_is_gathered_once(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await use_as(keeper, "ada", 85)
    (entry,) = (await outbox.report(1)).waiting
    for _ in range(2):
        await outbox.gather(entry.entry)
    assert len(await waiting(outbox)) == 1


async def test_the_users_who_share_a_counter_are_not_one_of_them(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await use_as(keeper, OTHER_USERS, 100)
    assert await waiting(outbox) == []


async def test_limits_of_a_team_and_of_its_users_cross_side_by_side(keeper: Keeper, outbox: NotificationOutbox) -> None:
    monthly = limit("tokens", "month", 100, scope=Scope.USER, subject="", notify_at=(50,))
    held = await admitted(
        keeper.store, ask(QUOTA, OF_USERS.for_user("ada"), monthly.for_user("ada"), fixed=1, likely=1, most=1)
    )
    await keeper.store.settle(truth(held, 500, bill(user="ada")))
    found = {(of[0], of[3]) for of in await waiting(outbox)}
    assert found == {("quota", "50"), ("users", "50"), ("users", "80"), ("users", "100")}


async def assert_only_what_does_not_fit_is_dropped(keeper: Keeper) -> None:
    outbox: NotificationOutbox = keeper.store.notifications  # type: ignore[attr-defined]
    noted: list[tuple[int, int]] = []
    await outbox.post([str(number) for number in range(OUTBOX_MAX)], "fill", 60_000)
    outbox.subscribe(lambda put_in, dropped: noted.append((put_in, dropped)))
    await use_as(keeper, "ada", 85)
    await outbox.done("0")
    await use_as(keeper, "grace", 85)
    assert noted == [(0, 1), (1, 0)]


async def test_where_the_outbox_is_full_an_end_user_is_dropped_and_the_next_is_not() -> None:
    await assert_only_what_does_not_fit_is_dropped(MemoryKeeper())


async def test_a_full_outbox_in_redis_drops_an_end_user_and_not_the_next(redis: RedisServer) -> None:
    keeper = RedisKeeper(redis.url, [redis])
    try:
        await assert_only_what_does_not_fit_is_dropped(keeper)
    finally:
        await keeper.store.close()


async def test_the_last_attempts_are_kept(keeper: Keeper, outbox: NotificationOutbox) -> None:
    for number in range(OUTBOX_PAST + 2):
        await outbox.note(f"sent {number}", delivered=True)
    await outbox.note("failed", delivered=False)
    report = await outbox.report(OUTBOX_PAST)
    assert (report.delivered[0], len(report.delivered), report.problems) == (
        f"sent {OUTBOX_PAST + 1}",
        OUTBOX_PAST,
        ["failed"],
    )
    assert len((await outbox.report(3)).delivered) == 3


async def test_what_waits_is_reported_with_its_time(keeper: Keeper, outbox: NotificationOutbox) -> None:
    await outbox.post(["one", "two", "three"], "flag", 60_000)
    await outbox.claim(9, LEASE_MS)
    await outbox.defer("one", 60_000)
    report = await outbox.report(2)
    assert (len(report.waiting), report.total) == (2, 3)
    last = (await outbox.report(9)).waiting[-1]
    assert (last.entry, last.due_ms > report.waiting[0].due_ms) == ("one", True)


async def test_bytes_that_are_no_text_are_claimed_and_taken_out(redis: RedisServer) -> None:
    with redis.client() as client:
        client.zadd("gw:1:{o}:n", {b"\xff\xfe": 1})
        keeper = RedisKeeper(redis.url, [redis])
        outbox: NotificationOutbox = keeper.store.notifications  # type: ignore[attr-defined]
        try:
            (entry,) = await outbox.claim(9, LEASE_MS)
            await outbox.defer(entry, 1)
            await outbox.done(entry)
            assert client.zcard("gw:1:{o}:n") == 0
        finally:
            await keeper.store.close()
