from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.reservation import AdmissionRequest, Refusal, Reservation, Settlement
from gateway.store.contract import UsageQuery
from gateway.store.in_memory import InMemoryStore
from gateway.store.journal import Journal
from gateway.store.outbox import OutboxStore, Policy
from tests.contract.store.asking import admitted, ask, bill, limit, truth, used_and_held
from tests.contract.store.keepers import FalseClock

UTC = ZoneInfo("UTC")
REQUESTS, QUOTA = limit("requests", "day", 100), limit("tokens", "month", 1_000)


class FlakyStore(InMemoryStore):
    """A store that can be out; while it is frozen, it carries out what nobody hears of."""

    def __init__(self, clock: FalseClock) -> None:
        super().__init__(clock, UTC)
        self.trouble: str | None = None
        self.frozen = False
        self.defect: Exception | None = None
        self.marks: dict[str, int] = {}
        self.replayed: list[str] = []
        self.back = asyncio.Event()

    def go(self) -> None:
        self.trouble = "away"

    def come(self) -> None:
        self.trouble, self.frozen = None, False

    async def admit(self, ask: AdmissionRequest) -> Reservation | Refusal:
        self._check()
        return await super().admit(ask)

    async def settle(self, settlement: Settlement) -> None:
        if self.frozen:
            await super().settle(settlement)
        if self.defect:
            raise self.defect
        self._check()
        await super().settle(settlement)

    async def replay(self, process: str, place: int, settlement: Settlement) -> None:
        self._check()
        assert place == self.marks.get(process, place - 1) + 1 or place <= self.marks[process]
        if place > self.marks.get(process, 0):
            await super().settle(settlement)
        self.marks[process] = max(place, self.marks.get(process, 0))
        self.replayed.append(settlement.id)

    def _check(self) -> None:
        if self.trouble:
            raise StoreUnavailable("away")


class Stage:
    """A store, a journal in a folder, and a steady store over both."""

    def __init__(self, folder: Path, process: str = "p", lets_through: bool = False) -> None:
        self.clock = FalseClock()
        self.store = FlakyStore(self.clock)
        self.complaints: list[str] = []
        policy = Policy(self.complaints.append, lets_through, pause_s=0.001, orphans_s=0.02)
        self.journal = Journal(folder, process)
        self.steady = OutboxStore(self.store, self.journal, policy, (self.clock, UTC))

    async def until_nothing_waits(self) -> None:
        await until(lambda: not (self.steady.unsettled or self.journal.size))


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_store_that_is_well_is_just_asked(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    await stage.steady.settle(truth(await admitted(stage.steady, ask(QUOTA)), 7, bill()))
    assert await used_and_held(stage.steady, QUOTA) == (7, 0)
    assert names(tmp_path) == []


async def test_what_is_settled_in_an_outage_is_charged_afterwards(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    reservations = [await admitted(stage.steady, ask(REQUESTS, QUOTA)) for _ in range(3)]
    stage.store.go()
    stage.steady.start()
    for reservation in reservations:
        await stage.steady.settle(truth(reservation, 7, bill()))
    assert stage.steady.unsettled == 3
    stage.store.come()
    await stage.until_nothing_waits()
    assert await used_and_held(stage.steady, QUOTA) == (21, 0)
    assert await used_and_held(stage.steady, REQUESTS) == (3, 0)
    assert (await stage.steady.usage(UsageQuery()))[0].requests == 3
    await stage.steady.close()
    assert names(tmp_path) == []


async def test_a_settlement_that_was_carried_out_unheard_is_charged_once(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    reservation = await admitted(stage.steady, ask(QUOTA))
    stage.store.go()
    stage.store.frozen = True
    await stage.steady.settle(truth(reservation, 7, bill()))
    stage.store.come()
    stage.steady.start()
    await stage.until_nothing_waits()
    assert await used_and_held(stage.steady, QUOTA) == (7, 0)
    await stage.steady.close()


async def test_a_settlement_is_kept_whatever_stops_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    reservation = await admitted(stage.steady, ask(QUOTA))
    stage.store.defect = AttributeError("a defect of ours")
    await stage.steady.settle(truth(reservation, 7, bill()))
    assert stage.steady.unsettled == 1
    assert "a defect of ours" in stage.complaints[0]
    stage.store.defect = None
    stage.steady.start()
    await stage.until_nothing_waits()
    assert await used_and_held(stage.steady, QUOTA) == (7, 0)
    await stage.steady.close()


async def test_admission_is_refused_while_the_store_is_out(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.store.go()
    with pytest.raises(StoreUnavailable):
        await stage.steady.admit(ask(QUOTA))


async def test_or_it_is_let_through_and_charged_later(tmp_path: Path) -> None:
    stage = Stage(tmp_path, lets_through=True)
    stage.store.go()
    reservation = await admitted(stage.steady, ask(REQUESTS, QUOTA, most=500))
    assert (reservation.granted, reservation.capped) == (500, False)
    await stage.steady.settle(truth(reservation, 7, bill()))
    stage.store.come()
    stage.steady.start()
    await stage.until_nothing_waits()
    assert await used_and_held(stage.steady, REQUESTS) == (1, 0)
    assert await used_and_held(stage.steady, QUOTA) == (7, 0)
    await stage.steady.close()


async def test_nobody_is_let_through_whose_charge_could_not_be_kept(tmp_path: Path) -> None:
    stage = Stage(tmp_path, lets_through=True)
    stage.journal._largest_bytes = 10
    stage.store.go()
    reservation = await admitted(stage.steady, ask(QUOTA))
    with pytest.raises(StoreUnavailable, match="lost"):
        await stage.steady.settle(truth(reservation, 7))
    with pytest.raises(StoreUnavailable):
        await stage.steady.admit(ask(QUOTA))


async def test_a_start_takes_up_what_a_process_left_behind(tmp_path: Path) -> None:
    before = Stage(tmp_path, "dead")
    reservation = await admitted(before.steady, ask(QUOTA))
    before.store.go()
    await before.steady.settle(truth(reservation, 7, bill()))
    await before.journal.close()
    after = Stage(tmp_path, "alive")
    after.steady.start()
    await until(lambda: not names(tmp_path))
    assert await used_and_held(after.steady, QUOTA) == (7, 0)
    assert after.store.marks == {"dead": 1}
    await after.steady.close()


async def test_what_was_left_behind_waits_for_the_store_too(tmp_path: Path) -> None:
    before = Stage(tmp_path, "dead")
    before.store.go()
    for _ in range(3):
        await before.steady.settle(Settlement("x", before.clock.now_ms(), (), bill()))
    await before.journal.close()
    after = Stage(tmp_path, "alive")
    after.store.go()
    after.steady.start()
    await until(lambda: after.steady.unsettled == 3)
    after.store.come()
    await after.until_nothing_waits()
    assert (await after.steady.usage(UsageQuery()))[0].requests == 1
    await after.steady.close()


async def test_a_replay_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.store.go()
    for number in range(5):
        await stage.steady.settle(Settlement(f"s{number}", stage.clock.now_ms(), (), bill()))
    stage.store.come()
    stage.steady.start()
    await until(lambda: len(stage.store.replayed) >= 2)
    stage.store.go()
    await stage.steady.settle(Settlement("s5", stage.clock.now_ms(), (), bill()))
    stage.store.come()
    await stage.until_nothing_waits()
    assert stage.store.replayed == [f"s{number}" for number in range(6)]
    await stage.steady.close()


async def test_a_damaged_line_is_complained_of_and_stops_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.store.go()
    for number in range(3):
        await stage.steady.settle(Settlement(f"s{number}", stage.clock.now_ms(), (), bill()))
    text = bytearray(stage.journal.path.read_bytes())
    text[20] ^= 1
    stage.journal.path.write_bytes(text)
    stage.store.come()
    stage.store.marks["p"] = 1
    stage.steady.start()
    await stage.until_nothing_waits()
    assert stage.store.replayed == ["s1", "s2"]
    assert len(stage.complaints) == 1
    await stage.steady.close()
