"""What only a store in Redis can get wrong: keys, scripts, other processes, clocks."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from struct import pack, unpack
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import uvloop

from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, Meter, Scope
from gateway.core.losses import LossSlot
from gateway.core.reservation import AdmissionRequest, Hold, Holds, Reservation, Settlement, unasked_id
from gateway.store.backlog import Policy
from gateway.store.contract import HOLD_TTL_MS as HOLD_TTL_IN_EARNEST_MS
from gateway.store.contract import CallRefused, SettlementRest, UsageQuery
from gateway.store.in_redis import RedisStore
from gateway.store.in_redis.arguments import LONG_MS
from gateway.store.journal import Journal
from gateway.store.outbox import OutboxStore
from tests.contract.store.asking import admitted, ask, bill, clock_of, limit, refused, set_clock, truth, used_and_held
from tests.contract.store.keepers import HOLD_TTL_MS, UTC, redis_options, sure_tasks
from tests.contract.store.zones import zone_whose_midnight_is_at
from tests.event_loop_turns import turns_during
from tests.redis_servers import RedisServer

LIMITS = [
    limit("requests", "minute", 100),
    limit("tokens", "minute", 10_000),
    limit("tokens", "month", 1_000_000),
    limit("usd", "total", 1_000_000),
    limit("concurrent", None, 2),
]


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_options(redis.url), UTC)
    yield opened
    await opened.close()


@pytest.fixture
async def other(redis: RedisServer) -> AsyncIterator[RedisStore]:
    """Another gateway on the same Redis."""
    opened = RedisStore(redis_options(redis.url, "two"), UTC)
    yield opened
    await opened.close()


def dump(redis: RedisServer) -> dict[bytes, bytes | None]:
    with contextlib.closing(redis.client()) as client:
        return {key: client.dump(key) for key in client.scan_iter()}


def lives(redis: RedisServer) -> dict[str, int]:
    with contextlib.closing(redis.client()) as client:
        return {key.decode(): client.pttl(key) for key in client.scan_iter()}


async def test_what_is_kept_of_losses_ends_where_no_gateway_writes_any_more(
    redis: RedisServer, store: RedisStore
) -> None:
    await store.losses.add_losses(1_793_880_000_000, [LossSlot(1_793_880_000_000, {"streams_cut": 1}, {"a": 5})])
    kept = lives(redis)
    assert len(kept) == 2
    assert all(life_ms > 0 for life_ms in kept.values()), kept


async def test_a_refusal_leaves_every_key_as_it_was(redis: RedisServer, store: RedisStore) -> None:
    for _ in range(2):
        await admitted(store, ask(*LIMITS))
    before = dump(redis)
    await refused(store, ask(*LIMITS))
    assert dump(redis) == before


async def test_what_somebody_else_has_at_a_counter_s_key_is_not_written_over(
    redis: RedisServer, store: RedisStore
) -> None:
    one, other = limit("tokens", "month", 1_000), limit("tokens", "month", 2_000, subject="other")
    running = await admitted(store, ask(one, other))
    with contextlib.closing(redis.client()) as client:
        [key] = [key for key in client.scan_iter("*:c:*") if b"other" in key]
        for another_kind in (True, False):
            client.delete(key)
            if another_kind:
                client.hset(key, "a", "b")
            else:
                client.set(key, "text")
            before = dump(redis)
            with pytest.raises(CallRefused):
                await store.admit(ask(one, other))
            with pytest.raises(CallRefused):
                await store.settle(truth(running, 7))
            assert dump(redis) == before


@pytest.mark.parametrize(("named", "earlier"), [("gw:1:{t/red}:days", 0), ("gw:2:{t/red}:s:TODAY", 1)])
async def test_what_somebody_else_has_at_a_key_of_the_ledger_leaves_no_half_settlement(
    named: str, earlier: int, redis: RedisServer, store: RedisStore
) -> None:
    entry = bill(user="ann", day=datetime.now(UTC).date().isoformat())
    key = named.replace("TODAY", entry.day)
    for _ in range(earlier):
        await store.settle(truth(await admitted(store, ask(LIMITS[2])), 1, entry))
    running = truth(await admitted(store, ask(LIMITS[2])), 7, entry)
    with contextlib.closing(redis.client()) as client:
        client.set(key, "text")
        with pytest.raises(CallRefused):
            await store.settle(running)
        client.delete(key)
    await store.settle(running)
    assert await used_and_held(store, LIMITS[2]) == (earlier + 7, 0)
    assert (await store.usage(UsageQuery()))[0].requests == earlier + 1


@pytest.mark.parametrize("is_usual", [True, False])
async def test_a_settlement_leaves_nothing_to_be_awaited_unless_its_reply_is_unusual(
    is_usual: bool, redis: RedisServer, store: RedisStore
) -> None:
    await store.settle(truth(await admitted(store, ask(LIMITS[2])), 1, bill()))
    running = truth(await admitted(store, ask(LIMITS[2])), 7, bill())
    if not is_usual:
        with contextlib.closing(redis.client()) as client:
            client.script_flush()
    ended: asyncio.Future[SettlementRest | None] = asyncio.get_running_loop().create_future()
    store.begin_settlement(running, ended.set_result)
    rest = await ended
    assert (rest is None) == is_usual
    if rest is not None:
        await rest
    assert await used_and_held(store, LIMITS[2]) == (8, 0)
    assert (await store.usage(UsageQuery()))[0].requests == 2


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_redis_that_lost_its_data_reports_what_is_settled_from_then_on(
    at_once: bool, redis: RedisServer, store: RedisStore
) -> None:
    await store.settle(truth(await admitted(store, ask(LIMITS[2])), 1, bill()))
    with contextlib.closing(redis.client()) as client:
        client.flushall()
    for number in range(1, 4):
        running = truth(await admitted(store, ask(LIMITS[2])), 7, bill())
        if at_once:
            ended: asyncio.Future[SettlementRest | None] = asyncio.get_running_loop().create_future()
            store.begin_settlement(running, ended.set_result)
            if (rest := await ended) is not None:
                await rest
        else:
            await store.settle(running)
        assert (await store.usage(UsageQuery()))[0].requests == number


def counters_in(redis: RedisServer) -> dict[str, tuple[float, ...]]:
    """The numbers of each counter, by the name of its limit."""
    with contextlib.closing(redis.client()) as client:
        stored = {key.decode().split(":")[8]: client.get(key) for key in client.scan_iter("*:c:*")}
    return {name: unpack(f"<{len(value) // 8}d", value) for name, value in stored.items()}


async def test_every_key_has_an_expiry_and_a_schema_in_its_name(redis: RedisServer, store: RedisStore) -> None:
    await admitted(store, ask(*LIMITS))
    settled = await admitted(store, ask(*LIMITS))
    await store.settle(truth(settled, 7, bill()))
    await store.settle(Settlement("unasked", settled.at_ms - 60_000, Holds(), (), bill(user="ann")))
    kept = lives(redis)
    assert len(kept) == 14
    assert [key for key, life_ms in kept.items() if life_ms <= 0 or key[:6] not in ("gw:1:{", "gw:2:{")] == []


async def test_names_cannot_leave_their_place_in_a_key(redis: RedisServer, store: RedisStore) -> None:
    for name in ("a}b", "{x}", "a:b", "a b", "ü" * 200):
        await admitted(store, ask(limit("tokens", "minute", 100, team=name, subject=name, name=name)))
    keys = [key for key in lives(redis) if ":c:" in key]
    assert len(keys) == 5
    assert all(key.count("{") == key.count("}") == 1 and key.count(":") == 8 and len(key) < 250 for key in keys)


async def test_a_settlement_writes_of_counters_only_what_it_changes(redis: RedisServer, store: RedisStore) -> None:
    """What admission used at once of a rate stays, and of the requests at one time all but the hold."""
    running = [await admitted(store, ask(*LIMITS)) for _ in range(2)]
    before = counters_in(redis)
    await store.settle(truth(running[0], 7))
    after = counters_in(redis)
    changed = {
        name: [at for at, (old, new) in enumerate(zip(before[name], after[name], strict=False)) if old != new]
        for name in before
    }
    assert changed["requests-minute"] == []
    [hold] = changed["concurrent-None"]
    assert before["concurrent-None"][hold] - after["concurrent-None"][hold] == 1
    assert after["tokens-minute"][0] == 7 * before["tokens-minute"][1]


async def test_a_counter_takes_no_more_memory_than_its_numbers_need(redis: RedisServer, store: RedisStore) -> None:
    await store.settle(truth(await admitted(store, ask(*LIMITS)), 7))
    with contextlib.closing(redis.client()) as client:
        keys = list(client.scan_iter("*:c:*"))
        assert len(keys) == len(LIMITS)
        for key in keys:
            copy = key.replace(b"gw", b"as")
            client.set(copy, client.get(key))
            assert client.memory_usage(key) <= client.memory_usage(copy), key


async def test_counters_end_when_they_are_whole_again(redis: RedisServer, store: RedisStore) -> None:
    await store.settle(truth(await admitted(store, ask(*LIMITS)), 7_000))
    kept = {key.split(":")[-1]: life_ms for key, life_ms in lives(redis).items() if ":c:" in key}
    assert 600 < kept["requests-minute"] <= HOLD_TTL_MS + 10_000
    assert 41_500 < kept["tokens-minute"] <= 42_000 + 10_000
    assert kept["concurrent-None"] <= HOLD_TTL_MS + 10_000


async def test_records_end_an_hour_after_they_are_settled_and_a_week_after_in_doubt(
    redis: RedisServer, store: RedisStore
) -> None:
    settled = await admitted(store, ask(*LIMITS))
    await store.settle(truth(settled, 7))
    set_clock(clock_of(store), settled.at_ms + 4_000)
    left = await admitted(store, ask(*LIMITS))
    set_clock(clock_of(store), left.at_ms + 8_000)
    await store.renew([])
    hours = {
        int(key.split(":")[-1]): round(life_ms / 3_600_000) for key, life_ms in lives(redis).items() if ":r:" in key
    }
    assert hours == {settled.at_ms // 1000: 1, left.at_ms // 1000: 168}


async def settled_unheard(redis: RedisServer, store: RedisStore) -> tuple[RedisStore, Settlement]:
    """A store that does not know whether its only settlement was carried out."""
    hasty = RedisStore(redis_options(redis.url, "hasty", timeout_s=0.1), UTC)
    settlement = truth(await admitted(hasty, ask(*LIMITS)), 7)
    redis.freeze()
    with pytest.raises(StoreUnavailable):
        await hasty.settle(settlement)
    redis.thaw()
    await store.ping()
    async with asyncio.timeout(10):
        while hasty.trouble:
            await asyncio.sleep(HOLD_TTL_MS / 50_000)
    return hasty, settlement


async def hours_of_its_record(redis: RedisServer, hasty: RedisStore, after_ms: int) -> int:
    set_clock(clock_of(hasty), after_ms)
    await hasty.renew([])
    [life_ms] = [life_ms for key, life_ms in lives(redis).items() if ":r:hasty:" in key]
    return round(life_ms / 3_600_000)


async def test_a_record_in_doubt_ends_in_an_hour_once_a_replay_has_made_sure(
    redis: RedisServer, store: RedisStore
) -> None:
    hasty, settlement = await settled_unheard(redis, store)
    soon = settlement.at_ms + 4_000
    assert await hours_of_its_record(redis, hasty, soon) == 168
    # As a witness that the store takes others: its own place in the journal is still to come.
    await hasty.replay("hasty", 0, settlement)
    assert await hours_of_its_record(redis, hasty, soon) == 168
    await hasty.replay("hasty", 1, settlement)
    assert await hours_of_its_record(redis, hasty, soon) == 1
    assert await used_and_held(store, LIMITS[2]) == (7, 0)
    await hasty.close()


async def test_a_record_in_doubt_ends_in_an_hour_once_it_is_settled_again_from_memory(
    redis: RedisServer, store: RedisStore
) -> None:
    hasty, settlement = await settled_unheard(redis, store)
    await hasty.settle(settlement)
    assert await hours_of_its_record(redis, hasty, settlement.at_ms + 4_000) == 1
    assert await used_and_held(store, LIMITS[2]) == (7, 0)
    await hasty.close()


async def test_what_is_in_doubt_for_longer_than_its_record_lasts_is_forgotten(
    redis: RedisServer, store: RedisStore
) -> None:
    hasty, settlement = await settled_unheard(redis, store)
    await hours_of_its_record(redis, hasty, settlement.at_ms + LONG_MS - 1_000)
    assert hasty._in_doubt
    await hours_of_its_record(redis, hasty, settlement.at_ms + LONG_MS + 1_000)
    assert not hasty._in_doubt
    assert not hasty._records.settled(settlement.at_ms + 2 * LONG_MS)
    await hasty.close()


async def test_a_script_that_redis_forgets_is_brought_again(redis: RedisServer, store: RedisStore) -> None:
    reservation = await admitted(store, ask(*LIMITS))
    with contextlib.closing(redis.client()) as client:
        client.script_flush()
        await store.settle(truth(reservation, 7))
        client.script_flush()
        await asyncio.gather(*[admitted(store, ask(LIMITS[2])) for _ in range(10)])
    assert await used_and_held(store, LIMITS[2]) == (7, 300)


async def test_calls_of_one_turn_leave_together(redis: RedisServer, store: RedisStore) -> None:
    await store.ping()
    with contextlib.closing(redis.client()) as client:
        before = client.info("stats")["total_reads_processed"]
        await asyncio.gather(*[admitted(store, ask(LIMITS[0])) for _ in range(50)])
        assert client.info("stats")["total_reads_processed"] - before <= 4


async def test_gateways_whose_clocks_are_an_hour_apart_agree(store: RedisStore, other: RedisStore) -> None:
    set_clock(clock_of(store), clock_of(store).now_ms() - 3_600_000)
    set_clock(clock_of(other), clock_of(other).now_ms() + 3_600_000)
    lanes, minute = LIMITS[4], limit("requests", "minute", 3)
    first = await admitted(store, ask(lanes, minute))
    second = await admitted(other, ask(lanes, minute))
    assert abs(first.at_ms - second.at_ms) < 1_000
    await refused(store, ask(lanes))
    await refused(other, ask(lanes))
    await store.settle(truth(first, 0))
    await admitted(other, ask(lanes, minute))
    assert (await refused(store, ask(minute))).retry_after_ms <= 20_000


async def test_a_quota_begins_anew_at_midnight_by_the_clock_of_redis(redis: RedisServer) -> None:
    midnight_ms = int(time.time() + 2) * 1000
    store = RedisStore(redis_options(redis.url), zone_whose_midnight_is_at(midnight_ms))
    day, week = limit("tokens", "day", 100), limit("tokens", "total", 1_000)
    straddling = await admitted(store, ask(day, week))
    await store.settle(truth(await admitted(store, ask(day, week)), 50))
    assert (await store.limit_statuses([day]))[0].resets_ms == midnight_ms
    refusal = await refused(store, ask(day, fixed=60))
    assert refusal.at_ms + refusal.retry_after_ms == midnight_ms
    await asyncio.sleep(refusal.retry_after_ms / 1000)
    set_clock(clock_of(store), clock_of(store).now_ms() - 100)
    await store.settle(truth(straddling, 25))
    assert await used_and_held(store, day) == (0, 0)
    assert await used_and_held(store, week) == (75, 0)
    await admitted(store, ask(day, fixed=60))
    await store.close()


async def test_a_call_that_comes_too_late_changes_nothing(redis: RedisServer, store: RedisStore) -> None:
    """As when Redis was frozen and takes up what it was asked seconds ago."""
    await store.ping()
    hasty = RedisStore(redis_options(redis.url, timeout_s=0.05), UTC)
    await hasty.ping()
    redis.freeze()
    answer = await asyncio.gather(hasty.admit(ask(*LIMITS)), return_exceptions=True)
    assert isinstance(answer[0], Exception)
    await asyncio.sleep(redis_options(redis.url, timeout_s=0.05).timeout_s)
    redis.thaw()
    await store.ping()
    assert await used_and_held(store, LIMITS[0]) == (0, 0)
    assert await used_and_held(store, LIMITS[4]) == (0, 0)
    await hasty.close()


LASTING = [limit("requests", "day", 100), limit("tokens", "hour", 10_000), limit("usd", "month", 10_000), LIMITS[4]]
"""Nothing of these comes back by itself while a test runs, if holds live as long as they do in earnest."""


async def until_counted(store: RedisStore, amounts: list[int]) -> None:
    """Until no more and no less counts at LASTING."""
    async with asyncio.timeout(10):
        while [one.used + one.held for one in await store.limit_statuses(LASTING)] != amounts:
            await asyncio.sleep(HOLD_TTL_MS / 50_000)


async def test_an_admission_that_nobody_waits_for_is_taken_back(redis: RedisServer) -> None:
    options = msgspec.structs.replace(redis_options(redis.url, timeout_s=0.1), hold_ttl_ms=HOLD_TTL_IN_EARNEST_MS)
    store = RedisStore(options, UTC)
    await store.ping()
    kept = [0] * len(LASTING)
    for turns in range(1, 8):
        asking = asyncio.create_task(store.admit(ask(*LASTING)))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        [verdict] = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(verdict, Reservation):  # Redis was quick: who was answered keeps what it holds.
            kept = [sum(both) for both in zip(kept, verdict.holds.amounts, strict=True)]
        assert turns > 1 or isinstance(verdict, asyncio.CancelledError)
    await until_counted(store, kept)
    await store.close()


async def test_an_admission_whose_answer_is_lost_is_taken_back(redis: RedisServer, store: RedisStore) -> None:
    hasty = RedisStore(redis_options(redis.url, timeout_s=0.5), UTC)
    await hasty.ping()
    # So that what is asked of the frozen server is not too late: it is one that answered into a broken connection.
    set_clock(clock_of(hasty), hasty.now_ms() + 450)
    redis.freeze()
    verdicts = await asyncio.gather(*[hasty.admit(ask(*LASTING[:3])) for _ in range(3)], return_exceptions=True)
    assert all(isinstance(verdict, StoreUnavailable) for verdict in verdicts)
    redis.thaw()
    await store.ping()
    await until_counted(store, [0] * len(LASTING))
    with contextlib.closing(redis.client()) as client:
        assert client.info("commandstats")["cmdstat_hdel"]["calls"] >= 3
    await hasty.close()


@contextlib.asynccontextmanager
async def unheard_admission(
    redis: RedisServer, store: RedisStore, question: AdmissionRequest
) -> AsyncIterator[RedisStore]:
    """A gateway whose admission was carried out, though its answer was lost."""
    hasty = RedisStore(redis_options(redis.url, "hasty", timeout_s=0.5), UTC)
    await hasty.ping()
    set_clock(clock_of(hasty), hasty.now_ms() + 450)
    redis.freeze()
    with pytest.raises(StoreUnavailable):
        await hasty.admit(question)
    redis.thaw()
    await store.ping()
    yield hasty
    await hasty.close()


def unasked(question: AdmissionRequest, at_ms: int, used: int) -> Settlement:
    """The settlement of a request that was let through without an answer: nothing is held for it."""
    holds = Holds.of([Hold(limit, 0) for limit in question.limits])
    actual = [1 if limit.meter is Meter.REQUESTS else used for limit in question.limits]
    return Settlement(unasked_id(question.id), at_ms, holds, actual, bill())


@pytest.mark.parametrize("order", ["settled first", "undone first", "replayed"])
async def test_a_request_that_was_let_through_unasked_is_counted_once_though_it_was_admitted(
    redis: RedisServer, store: RedisStore, order: str
) -> None:
    limits = [limit("requests", "total", 100), limit("tokens", "total", 1_000), LIMITS[4]]
    question = ask(*limits)

    async def counted() -> list[tuple[int, int]]:
        return [(one.used, one.held) for one in await store.limit_statuses(limits)]

    async with unheard_admission(redis, store, question) as hasty, asyncio.timeout(10):
        settlement = unasked(question, hasty.now_ms(), 7)
        while hasty.trouble:
            await asyncio.sleep(HOLD_TTL_MS / 50_000)
        if order == "undone first":
            while (await counted())[0][0]:
                await asyncio.sleep(HOLD_TTL_MS / 50_000)
        if order != "replayed":
            await hasty.settle(settlement)
        for _ in range(2):
            await hasty.replay("hasty", 1, settlement)
        while await counted() != [(1, 0), (7, 0), (0, 0)]:
            await asyncio.sleep(HOLD_TTL_MS / 50_000)
        await hasty.settle(settlement)
        assert await counted() == [(1, 0), (7, 0), (0, 0)]
        assert (await store.usage(UsageQuery()))[0].requests == 1


async def test_an_outage_counts_an_unheard_admission_that_was_let_through_once(
    redis: RedisServer, store: RedisStore, tmp_path: Path
) -> None:
    limits = [limit("requests", "total", 100), limit("tokens", "total", 1_000), LIMITS[4]]
    hasty = RedisStore(redis_options(redis.url, "hasty", timeout_s=0.5), UTC)
    outbox = OutboxStore(
        hasty, Journal(tmp_path, "hasty", sure_tasks()), Policy(pytest.fail, True, pause_s=0.01), UTC, sure_tasks()
    )
    outbox.start()
    await hasty.ping()
    with contextlib.closing(redis.client()) as client:
        client.config_resetstat()
    set_clock(clock_of(hasty), hasty.now_ms() + 450)
    redis.freeze()
    reservation = await admitted(outbox, ask(*limits))
    await outbox.settle(truth(reservation, 7, bill()))
    redis.thaw()
    async with asyncio.timeout(10):
        while [(one.used, one.held) for one in await store.limit_statuses(limits)] != [(1, 0), (7, 0), (0, 0)]:
            await asyncio.sleep(HOLD_TTL_MS / 50_000)
    with contextlib.closing(redis.client()) as client:
        assert client.info("commandstats")["cmdstat_hdel"]["calls"] >= 1
    assert (await store.usage(UsageQuery()))[0].requests == 1
    await outbox.close()


async def test_the_time_of_the_store_goes_on_while_it_is_out(redis: RedisServer) -> None:
    """Whatever the gateway's own clock shows."""
    store = RedisStore(redis_options(redis.url, timeout_s=0.1), UTC)
    await store.ping()
    two_days_ms = 2 * 86_400_000
    set_clock(clock_of(store), store.now_ms() + two_days_ms)
    redis.freeze()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    assert 100 <= store.now_ms() - time.time() * 1000 - two_days_ms + 150 < 2_000
    redis.thaw()
    await store.close()


async def test_records_that_could_not_be_shortened_are_shortened_later(redis: RedisServer, store: RedisStore) -> None:
    hasty = RedisStore(redis_options(redis.url, "hasty", timeout_s=0.2), UTC)
    made = await admitted(hasty, ask(*LIMITS))
    await hasty.settle(truth(made, 7))
    redis.freeze()
    # After this nothing more is sent, so that nothing is carried out late.
    with pytest.raises(StoreUnavailable):
        await hasty.ping()
    set_clock(clock_of(hasty), made.at_ms + 4_000)
    with pytest.raises(StoreUnavailable):
        await hasty.renew([])
    redis.thaw()
    async with asyncio.timeout(10):
        while hasty.trouble:
            await asyncio.sleep(HOLD_TTL_MS / 50_000)
    set_clock(clock_of(hasty), made.at_ms + 4_000)
    await hasty.renew([])
    [life_ms] = [life_ms for key, life_ms in lives(redis).items() if ":r:hasty:" in key]
    assert life_ms <= 3_600_000
    await hasty.close()


async def test_a_renewal_brings_a_counter_back_that_has_expired_but_no_past_window(
    redis: RedisServer, store: RedisStore
) -> None:
    made = await admitted(store, ask(*LIMITS))
    with contextlib.closing(redis.client()) as client:
        for key in client.scan_iter("*:c:*"):
            client.delete(key)
        await store.renew([made.id])
        assert sorted(key.decode().split(":")[-1] for key in client.scan_iter("*:c:*")) == [
            "concurrent-None",
            "tokens-minute",
        ]
    assert [(one.used, one.held) for one in await store.limit_statuses(LIMITS)][1::3] == [(0, 30), (0, 1)]
    assert all(life_ms > 0 for life_ms in lives(redis).values())


async def test_a_renewed_counter_ends_when_its_holds_do_however_long_ago_it_was_used(
    redis: RedisServer, store: RedisStore
) -> None:
    made = await admitted(store, ask(limit("concurrent", None, 5)))
    [key] = [key for key in lives(redis) if ":c:" in key]
    with contextlib.closing(redis.client()) as client:
        [used_ms] = unpack("<d", client.getrange(key, 16, 23))
        client.setrange(key, 16, pack("<dd", used_ms - 3_600_000, 0))
    await store.renew([made.id])
    assert 0 < lives(redis)[key] <= HOLD_TTL_MS + 10_000


async def test_an_admission_writes_of_a_counter_only_what_it_changes(redis: RedisServer) -> None:
    """What is behind the holds stays as it is, and all but the last hold where nothing flows back and no hold ends."""
    options = msgspec.structs.replace(redis_options(redis.url), hold_ttl_ms=6 * 400 * 86_400_000)
    store = RedisStore(options, UTC)
    limits = [limit(meter, per, 1_000) for meter, per in [("tokens", "day"), ("tokens", "minute"), ("requests", "day")]]
    await store.settle(truth(await admitted(store, ask(*limits)), 10))
    await admitted(store, ask(*limits))
    with contextlib.closing(redis.client()) as client:
        keys = sorted(client.scan_iter("*:c:*"))
        before = client.mget(keys)
        await admitted(store, ask(*limits))
        after = client.mget(keys)
    places = {
        b"-".join(key.split(b":")[6:8]): {at // 8 + 1 for at in range(len(old)) if old[at] != new[at]}
        for key, old, new in zip(keys, before, after, strict=True)
    }
    assert [len(value) for value in after] == [len(value) for value in before]
    assert places[b"tokens-day"] == {11}
    assert places[b"tokens-minute"] <= {1, 3, 11}
    assert places[b"requests-day"] <= {1, 3}
    await store.close()


async def test_a_report_of_many_limits_leaves_the_loop_to_others(redis: RedisServer, store: RedisStore) -> None:
    many = [limit("tokens", "minute", 100, subject=f"k{number}", scope=Scope.KEY) for number in range(4_000)]
    await admitted(store, ask(many[1_234]))
    with contextlib.closing(redis.client()) as client:
        client.config_resetstat()
        statuses, turns = await turns_during(store.limit_statuses(many))
        assert client.info("commandstats")["cmdstat_mget"]["calls"] == 20
    assert turns >= 20
    assert [one.limit for one in statuses] == many
    assert [number for number, one in enumerate(statuses) if one.held] == [1_234]


async def test_the_store_is_asked_before_its_verdict_is_awaited(redis: RedisServer, store: RedisStore) -> None:
    await admitted(store, ask(*LIMITS))
    with contextlib.closing(redis.client()) as client:
        client.config_resetstat()
        admission = store.admit(ask(*LIMITS))
        calls = [client.info("commandstats").get("cmdstat_evalsha") for _ in range(100)]
    assert calls[-1] is not None
    assert isinstance(await admission, Reservation)


def test_the_seconds_of_a_call_are_finer_than_the_time_of_the_loop(redis: RedisServer) -> None:
    """uvloop's loop has whole milliseconds."""
    seconds: list[float] = []

    async def measured() -> None:
        store = RedisStore(redis_options(redis.url), UTC, lambda _call, _outcome, took: seconds.append(took))
        for _ in range(20):
            await admitted(store, ask(LIMITS[0]))
        await store.close()

    uvloop.run(measured())
    assert len([took for took in seconds if took * 1_000 != pytest.approx(round(took * 1_000), abs=1e-6)]) > 10


async def test_a_renewal_speaks_of_many_reservations(store: RedisStore) -> None:
    lanes, quota = limit("concurrent", None, 500), limit("tokens", "month", 1_000_000)
    made = [await admitted(store, ask(lanes, quota)) for _ in range(120)]
    for _ in range(3):
        await asyncio.sleep(HOLD_TTL_MS / 2000)
        await store.renew([one.id for one in made[:110]])
    assert await used_and_held(store, lanes) == (0, 110)
    assert await used_and_held(store, quota) == (0, 3_300)
    for one in made:
        await store.settle(truth(one, 1))
    assert await used_and_held(store, lanes) == (0, 0)
    assert await used_and_held(store, quota) == (120, 0)


async def test_a_counter_lives_as_long_as_what_it_holds(redis: RedisServer, store: RedisStore) -> None:
    made = await admitted(store, ask(LIMITS[4]))
    await asyncio.sleep(HOLD_TTL_MS / 2000)
    await store.renew([made.id])
    [life_ms] = [life_ms for key, life_ms in lives(redis).items() if ":c:" in key]
    assert life_ms > HOLD_TTL_MS


async def test_a_long_report_is_quick(redis: RedisServer, store: RedisStore) -> None:
    """A year of 200 keys: written as the script writes it, read in less than two seconds of everybody's own time, in
    small pieces."""
    await store.settle(truth(await admitted(store, ask()), 0, bill()))
    await store.ping()
    with contextlib.closing(redis.client()) as client:
        _fill_ledger(client)
        client.config_resetstat()
        began = time.process_time()
        rows = await store.usage(UsageQuery(by=("key",), team="red"))
        asked = client.info("commandstats")
    took = asked["cmdstat_hscan"]
    assert time.process_time() - began + took["usec"] / 1e6 < 2
    assert set(asked) <= {"cmdstat_hscan", "cmdstat_zscan", "cmdstat_info", "cmdstat_config|resetstat"}
    assert took["calls"] == 2 * 366
    assert took["usec_per_call"] < 5_000
    assert len(rows) == 200
    assert sum(row.requests for row in rows) == 365 * 200 + 1


def _fill_ledger(client: Any) -> None:
    figures = client.hget("gw:1:{t/red}:l:2026-11-05", "k1|m")
    [(name, details)] = client.hgetall("gw:2:{t/red}:l:2026-11-05").items()
    pipe = client.pipeline(transaction=False)
    for day in range(365):
        day_name = f"2025-{day // 28:02}-{day % 28 + 1:02}"
        pipe.zadd("gw:1:{t/red}:days", {day_name: day})
        pipe.hset(f"gw:1:{{t/red}}:l:{day_name}", mapping={f"k{key}|m": figures for key in range(1, 201)})
        names = [name.replace(b"k1", b"k%d" % key) for key in range(1, 201)]
        pipe.hset(f"gw:2:{{t/red}}:l:{day_name}", mapping=dict.fromkeys(names, details))
    pipe.execute()


def storm(url: str, one: Limit, process: str, tries: int, results: multiprocessing.Queue[int]) -> None:
    """A gateway of its own: as many requests at once as it can."""

    async def blow() -> int:
        # Holds last as in earnest here: a process that starts late must not find them ended.
        options = msgspec.structs.replace(redis_options(url, process), hold_ttl_ms=HOLD_TTL_IN_EARNEST_MS)
        store = RedisStore(options, ZoneInfo("UTC"))
        verdicts = await asyncio.gather(
            *[store.admit(ask(one, least=20, name=f"{process}-{number}")) for number in range(tries)]
        )
        await store.close()
        return sum(isinstance(verdict, Reservation) for verdict in verdicts)

    results.put(asyncio.run(blow()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "one",
    [
        limit("requests", "hour", 50),
        limit("requests", "day", 50),
        limit("concurrent", None, 50),
        limit("tokens", "month", 1_500),
        limit("tokens", "hour", 1_500),
    ],
    ids=lambda one: one.name,
)
def test_a_storm_of_processes_is_admitted_exactly_as_far_as_the_limit_goes(redis: RedisServer, one: Limit) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=storm, args=(redis.url, one, f"p{n}", 60, results)) for n in range(4)]
    for process in processes:
        process.start()
    counts = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert sum(counts) == 50, counts


async def test_all_gateways_sign_journals_with_the_key_of_the_first(redis: RedisServer, store: RedisStore) -> None:
    other = RedisStore(redis_options(redis.url, "other"), UTC)
    assert await store.journal_key(b"1" * 32) == b"1" * 32
    assert await other.journal_key(b"2" * 32) == b"1" * 32
    with contextlib.closing(redis.client()) as client:
        [name] = client.keys("*:journal-key")
        assert client.ttl(name) > 399 * 86_400
    await other.close()


class FourByteNumbers:
    """Reads a reply as one of a Redis whose `long` has four bytes would be read."""

    def __init__(self, count: int) -> None:
        self._count = count

    def unpack_from(self, reply: bytes) -> tuple[int, ...]:
        numbers = unpack(f"<{self._count}q", reply)
        short = pack(f"<{self._count}I", *(number & 0xFFFF_FFFF for number in numbers))
        return unpack(f"<{len(short) // 8}q", short[: len(short) // 8 * 8])


@pytest.mark.parametrize("limits", [LIMITS[:1], LIMITS[:4], LIMITS])
async def test_a_redis_of_32_bits_is_not_believed(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, limits: list[Limit]
) -> None:
    monkeypatch.setattr("gateway.store.in_redis.client.whole_numbers", FourByteNumbers)
    with pytest.raises(StoreUnavailable, match="built for 64"):
        await store.admit(ask(*limits))
