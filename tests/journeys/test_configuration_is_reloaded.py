"""A file is read by a process of its own: what comes back is what reading it here gives, and requests do not wait."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.app.gateway import Gateway
from gateway.app.loaded_snapshot import CALLERS_A_PART, TEXT_PART, LoadFailed, parts_of
from gateway.app.reload import Reloader
from gateway.app.snapshot_builder import loaded_snapshot, snapshot
from gateway.app.snapshot_differences import changes_of
from gateway.app.snapshot_process import load_in_child
from gateway.core.snapshot import ConfigSnapshot
from gateway.settings.loading import load
from gateway.telemetry.log import Log
from tests.whole_gateway import PATIENCE_S, Json, configuration

NOWHERE = "http://127.0.0.1:1/v1"
EMPTY = ConfigSnapshot({}, {})


def teams(count: int) -> Json:
    limits = [{"requests": 5, "per": "minute"}, {"usd": "0.25", "per": "month"}]
    keys = [
        {"name": f"k{number}", "sha256": hashlib.sha256(b"%d" % number).hexdigest(), "limits": limits}
        for number in range(count)
    ]
    return {"search": {"keys": keys, "limits": [{"concurrent": 7}]}}


PRICED = {"price": {"input": 1, "output": 1}}


def written(folder: Path, config: Json) -> str:
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(config))
    return str(file)


def with_key(folder: Path, key: str) -> str:
    return written(folder, configuration(NOWHERE, team={"keys": [{"name": "k", "key": key}]}))


@asynccontextmanager
async def watched(path: str) -> AsyncIterator[tuple[Gateway, Reloader]]:
    """A gateway that looks at its file and reloads it when that has changed."""
    loaded = loaded_snapshot(load(path, os.environ).settings)
    gateway = Gateway(loaded, Log(lambda line: None))
    reloader = Reloader(path, gateway, Log(lambda line: None), loaded.settings)
    gateway.tasks.keep_running("watch", reloader.watch)
    try:
        yield gateway, reloader
    finally:
        await gateway.close()


@pytest.mark.parametrize("keys", [0, 1, CALLERS_A_PART, 3 * CALLERS_A_PART + 1])
async def test_the_snapshot_is_the_same_as_one_that_is_built_here(keys: int, tmp_path: Path) -> None:
    tiers = {"flex": {"input": "0.05", "above": [{"tokens": 9, "input": 1}]}}
    price = {"price": {"input": "0.15", "output": "0.60", "above": [{"tokens": 10, "input": 1}], "tiers": tiers}}
    path = written(tmp_path, configuration(NOWHERE, model=price, teams=teams(keys), keepalive="3s"))
    loaded = await asyncio.wait_for(load_in_child(path, 1_700_000_000, EMPTY), PATIENCE_S)
    built = loaded_snapshot(load(path, os.environ).settings, 1_700_000_000)
    assert loaded.snapshot.callers == built.snapshot.callers
    assert loaded.snapshot.models == built.snapshot.models
    assert (loaded.settings, loaded.names) == (built.settings, built.names)


async def test_callers_share_what_they_have_in_common(tmp_path: Path) -> None:
    path = written(tmp_path, configuration(NOWHERE, model=PRICED, teams=teams(200)))
    loaded = await asyncio.wait_for(load_in_child(path, 0, EMPTY), PATIENCE_S)
    assert len({id(caller.limits[0]) for caller in loaded.snapshot.callers.values()}) == 1


async def test_what_has_changed_is_the_same_as_if_it_was_compared_here(tmp_path: Path) -> None:
    before = loaded_snapshot(
        load(written(tmp_path, configuration(NOWHERE, model=PRICED, teams=teams(60))), os.environ).settings
    )
    path = written(
        tmp_path, configuration(NOWHERE, model=PRICED, teams=teams(90), limits=[{"tokens": 5, "per": "day"}])
    )
    loaded = await asyncio.wait_for(load_in_child(path, 0, before.snapshot), PATIENCE_S)
    assert loaded.changes == changes_of(before.snapshot, loaded.snapshot)
    assert len(loaded.changes.differences.after["keys"]) == 30
    assert "search" in loaded.changes.differences.after["teams"]


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_a_text_comes_back_whole(over: int, tmp_path: Path) -> None:
    text = json.dumps(configuration(NOWHERE)) + "\n#"
    text += "ü" * (2 * TEXT_PART - len(text) + over)
    path = tmp_path / "gateway.yaml"
    await asyncio.to_thread(path.write_text, text)
    loaded = await asyncio.wait_for(load_in_child(str(path), 0, EMPTY), PATIENCE_S)
    assert loaded.settings.text == text


def test_no_part_of_a_snapshot_has_many_callers(tmp_path: Path) -> None:
    settings = load(written(tmp_path, configuration(NOWHERE, model=PRICED, teams=teams(300))), os.environ).settings
    bare, *parts = parts_of(snapshot(settings))
    assert (bare.callers, bare.teams, bare.bindings) == ({}, {}, {})
    assert max(map(len, parts)) == CALLERS_A_PART


async def test_a_file_with_errors_is_told_with_its_lines(tmp_path: Path) -> None:
    path = written(tmp_path, {**configuration(NOWHERE), "listn": "x"})
    with pytest.raises(LoadFailed) as failed:
        await asyncio.wait_for(load_in_child(path, 0, EMPTY), PATIENCE_S)
    (problem,) = failed.value.problems
    assert problem.startswith(f"{path}:1: listn: is not a known setting")


async def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="cannot be read"):
        await asyncio.wait_for(load_in_child(str(tmp_path / "none.yaml"), 0, EMPTY), PATIENCE_S)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("#!/bin/sh\nkill -9 $$", "SIGKILL"),
        ("#!/bin/sh\nexit 3", "exit 3"),
        ("not a program", "no process can be"),
        ("#!/bin/sh\nprintf '\\0\\0\\0\\1x'", "another version"),
        ("#!/bin/sh\necho a word of another program", "ended with"),
    ],
)
async def test_a_reading_that_dies_leaves_the_old_configuration_in_force(
    program: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(program)
    interpreter.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(LoadFailed, match=why):
        await asyncio.wait_for(load_in_child("gateway.yaml", 0, EMPTY), PATIENCE_S)


async def test_a_reading_that_is_no_longer_wanted_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = tmp_path / "python"
    told = tmp_path / "pid"
    interpreter.write_text(f"#!/bin/sh\necho $$ > {told}.new && mv {told}.new {told}\nexec sleep 3600")
    interpreter.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    loading = asyncio.ensure_future(load_in_child("gateway.yaml", 0, EMPTY))
    async with asyncio.timeout(PATIENCE_S):
        while not told.exists():
            await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    pid = int(told.read_text())
    async with asyncio.timeout(PATIENCE_S):
        while _runs(pid):
            await asyncio.sleep(0)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
async def test_a_reload_of_many_keys_does_not_hold_the_event_loop(tmp_path: Path) -> None:
    """In processor time of the loop's thread: what other programs take meanwhile is not counted."""
    config = configuration(NOWHERE, model=PRICED, teams=teams(3_000))
    path = written(tmp_path, config)
    loaded = loaded_snapshot(load(path, os.environ).settings)
    gateway = Gateway(loaded, Log(lambda line: None))
    reloading = asyncio.ensure_future(Reloader(path, gateway, Log(lambda line: None), loaded.settings).reload("a test"))
    turns_s, before = [], time.thread_time()
    async with asyncio.timeout(6 * PATIENCE_S):
        while not reloading.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            turns_s.append(now - before)
            before = now
    assert await reloading == []
    assert len(gateway.services.snapshot.callers) == 3_000
    assert max(turns_s) < 0.05
    await gateway.close()


async def test_a_change_of_a_file_that_the_configuration_names_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.reload.LOOK_EVERY_S", 0.01)
    key = tmp_path / "key"
    key.write_text("gw_first")
    async with watched(with_key(tmp_path, "${file:key}")) as (gateway, _):
        for secret in ("gw_second", "gw_third"):
            key.write_text(secret)
            await _until_in_force(gateway, secret)


async def test_a_file_that_a_reload_names_for_the_first_time_is_watched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.reload.LOOK_EVERY_S", 0.01)
    key = tmp_path / "key"
    async with watched(with_key(tmp_path, "gw_first")) as (gateway, _):
        key.write_text("gw_second")
        with_key(tmp_path, "${file:key}")
        await _until_in_force(gateway, "gw_second")
        key.write_text("gw_third")
        await _until_in_force(gateway, "gw_third")


async def test_a_file_that_a_refused_configuration_names_is_watched_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.reload.LOOK_EVERY_S", 0.01)
    key = tmp_path / "key"
    async with watched(with_key(tmp_path, "gw_first")) as (gateway, reloader):
        with_key(tmp_path, "${file:key}")
        assert await reloader.reload("a test") != []
        key.write_text("gw_second")
        await _until_in_force(gateway, "gw_second")


async def test_the_log_says_what_changed_in_the_words_of_gateway_diff(tmp_path: Path) -> None:
    lines: list[bytes] = []
    log = Log(lines.append)
    limit = {"requests": 600, "per": "minute"}
    key = tmp_path / "key"
    key.write_text("gw_first")
    keys = [{"name": "k", "key": "${file:key}"}]
    path = written(tmp_path, configuration(NOWHERE, team={"keys": keys, "limits": [limit]}))
    loaded = loaded_snapshot(load(path, os.environ).settings)
    gateway = Gateway(loaded, log)
    reloader = Reloader(path, gateway, log, loaded.settings)
    written(tmp_path, configuration(NOWHERE, team={"keys": keys, "limits": [{**limit, "requests": 900}]}, workers=1))
    assert await reloader.reload("a test") == []
    key.write_text("gw_second")
    assert await reloader.reload("a test") == []
    changes = [line["changes"] for line in map(json.loads, lines) if line["event"] == "configuration reloaded"]
    assert sorted(changes[0]) == [
        "teams.search.limits.requests-per-minute.requests changed from 600 to 900",
        "workers added: 1 (needs a restart)",
    ]
    old, new = (hashlib.sha256(secret).hexdigest()[:12] for secret in (b"gw_first", b"gw_second"))
    assert sorted(changes[1]) == sorted([f"key {old} removed", f"key {new} added"])
    await gateway.close()


async def _until_in_force(gateway: Gateway, key: str) -> None:
    digest = hashlib.sha256(key.encode()).hexdigest()
    async with asyncio.timeout(PATIENCE_S):
        while digest not in gateway.services.snapshot.callers:
            await asyncio.sleep(0)
