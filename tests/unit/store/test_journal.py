from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from gateway.core.reservation import Hold, Holds, Settlement
from gateway.core.usage import Usage
from gateway.store.journal import Journal, JournalFull, JournalLine, Read, count, orphans, read, spelled
from gateway.store.journal_key import NAME, JournalKey
from tests.contract.store.asking import bill, limit
from tests.contract.store.keepers import sure_tasks

QUOTA = limit("tokens", "month", 100)
HOLD = Hold(QUOTA, 30, 1_793_491_200_000, capped=True)


def settlement(name: str) -> Settlement:
    return Settlement(name, 1_793_880_000_000, Holds.of([HOLD]), [12], bill())


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != NAME]


def believed(_text: bytes) -> bool:
    return True


def read_at(path: Path, start: int = 0) -> list[Read]:
    with path.open("rb") as file:
        return read(file.fileno(), believed, start)


def count_at(path: Path) -> int:
    with path.open("rb") as file:
        return count(file.fileno())


def kept(path: Path) -> list[Settlement | None]:
    return [line.settlement if line else None for line, *_ in read_at(path)]


async def test_what_is_kept_is_read_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    await journal.append(settlement("b"))
    assert [(line.place, line.settlement) for line, *_ in read_at(journal.path) if line] == [
        (1, settlement("a")),
        (2, settlement("b")),
    ]
    assert count_at(journal.path) == 2


class OlderEntry(msgspec.Struct, frozen=True):
    """The entry of the version that knew neither upstreams nor users."""

    day: str
    team: str
    key: str
    model: str
    usage: Usage
    cost: int


class OlderDue(msgspec.Struct, frozen=True):
    hold: Hold
    actual: int


class OlderSettlement(msgspec.Struct, frozen=True):
    id: str
    at_ms: int
    dues: tuple[OlderDue, ...]
    entry: OlderEntry | None


class OlderLine(msgspec.Struct, frozen=True):
    place: int
    settlement: OlderSettlement


def test_a_line_of_the_version_before_is_read_and_it_reads_one_of_this(tmp_path: Path) -> None:
    usage = Usage(input=10, output=5, cache_write=3)
    entry = bill(usage=usage, upstream="up1", user="ann", cost_center="4711")
    new = msgspec.structs.replace(settlement("a"), entry=entry)
    older = msgspec.json.decode(spelled(JournalLine(1, new), bytes)[9:], type=OlderLine)
    assert older.settlement.entry == OlderEntry(entry.day, entry.team, entry.key, entry.model, usage, entry.cost)
    assert older.settlement.dues == (OlderDue(HOLD, 12),)
    text, path = msgspec.json.encode(older), tmp_path / "older.journal"
    path.write_bytes(b"%08x %s\n" % (crc32(text), text))
    [found] = read_at(path)
    known = msgspec.structs.replace(entry, upstream="", user="", cost_center="")
    assert found.line == JournalLine(1, msgspec.structs.replace(new, entry=known))


async def test_lines_that_wait_are_written_together(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await asyncio.gather(*[journal.append(settlement(str(number))) for number in range(500)])
    names = [one.settlement.id for start in (0,) for one, *_ in read_at(journal.path, start) if one]
    assert names == [str(number) for number in range(200)]
    assert count_at(journal.path) == 500


async def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await asyncio.gather(*[journal.append(settlement(str(number))) for number in range(450)])
    names: list[str] = []
    start = 0
    while lines := read_at(journal.path, start):
        names += [line.settlement.id for line, *_ in lines if line]
        start = lines[-1].end
    assert names == [str(number) for number in range(450)]
    assert start == journal.size


@pytest.mark.parametrize("torn", range(1, 120, 7))
async def test_a_torn_last_line_is_as_if_it_had_not_been(tmp_path: Path, torn: int) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole[:torn])
    assert kept(journal.path) == [settlement("a")]


async def test_a_damaged_line_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    for name in "abc":
        await journal.append(settlement(name))
    text = bytearray(journal.path.read_bytes())
    text[len(text) // 2] ^= 1
    journal.path.write_bytes(text)
    assert kept(journal.path) == [settlement("a"), None, settlement("c")]


async def test_a_file_that_another_program_removes_is_put_back_with_its_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    journal.path.unlink()
    await journal.append(settlement("b"))
    assert kept(journal.path) == [settlement("a"), settlement("b")]
    journal.path.unlink()
    await journal.close()
    assert kept(journal.path) == [settlement("a"), settlement("b")]


async def test_a_folder_that_is_moved_away_keeps_taking_lines_until_it_is_back(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "journal", tmp_path / "elsewhere"
    journal = Journal(folder, "p", sure_tasks())
    journal.key.share(journal.key.proposal)
    await journal.append(settlement("a"))
    folder.rename(elsewhere)
    await journal.append(settlement("b"))
    found = await journal.read(believed, 0)
    assert [one.line.settlement.id for one in found if one.line] == ["a", "b"]
    elsewhere.rename(folder)
    await journal.close()
    assert kept(journal.path) == [settlement("a"), settlement("b")]


async def test_lines_that_another_program_has_cut_off_are_missed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    os.truncate(journal.path, 0)
    with pytest.raises(OSError, match="has lost lines"):
        await journal.read(believed, 0)
    assert await journal.read(believed, journal.size) == []
    await journal.close()


async def test_lines_longer_than_what_is_read_at_once_are_read_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    long = [settlement(name * 1_500_000) for name in ("a", "b", "c")]
    for one in long:
        await journal.append(one)
    await journal.append(settlement("short"))
    assert kept(journal.path) == [*long, settlement("short")]
    await journal.close()


async def test_a_folder_that_another_program_removes_is_a_disk_that_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal = Journal(folder, "p", sure_tasks())
    await journal.append(settlement("a"))
    shutil.rmtree(folder)
    with pytest.raises(JournalFull):
        await journal.append(settlement("b"))
    folder.mkdir()
    await journal.append(settlement("c"))
    assert kept(journal.path) == [settlement("a"), settlement("c")]
    await journal.close()


async def test_places_go_on_when_the_file_is_emptied(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    assert await journal.empty(journal.size)
    assert kept(journal.path) == []
    await journal.append(settlement("b"))
    assert [line.place for line, *_ in read_at(journal.path) if line] == [2]


async def test_a_file_is_not_emptied_of_lines_that_nobody_has_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    read_up_to = journal.size
    await journal.append(settlement("b"))
    assert not await journal.empty(read_up_to)
    assert len(kept(journal.path)) == 2


async def test_a_journal_has_a_bound(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks(), largest_bytes=2_000)
    kept_or_not = await asyncio.gather(*[journal.append(settlement(str(n))) for n in range(2)], return_exceptions=True)
    assert kept_or_not == [None, None]
    with pytest.raises(JournalFull, match="larger"):
        await asyncio.gather(*[journal.append(settlement(str(number))) for number in range(3)])
    assert journal.failing
    assert 0 < journal.size <= 2_000
    await journal.empty(journal.size)
    await journal.append(settlement("later"))
    assert not journal.failing


async def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path) -> None:
    """The system refuses to let a file grow over this size, in the midst of a line."""
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 100, hard))
    try:
        with pytest.raises(JournalFull, match="File too large"):
            await journal.append(settlement("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.failing
    assert journal.path.stat().st_size == journal.size
    await journal.append(settlement("c"))
    assert kept(journal.path) == [settlement("a"), settlement("c")]


@contextlib.contextmanager
def full_disk(journal: Journal) -> Iterator[None]:
    """In place of the journal's file, a device that takes nothing and cannot be cut either."""
    whole, full = os.dup(journal._file), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, journal._file)
    try:
        yield
    finally:
        os.dup2(whole, journal._file)
        os.close(whole)
        os.close(full)


async def test_who_waits_is_told_though_the_disk_refuses_even_to_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    with full_disk(journal):
        async with asyncio.timeout(5):
            told = await asyncio.gather(*[journal.append(settlement(name)) for name in "bcd"], return_exceptions=True)
        assert all(isinstance(one, JournalFull) for one in told)
    assert journal.failing
    os.write(journal._file, b"00000000 {half a line")
    await journal.append(settlement("e"))
    assert kept(journal.path) == [settlement("a"), settlement("e")]
    assert [read_.line.place for read_ in read_at(journal.path) if read_.line] == [1, 2]


async def test_a_probe_finds_out_that_there_is_room_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    size = journal.size
    with full_disk(journal):
        with pytest.raises(JournalFull):
            await journal.append(settlement("b"))
        await journal.probe()
        assert journal.failing
    await journal.probe()
    assert not journal.failing
    assert journal.path.stat().st_size == journal.size == size
    assert kept(journal.path) == [settlement("a")]


async def test_a_file_that_cannot_be_made_leaves_nothing_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    (journal.path / "in the way").mkdir(parents=True)
    open_before = len(names(Path("/proc/self/fd")))
    for name in "abc":
        with pytest.raises(JournalFull):
            await journal.append(settlement(name))
    assert len(names(Path("/proc/self/fd"))) == open_before
    assert names(tmp_path) == ["p.journal"]


async def test_what_is_no_file_is_complained_of_and_the_others_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.journal").mkdir()
    (tmp_path / "b.journal").symlink_to("b.journal")
    os.mkfifo(tmp_path / "c.journal")
    journal = Journal(tmp_path, "d", sure_tasks())
    await journal.append(settlement("a"))
    await journal.close()
    complaints: list[str] = []
    [orphan] = orphans(tmp_path, complaints.append)
    assert orphan.process == "d"
    assert [complaint.split(".journal")[0][-1] for complaint in complaints] == ["a", "b"]
    orphan.release()


async def test_a_line_is_kept_though_who_asked_is_cancelled(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    asking = asyncio.create_task(journal.append(settlement("a")))
    await asyncio.sleep(0)
    asking.cancel()
    await journal.append(settlement("b"))
    assert kept(journal.path) == [settlement("a"), settlement("b")]


async def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        Journal(tmp_path / "file" / "below", "p", sure_tasks())


async def test_nobody_takes_the_journal_of_a_living_process(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    assert list(orphans(tmp_path, print)) == []
    await journal.close()
    [orphan] = orphans(tmp_path, print)
    assert (orphan.process, list(orphans(tmp_path, print))) == ("p", [])
    orphan.release()


async def test_an_empty_journal_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "p", sure_tasks())
    await journal.append(settlement("a"))
    await journal.empty(journal.size)
    await journal.close()
    assert names(tmp_path) == []


DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.journal import Journal
from tests.unit.store.test_journal import settlement

async def die():
    journal = Journal(Path(sys.argv[1]), "dead", BackgroundTasks(print))
    await journal.append(settlement("a"))
    os.write(journal._file, b"00000000 {half a line")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(die())
"""


def test_the_journal_of_a_killed_process_can_be_taken_up(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], cwd=root, check=False)
    [orphan] = orphans(tmp_path, print)
    assert orphan.process == "dead"
    assert kept(orphan.path) == [settlement("a")]
    orphan.remove()
    assert names(tmp_path) == []


def test_a_line_can_be_read_by_people(tmp_path: Path) -> None:
    text = spelled(JournalLine(7, settlement("a")), JournalKey(tmp_path).sign).decode()
    assert '{"place":7,"settlement":{"id":"a"' in text
    assert len(text) < 1_000


@pytest.mark.parametrize(
    ("mode", "is_exposed"), [(0o700, False), (0o755, False), (0o1777, False), (0o770, True), (0o777, True)]
)
def test_a_folder_that_another_user_can_write_to_is_noticed(tmp_path: Path, mode: int, is_exposed: bool) -> None:
    tmp_path.chmod(mode)
    assert Journal(tmp_path, "p", sure_tasks()).is_exposed == is_exposed


def test_a_folder_that_is_made_is_for_its_user_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new", "p", sure_tasks())
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700
