"""Reloads that overlap: one runs at a time, nobody gets a file older than the ask, and the newest file wins."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from types import FrameType

import msgspec
import pytest

from gateway.app import snapshot_differences
from gateway.app.gateway import Gateway
from gateway.app.loaded_snapshot import LoadedSnapshot, LoadFailed
from gateway.app.reload import COMPARED_CHARACTERS, READINGS, Reloader
from gateway.app.snapshot_builder import loaded_snapshot
from gateway.core.snapshot import ConfigSnapshot
from gateway.runtime.release import RELEASED_AT_ONCE
from gateway.settings.loading import parse
from gateway.telemetry.log import Log
from tests.whole_gateway import MODEL, configuration, settings_of

PATIENCE_S = 10.0
NOWHERE = "http://127.0.0.1:1/v1"


class SlowFile:
    """A file whose reading takes until the test says so; what is read is what it held when the reading began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readings: list[str] = []
        self.comment = ""
        """What a reading has behind the configuration."""
        self._begun = asyncio.Condition()
        self._gates: list[asyncio.Event] = []

    def write(self, name: str) -> None:
        changed = self.path.with_suffix(".new")
        changed.write_text(name)
        changed.replace(self.path)

    async def load(self, path: str, loaded_at: int, before: ConfigSnapshot) -> LoadedSnapshot:
        name = self.path.read_text()
        gate = asyncio.Event()
        self._gates.append(gate)
        self.readings.append(name)
        async with self._begun:
            self._begun.notify_all()
        await gate.wait()
        if name == "invalid":
            raise LoadFailed(["invalid"])
        if name == "defect":
            raise KeyError(name)
        told = configuration(NOWHERE, teams={name: {"keys": [{"name": "k", "key": "gw_k"}]}})
        settings = parse(json.dumps(told) + self.comment, "test.yaml", {}).settings
        return loaded_snapshot(settings, loaded_at, before)

    async def reading(self, number: int) -> None:
        """Wait until this reading has begun."""
        async with asyncio.timeout(PATIENCE_S), self._begun:
            await self._begun.wait_for(lambda: len(self._gates) >= number)

    async def finish(self, number: int) -> None:
        await self.reading(number)
        self._gates[number - 1].set()


class Reloading:
    def __init__(self, folder: Path) -> None:
        self.file = SlowFile(folder / "gateway.yaml")
        self.file.write("first")
        self.lines: list[bytes] = []
        loaded = loaded_snapshot(settings_of(configuration(NOWHERE)))
        self.gateway = Gateway(loaded, Log(self.lines.append))
        self.reloader = Reloader(
            str(self.file.path), self.gateway, Log(self.lines.append), loaded.settings, load=self.file.load
        )

    @property
    def in_force(self) -> set[str]:
        return set(self.gateway.services.snapshot.teams)

    def ask(self) -> asyncio.Future[list[str]]:
        return asyncio.ensure_future(self.reloader.reload("a test"))

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.lines]

    @property
    def changes(self) -> list[str]:
        """What the log says of the last reload."""
        told = [json.loads(line) for line in self.lines]
        words: list[str] = [line for line in told if line["event"] == "configuration reloaded"][-1]["changes"]
        return words


@pytest.fixture
async def reloading(tmp_path: Path) -> AsyncIterator[Reloading]:
    reloading = Reloading(tmp_path)
    yield reloading
    await reloading.gateway.close()


async def test_a_reload_that_was_asked_for_later_is_in_force_though_the_earlier_reads_longer(
    reloading: Reloading,
) -> None:
    file = reloading.file
    file.write("second")
    earlier = reloading.ask()
    await file.reading(1)
    file.write("third")
    later = reloading.ask()
    await file.finish(1)
    await file.finish(2)
    assert await earlier == []
    await file.finish(3)
    assert await later == []
    assert reloading.in_force == {"third"}
    assert file.readings == ["second", "third", "third"]


async def test_those_who_ask_while_one_runs_share_the_next(reloading: Reloading) -> None:
    file = reloading.file
    running = reloading.ask()
    await file.reading(1)
    waiting = [reloading.ask() for _ in range(5)]
    await asyncio.sleep(0)
    await file.finish(1)
    assert await running == []
    assert not any(each.done() for each in waiting)
    latest = reloading.ask()
    await file.finish(2)
    assert await asyncio.gather(*waiting) == [[]] * 5
    # Whether it shares that one or has the third reading is left open.
    third = asyncio.ensure_future(file.finish(3))
    assert await latest == []
    third.cancel()
    assert len(file.readings) <= 3


async def test_a_file_that_changes_while_it_is_read_is_read_again(reloading: Reloading) -> None:
    file = reloading.file
    file.write("invalid")
    asked = reloading.ask()
    await file.reading(1)
    file.write("mended")
    await file.finish(1)
    await file.finish(2)
    assert await asked == []
    assert reloading.in_force == {"mended"}
    assert reloading.events == ["configuration reloaded", "audit"]


async def test_a_file_that_changes_all_the_time_is_loaded_all_the_same(reloading: Reloading) -> None:
    file = reloading.file
    asked = reloading.ask()
    for number in range(1, READINGS + 1):
        await file.reading(number)
        file.write(f"v{number}")
        await file.finish(number)
    assert await asked == []
    assert reloading.in_force == {f"v{READINGS - 1}"}


async def test_a_file_with_errors_leaves_the_old_one_in_force(reloading: Reloading) -> None:
    before = reloading.gateway.services.snapshot
    reloading.file.write("invalid")
    asked = reloading.ask()
    await reloading.file.finish(1)
    assert await asked == ["invalid"]
    assert reloading.gateway.services.snapshot is before
    assert reloading.events == ["configuration rejected"]


@pytest.mark.parametrize("is_large", [False, True])
async def test_a_large_file_is_not_compared_as_a_text(reloading: Reloading, is_large: bool) -> None:
    file = reloading.file
    file.comment = "\n#" + "x" * (COMPARED_CHARACTERS if is_large else 1_000)
    file.write("second")
    asked = reloading.ask()
    await file.finish(1)
    assert await asked == []
    by_name = ["team second added", "team search removed"]
    assert [each in reloading.changes for each in by_name] == [is_large, is_large]
    assert any(each.startswith("teams.second added: ") for each in reloading.changes) is not is_large


async def test_the_watch_of_the_file_comes_back_after_a_defect(reloading: Reloading) -> None:
    file, counted = reloading.file, reloading.gateway._metrics.task_failures.values
    reloading.gateway.tasks._first_pause_s = 0.001
    reloading.gateway.tasks.keep_running("watch the configuration", reloading.reloader.watch)
    file.write("defect")
    reloading.reloader.ask()
    await file.finish(1)
    file.write("mended")
    reloading.reloader.ask()
    await file.finish(2)
    async with asyncio.timeout(PATIENCE_S):
        while reloading.in_force != {"mended"}:
            await asyncio.sleep(0)
    assert counted[("watch the configuration",)] == 1
    assert "background task watch the configuration failed" in reloading.events


@pytest.mark.parametrize("change", ["", "# another", "\udcff"])
async def test_a_file_that_changes_during_the_start_is_read_again(change: str, reloading: Reloading) -> None:
    text = json.dumps(configuration(NOWHERE))
    path = reloading.file.path
    path.write_text(text)
    settings = loaded_snapshot(parse(text, str(path), {}).settings).settings
    path.write_bytes((text + change).encode(errors="surrogateescape"))
    reloader = Reloader(str(path), reloading.gateway, Log(reloading.lines.append), settings, load=reloading.file.load)
    reloader.start()
    assert (await reloader._look() != reloader._seen) is bool(change)


async def test_what_is_no_longer_in_force_is_released_a_few_in_each_turn_of_the_loop(reloading: Reloading) -> None:
    snapshot = reloading.gateway.services.snapshot
    (caller,) = snapshot.callers.values()
    callers, bindings = snapshot.callers, snapshot.bindings
    for number in range(5 * RELEASED_AT_ONCE):
        named = msgspec.structs.replace(caller, key_id=f"key {number}")
        callers[named.key_id] = named
        assert snapshot.binding(named, MODEL) is not None
    asked = reloading.ask()
    await reloading.file.finish(1)
    assert await asked == []
    assert len(callers) > len(bindings) > 0, "a request may still be under way"
    del snapshot
    sizes = [len(callers) + len(bindings)]
    for _ in range(sizes[0]):
        await asyncio.sleep(0)
        sizes.append(len(callers) + len(bindings))
    assert sizes[-1] == 0
    assert max(before - after for before, after in pairwise(sizes)) <= RELEASED_AT_ONCE


async def test_a_reload_compares_nothing_in_the_process_that_serves(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(configuration(NOWHERE)))
    loaded = loaded_snapshot(settings_of(configuration(NOWHERE)))
    lines: list[bytes] = []
    gateway = Gateway(loaded, Log(lines.append))
    reloader = Reloader(str(file), gateway, Log(lines.append), loaded.settings)
    file.write_text(json.dumps(configuration(NOWHERE, team={"limits": [{"requests": 5, "per": "day"}]})))
    called: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == snapshot_differences.__file__:
            called.add(frame.f_code.co_name)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        assert await reloader.reload("a test") == []
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        await gateway.close()
    assert called <= {"in_words"}
    audit = next(line for line in map(json.loads, lines) if line["event"] == "audit")
    assert list(audit["after"]) == ["teams"]
