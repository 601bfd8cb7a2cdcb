from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from zlib import crc32
from zoneinfo import ZoneInfo

import pytest

from gateway.core.calendar import window
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Per
from gateway.core.reservation import AdmissionRequest, Holds, Refusal, Reservation, Settlement
from gateway.store.backlog import Policy
from gateway.store.contract import CallRefused, SettlementEnd, UsageQuery
from gateway.store.in_memory import InMemoryStore
from gateway.store.journal import Journal, JournalLine, spelled
from gateway.store.journal_key import NAME
from gateway.store.outbox import OutboxStore
from tests.contract.store.asking import admitted, ask, bill, limit, truth, used_and_held
from tests.contract.store.keepers import FalseClock, sure_tasks

UTC = ZoneInfo("UTC")
REQUESTS, QUOTA = limit("requests", "day", 100), limit("tokens", "month", 1_000)


class FlakyStore(InMemoryStore):
    """A store that can be out; while it is frozen, it carries out what nobody hears of."""

    def __init__(self, clock: FalseClock) -> None:
        super().__init__(clock, UTC)
        self.trouble: str | None = None
        self.frozen = False
        self.ahead_ms = 0
        self.defect: Exception | None = None
        self.poison: set[str] = set()
        self.marks: dict[str, int] = {}
        self.key: bytes | None = None
        self.replayed: list[str] = []
        self.back = asyncio.Event()

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.ahead_ms

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
        self._check(settlement.id)
        await super().settle(settlement)

    def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
        then(self.settle(settlement))

    async def replay(self, process: str, place: int, settlement: Settlement) -> None:
        self._check(settlement.id)
        if not place or place > self.marks.get(process, 0):
            await super().settle(settlement)
        self.marks[process] = max(place, self.marks.get(process, 0))
        self.replayed.append(settlement.id)

    async def journal_key(self, proposal: bytes) -> bytes:
        self._check()
        self.key = self.key or proposal
        return self.key

    def _check(self, name: str = "") -> None:
        if self.trouble:
            raise StoreUnavailable("away")
        if name in self.poison:
            raise CallRefused("not this one")


class Stage:
    """A store, a journal in a folder, and a steady store over both."""

    def __init__(
        self,
        folder: Path,
        process: str = "p",
        lets_through: bool = False,
        in_memory: int = 10,
        takes_unsigned: bool = False,
        journal: type[Journal] = Journal,
    ) -> None:
        self.clock = FalseClock()
        self.store = FlakyStore(self.clock)
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()
        policy = Policy(
            self.complaints.append,
            lets_through,
            takes_unsigned,
            pause_s=0.001,
            orphans_s=0.02,
            in_memory=in_memory,
            count=lambda outcome, entries: self.counts.update({outcome: entries}),
        )
        self.journal = journal(folder, process, sure_tasks())
        self.steady = OutboxStore(self.store, self.journal, policy, UTC, sure_tasks())

    def fill_disk(self) -> None:
        self.journal._largest_bytes = 10

    def free_disk(self) -> None:
        self.journal._largest_bytes = 1 << 20

    async def settle(self, *ids: str) -> None:
        for name in ids:
            await self.steady.settle(Settlement(name, self.clock.now_ms(), Holds(), (), bill()))

    async def billed(self) -> int:
        rows = await self.steady.usage(UsageQuery())
        return rows[0].requests if rows else 0

    async def until_nothing_waits(self) -> None:
        await until(lambda: not (self.steady.unsettled or self.journal.size))


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != NAME]


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


async def test_nobody_is_let_through_while_the_disk_refuses(tmp_path: Path) -> None:
    stage = Stage(tmp_path, lets_through=True)
    stage.fill_disk()
    stage.store.go()
    reservation = await admitted(stage.steady, ask(QUOTA))
    await stage.steady.settle(truth(reservation, 7))
    with pytest.raises(StoreUnavailable):
        await stage.steady.admit(ask(QUOTA))


async def test_somebody_is_again_once_the_disk_has_room(tmp_path: Path) -> None:
    stage = Stage(tmp_path, lets_through=True)
    stage.fill_disk()
    stage.store.go()
    await stage.settle("a")
    stage.steady.start()
    stage.store.come()
    await until(lambda: stage.steady.unsettled == 0)
    stage.free_disk()
    await until(lambda: not stage.journal.failing)
    stage.store.go()
    await admitted(stage.steady, ask(QUOTA))
    await stage.steady.close()


async def test_what_the_disk_refuses_is_settled_when_the_store_is_back(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.fill_disk()
    stage.store.go()
    stage.steady.start()
    await stage.settle("a", "b", "c")
    assert stage.steady.unsettled == 3
    stage.store.come()
    await stage.until_nothing_waits()
    assert (await stage.billed(), stage.counts) == (3, {"in_memory": 3, "replayed": 3})
    await stage.steady.close()


async def test_or_it_goes_to_the_disk_when_there_is_room(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.fill_disk()
    stage.store.go()
    stage.steady.start()
    await stage.settle("a", "b", "c")
    stage.free_disk()
    await until(lambda: stage.journal.size > 0)
    await stage.steady.close()
    assert stage.counts == {"in_memory": 3, "written": 3}
    after = Stage(tmp_path, "next")
    after.steady.start()
    await until(lambda: not names(tmp_path))
    assert (await after.billed(), after.counts) == (3, {"replayed": 3})
    await after.steady.close()


async def test_what_memory_has_no_room_for_is_lost_and_counted(tmp_path: Path) -> None:
    stage = Stage(tmp_path, in_memory=2)
    stage.fill_disk()
    stage.store.go()
    await stage.settle("a", "b")
    with pytest.raises(StoreUnavailable, match="lost"):
        await stage.settle("c")
    assert (stage.steady.unsettled, stage.counts) == (2, {"in_memory": 2, "lost": 1})
    stage.store.come()
    stage.steady.start()
    await stage.until_nothing_waits()
    assert await stage.billed() == 2
    await stage.steady.close()


async def test_what_neither_takes_until_the_end_is_lost_and_counted(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.fill_disk()
    stage.store.go()
    await stage.settle("a", "b")
    await stage.steady.close()
    assert stage.counts == {"in_memory": 2, "lost": 2}
    assert "2 settlements are lost" in stage.complaints[-1]


async def test_what_is_in_memory_is_settled_at_the_end_if_the_store_is_back(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.fill_disk()
    stage.store.go()
    await stage.settle("a", "b")
    stage.store.come()
    await stage.steady.close()
    assert (await stage.billed(), stage.counts) == (2, {"in_memory": 2, "replayed": 2})


@pytest.mark.parametrize("poison", ["s0", "s1", "s2"])
async def test_an_entry_that_the_store_always_refuses_holds_up_no_other(tmp_path: Path, poison: str) -> None:
    stage = Stage(tmp_path)
    stage.store.go()
    await stage.settle("s0", "s1", "s2", "s3")
    stage.store.come()
    stage.store.poison = {poison}
    stage.steady.start()
    await stage.until_nothing_waits()
    assert await stage.billed() == 3
    assert stage.counts == {"written": 4, "parked": 1, "replayed": 3}
    assert len(stage.complaints) == 1
    await stage.steady.close()
    assert names(tmp_path) == ["p.parked"]
    (tmp_path / "p.parked").rename(tmp_path / "p-again.journal")
    after = Stage(tmp_path, "next")
    after.steady.start()
    await until(lambda: not names(tmp_path))
    assert after.store.replayed == [poison]
    await after.steady.close()


async def test_a_store_that_refuses_every_entry_parks_none(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.store.go()
    await stage.settle("s0", "s1", "s2")
    stage.store.come()
    stage.store.poison = {"s0", "s1", "s2"}
    stage.steady.start()
    await until(lambda: len(stage.complaints) == 1)
    assert (stage.steady.unsettled, names(tmp_path)) == (3, ["p.journal"])
    stage.store.poison = set()
    await stage.until_nothing_waits()
    assert (await stage.billed(), stage.counts) == (3, {"written": 3, "replayed": 3})
    await stage.steady.close()


async def test_files_that_cannot_be_read_hold_up_no_other(tmp_path: Path) -> None:
    before = Stage(tmp_path, "m-dead")
    before.store.go()
    await before.settle("of the dead")
    await before.steady.close()
    (tmp_path / "a.journal").mkdir()
    (tmp_path / "z.journal").symlink_to("z.journal")
    (tmp_path / "garbage.journal").write_bytes(b"\x00\xff\n" * 1_000)
    stage = Stage(tmp_path)
    stage.store.go()
    await stage.settle("own")
    stage.store.come()
    stage.steady.start()
    await stage.until_nothing_waits()
    await until(lambda: "m-dead.journal" not in names(tmp_path))
    assert stage.store.replayed == ["own", "of the dead"]
    assert stage.counts["parked"] == 1_000
    await stage.settle("later")
    assert await stage.billed() == 3
    assert len(stage.complaints) == 3
    await stage.steady.close()
    assert sorted(names(tmp_path)) == ["a.journal", "garbage.parked", "z.journal"]


async def test_a_journal_that_another_program_removes_is_charged_all_the_same(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.store.go()
    await stage.settle("a", "b")
    stage.journal.path.unlink()
    stage.store.come()
    stage.steady.start()
    await stage.until_nothing_waits()
    assert await stage.billed() == 2
    await stage.steady.close()


@pytest.mark.parametrize("in_its_place", [False, True], ids=["nothing", "an empty folder"])
async def test_a_folder_that_is_moved_away_or_removed_holds_up_no_charge(tmp_path: Path, in_its_place: bool) -> None:
    ways: tuple[Callable[[Path], object], ...] = (shutil.rmtree, lambda folder: folder.rename(tmp_path / "elsewhere"))
    for number, disappear in enumerate(ways):
        folder = tmp_path / f"journal-{number}"
        stage = Stage(folder)
        stage.store.go()
        await stage.settle("a", "b")
        disappear(folder)
        if in_its_place:
            folder.mkdir()
        stage.store.come()
        stage.steady.start()
        await stage.until_nothing_waits()
        assert await stage.billed() == 2
        assert stage.complaints == []
        await stage.steady.close()


class StuckJournal(Journal):
    """On a disk that refuses to shorten it."""

    async def empty(self, read_up_to: int) -> bool:
        if read_up_to == self.size > 0:
            raise OSError("Read-only file system")
        return await super().empty(read_up_to)


async def test_a_journal_that_cannot_be_emptied_holds_up_no_other(tmp_path: Path) -> None:
    before = Stage(tmp_path, "dead")
    before.store.go()
    await before.settle("left behind")
    await before.journal.close()
    after = Stage(tmp_path, "alive", journal=StuckJournal)
    after.store.go()
    await after.settle("own")
    after.store.come()
    after.steady.start()
    await until(lambda: "left behind" in after.store.replayed)
    assert await after.billed() == 2
    await after.steady.close()
    assert [complaint for complaint in after.complaints if "waits: Read-only" in complaint]


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
        await before.steady.settle(Settlement("x", before.clock.now_ms(), Holds(), (), bill()))
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
        await stage.steady.settle(Settlement(f"s{number}", stage.clock.now_ms(), Holds(), (), bill()))
    stage.store.come()
    stage.steady.start()
    await until(lambda: len(stage.store.replayed) >= 2)
    stage.store.go()
    await stage.steady.settle(Settlement("s5", stage.clock.now_ms(), Holds(), (), bill()))
    stage.store.come()
    await stage.until_nothing_waits()
    assert stage.store.replayed == [f"s{number}" for number in range(6)]
    await stage.steady.close()


async def test_a_damaged_line_is_complained_of_and_stops_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.store.go()
    for number in range(3):
        await stage.steady.settle(Settlement(f"s{number}", stage.clock.now_ms(), Holds(), (), bill()))
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


async def test_the_clock_of_the_store_decides_day_and_window_in_an_outage(tmp_path: Path) -> None:
    """Whatever the gateway's own shows."""
    stage = Stage(tmp_path, lets_through=True)
    stage.store.ahead_ms = 86_400_000
    stage.store.go()
    reservation = await admitted(stage.steady, ask(REQUESTS))
    assert reservation.at_ms == stage.clock.now_ms() + 86_400_000
    [hold] = reservation.holds
    assert hold.window_ms == window(Per.DAY, UTC, reservation.at_ms)[0]


async def test_an_admission_that_was_not_heard_of_and_one_let_through_are_two_reservations(tmp_path: Path) -> None:
    """The store takes the first back under the request's own id; the second is settled under another."""
    stage = Stage(tmp_path, lets_through=True)
    stage.store.go()
    reservation = await admitted(stage.steady, ask(REQUESTS, name="a"))
    assert reservation.id != "a"
    stage.store.come()
    await stage.steady.settle(truth(reservation, 7, bill()))
    assert await used_and_held(stage.steady, REQUESTS) == (1, 0)


def unsigned(text: bytes) -> bytes:
    """A signature as good as none."""
    return text


def line(name: str, sign: Callable[[bytes], bytes] = unsigned) -> bytes:
    return spelled(JournalLine(1, Settlement(name, 0, Holds(), (), bill())), sign)


def forged(text: bytes) -> bytes:
    return text[:-1] + b',"mac":"' + b"0" * 64 + b'"}'


@pytest.mark.parametrize("sign", [unsigned, forged])
async def test_what_somebody_else_has_put_into_the_folder_is_parked(
    tmp_path: Path, sign: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "theirs.journal").write_bytes(line("forged", sign) * 3)
    stage = Stage(tmp_path)
    stage.steady.start()
    await until(lambda: names(tmp_path) == ["theirs.parked"])
    assert (await stage.billed(), stage.store.replayed, stage.counts) == (0, [], {"parked": 3})
    [complaint] = stage.complaints
    assert "not signed" in complaint
    await stage.steady.close()


@pytest.mark.parametrize("process", ["p", "other"])
async def test_an_entry_that_was_altered_is_parked_and_the_others_are_charged(tmp_path: Path, process: str) -> None:
    """With a checksum that fits: it is for damage, and anybody can compute it."""
    before = Stage(tmp_path, process)
    before.store.go()
    await before.settle("a", "b")
    texts = before.journal.path.read_bytes().splitlines(keepends=True)
    altered = texts[0][9:-1].replace(b'"id":"a"', b'"id":"c"')
    before.journal.path.write_bytes(b"%08x %s\n" % (crc32(altered), altered) + texts[1])
    if process == "p":
        after = before
    else:
        await before.steady.close()
        after = Stage(tmp_path)
    after.store.come()
    after.steady.start()
    await until(lambda: after.store.replayed == ["b"])
    assert after.counts["parked"] == 1
    await after.steady.close()


async def test_what_was_parked_unsigned_is_charged_once_the_operator_accepts_it(tmp_path: Path) -> None:
    """As after an upgrade from a version that signs nothing."""
    (tmp_path / "older.journal").write_bytes(line("of the version before"))
    stage = Stage(tmp_path)
    stage.steady.start()
    await until(lambda: names(tmp_path) == ["older.parked"])
    await stage.steady.close()
    (tmp_path / "older.parked").rename(tmp_path / "older.journal")
    accepting = Stage(tmp_path, "next", takes_unsigned=True)
    accepting.steady.start()
    await until(lambda: not names(tmp_path))
    assert accepting.store.replayed == ["of the version before"]
    await accepting.steady.close()


async def test_a_process_that_has_never_met_its_store_signs_what_the_next_can_replay(tmp_path: Path) -> None:
    before = Stage(tmp_path, "dead")
    before.store.go()
    before.steady.start()
    await before.settle("a")
    await before.steady.close()
    after = Stage(tmp_path, "next")
    after.steady.start()
    await until(lambda: not names(tmp_path))
    assert after.store.replayed == ["a"]
    await after.steady.close()


async def test_lines_that_were_signed_before_the_store_was_known_are_charged_by_their_own_process(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path)
    stage.store.go()
    await stage.settle("a")
    stage.store.key = bytes(32)
    stage.store.come()
    stage.steady.start()
    await until(lambda: (tmp_path / NAME).read_bytes() == bytes(32))
    assert stage.store.replayed == ["a"]
    await stage.steady.close()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
async def test_a_key_that_another_user_may_know_is_not_taken(tmp_path: Path, mode: int) -> None:
    (tmp_path / NAME).write_bytes(bytes(32))
    (tmp_path / NAME).chmod(mode)
    stage = Stage(tmp_path)
    assert stage.journal.key.proposal != bytes(32)
    stage.steady.start()
    await until(lambda: stage.store.key is not None and (tmp_path / NAME).read_bytes() == stage.store.key)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    await stage.steady.close()
