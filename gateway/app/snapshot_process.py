"""Reads a configuration in a child process, so that a reload does not delay requests.

Reading 10,000 keys takes seconds of pure Python. A thread would hold the interpreter lock for most of that time, and
every request would wait for it. So a reload starts this module as a child:

    child:  read the file → check it → build the snapshot → pickle it to standard output, in parts
    parent: collect the bytes → unpickle a part in each turn of the event loop → swap the snapshot

One pickler writes all parts, so that callers still share what they share (for example a team's limits). Unpickling a
part takes a fraction of a millisecond. docs/decisions/0008-reloads-in-a-child-process.md has the figures.
"""

from __future__ import annotations

import asyncio
import gc
import io
import os
import pickle
import sys
from typing import Any, BinaryIO, NamedTuple

import msgspec

from gateway.app.snapshot_builder import snapshot
from gateway.core.snapshot import Caller, ConfigSnapshot
from gateway.runtime.child_process import run_child
from gateway.runtime.workers import status_text
from gateway.settings import Settings, SettingsInvalid, load

CALLERS_A_PART = 50

NICENESS = 10
"""The child's priority: requests come first."""


class LoadedSnapshot(NamedTuple):
    """`settings` without the parts that the snapshot holds: teams, models, upstreams and limits. `teams` has the names
    of all configured ones."""

    settings: Settings
    snapshot: ConfigSnapshot
    teams: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings, loaded_at: int = 0) -> LoadedSnapshot:
        """Built in this process. `loaded_at` is in seconds since 1970."""
        return cls(settings, snapshot(settings, loaded_at), tuple(settings.teams))


class LoadFailed(Exception):
    """`problems` are what is wrong with the configuration, or why it could not be read, `files` those that it names, as
    far as it was read."""

    def __init__(self, problems: list[str], files: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.files = files


class _Head(NamedTuple):
    """The first part. `snapshot` has no teams and no callers yet."""

    problems: list[str]
    settings: Settings | None = None
    snapshot: ConfigSnapshot | None = None
    teams: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Those that a configuration with problems names."""


async def load_in_child(path: str, loaded_at: int) -> LoadedSnapshot:
    """`loaded_at` is in seconds since 1970. Raises LoadFailed."""
    command = (sys.executable, "-m", __name__, path, str(loaded_at))
    try:
        child = await run_child(command)
    except OSError as error:
        raise LoadFailed([f"{path} cannot be read: no process can be started: {error.strerror}"]) from None
    if child.status != 0:
        raise LoadFailed([f"{path} cannot be read: the process that reads it ended with {_status(child.status)}"])
    return await _unpickled(child.written)


async def _unpickled(written: bytes) -> LoadedSnapshot:
    parts = pickle.Unpickler(io.BytesIO(written))  # noqa: S301 # Our own child wrote it.
    head: _Head = parts.load()
    if head.settings is None or head.snapshot is None:
        raise LoadFailed(head.problems, head.files)
    teams, callers = await _mapping(parts), await _mapping(parts)
    whole = msgspec.structs.replace(head.snapshot, teams=teams, callers=callers)
    return LoadedSnapshot(head.settings, whole, head.teams)


async def _mapping(parts: pickle.Unpickler) -> dict[str, Any]:
    """The parts up to an empty one."""
    found: dict[str, Any] = {}
    while part := parts.load():
        found.update(part)
        await asyncio.sleep(0)
    return found


def write_snapshot(path: str, loaded_at: int, out: BinaryIO) -> None:
    """The child's work."""
    pickler = pickle.Pickler(out, pickle.HIGHEST_PROTOCOL)
    try:
        settings = load(path, os.environ).settings
    except SettingsInvalid as invalid:
        pickler.dump(_Head([str(problem) for problem in invalid.problems], files=invalid.files))
        return
    built = snapshot(settings, loaded_at)
    rest: dict[str, Any] = {"teams": {}, "models": {}, "upstreams": {}, "limits": ()}
    bare = msgspec.structs.replace(built, teams={}, callers={})
    head = _Head([], settings.model_copy(update=rest), bare, tuple(settings.teams))
    pickler.dump(head)
    for mapping in (built.teams, built.callers):
        items = list(mapping.items())
        for start in range(0, len(items), CALLERS_A_PART):
            pickler.dump(items[start : start + CALLERS_A_PART])
        pickler.dump([])


async def release_in_parts(callers: list[Caller]) -> None:
    """Drop these objects, a few in each turn of the event loop: all at once would take milliseconds."""
    while callers:
        del callers[-CALLERS_A_PART:]
        await asyncio.sleep(0)


def _status(returncode: int | None) -> str:
    return status_text(returncode or 0)


if __name__ == "__main__":
    os.nice(NICENESS)
    gc.disable()
    # Under this name, not as __main__, the parent finds the classes that are pickled.
    from gateway.app.snapshot_process import write_snapshot as write

    write(sys.argv[1], int(sys.argv[2]), sys.stdout.buffer)
    sys.stdout.buffer.flush()
