"""Reads a configuration in a child process, so that a reload does not delay requests.

Reading 10,000 keys takes seconds of pure Python, and comparing them with those in force takes hundreds of milliseconds.
A thread would hold the interpreter lock for most of that time, and every request would wait for it. So a reload starts
this module as a child:

    parent: pickle the snapshot in force, a part in each turn of the event loop → the child's standard input
    child:  read it → read the file → check it → build the snapshot → compare the two
            → pickle the new one, and what has changed, to standard output, in parts
    parent: unpickle each part as it comes → swap the snapshot

Each part has its length in front. Reading one takes a fraction of a millisecond. One pickler writes all parts of the
new snapshot, so that callers still share what they share with their team; it remembers the callers of a few parts at a
time, since a memory of all of them would take milliseconds to free. The parts of the old snapshot are only compared, so
each is pickled by itself. docs/decisions/0029-a-reload-is-compared-in-the-child.md has the figures.
"""

from __future__ import annotations

import asyncio
import gc
import io
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import msgspec

from gateway.app.snapshot_builder import snapshot
from gateway.app.snapshot_differences import SnapshotChanges, changes_of
from gateway.core.snapshot import ConfigSnapshot
from gateway.runtime.child_process import ChildProcess, child_process
from gateway.runtime.workers import status_text
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.loading import load
from gateway.settings.models import Settings
from gateway.telemetry.configured_names import ConfiguredNames, configured_names

CALLERS_A_PART = 25
"""Or teams."""

NICENESS = 10
"""Requests go before the reading of a configuration."""


TEXT_PART = 128 * 1024
"""Characters of the configuration's text."""

PARTS_TOGETHER = 10
"""Parts that share what is none of their team's. What is remembered of more would take long to free."""

_PROTOCOL = 3
"""It names the place of each object that is remembered, so that a place can be used again. Later ones count."""

_LENGTH = 4
"""Bytes in front of a part."""


class LoadedSnapshot(NamedTuple):
    """`settings` without what the snapshot holds: teams, models, upstreams and limits. `names` are all that are
    configured, `changes` those since the snapshot before."""

    settings: Settings
    snapshot: ConfigSnapshot
    names: ConfiguredNames
    changes: SnapshotChanges = SnapshotChanges()

    @classmethod
    def of(cls, settings: Settings, loaded_at: int = 0, before: ConfigSnapshot | None = None) -> LoadedSnapshot:
        """Built in this process. `loaded_at` is in seconds since 1970."""
        built = snapshot(settings, loaded_at)
        changes = SnapshotChanges() if before is None else changes_of(before, built)
        return cls(settings, built, configured_names(built, settings.teams), changes)


class LoadFailed(Exception):
    """`problems` are what is wrong with the configuration, or why it could not be read, `files` those that it names, as
    far as it was read."""

    def __init__(self, problems: list[str], files: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.files = files


class _Head(NamedTuple):
    """The first part of what the child writes: what is wrong, and the files that a configuration with problems names;
    or what is loaded, with a snapshot that has no teams and no callers yet."""

    problems: list[str]
    files: tuple[str, ...] = ()
    loaded: LoadedSnapshot | None = None


async def load_in_child(path: str, loaded_at: int, before: ConfigSnapshot) -> LoadedSnapshot:
    """`loaded_at` is in seconds since 1970, `before` what the new snapshot is compared with. Raises LoadFailed."""
    command = (sys.executable, "-m", __name__, path, str(loaded_at))
    loaded: LoadedSnapshot | None = None
    try:
        async with child_process(command) as child:
            await _send(child, before)
            with suppress(asyncio.IncompleteReadError):  # Its status says why.
                loaded = await _received(child.stdout)
            status = await child.ended()
    except OSError as error:
        raise LoadFailed([f"{path} cannot be read: no process can be started: {error.strerror}"]) from None
    except LoadFailed:
        raise
    except Exception as error:  # The classes of another version can fail to be unpickled in any way.
        problem = f"{path} cannot be read: what the process that reads it answers is not understood"
        hint = "if another version of the gateway has been installed, restart the gateway"
        raise LoadFailed([f"{problem} ({type(error).__name__}); {hint}"]) from error
    if status != 0 or loaded is None:
        raise LoadFailed([f"{path} cannot be read: the process that reads it ended with {status_text(status)}"])
    return loaded


async def _send(child: ChildProcess, before: ConfigSnapshot) -> None:
    """As far as the child reads it."""
    for part in parts_of(before):
        packed = pickle.dumps(part, pickle.HIGHEST_PROTOCOL)
        if not await child.send(len(packed).to_bytes(_LENGTH, "big") + packed):
            break
        # There may be room for all of it at once.
        await asyncio.sleep(0)
    child.stdin.close()


async def _received(stdout: asyncio.StreamReader) -> LoadedSnapshot:
    """Raises LoadFailed, IncompleteReadError."""
    parts = _Parts(stdout)
    head: _Head = await parts.next()
    if head.loaded is None:
        raise LoadFailed(head.problems, head.files)
    text, teams, callers = await parts.text(), await parts.mapping(), await parts.mapping()
    settings = head.loaded.settings.model_copy(update={"text": text})
    whole = msgspec.structs.replace(head.loaded.snapshot, teams=teams, callers=callers)
    return head.loaded._replace(settings=settings, snapshot=whole)


class _Parts:
    """What the child writes, part by part. Each method raises IncompleteReadError."""

    def __init__(self, stdout: asyncio.StreamReader) -> None:
        self._stdout = stdout
        self._part = io.BytesIO()
        self._unpickler = pickle.Unpickler(self._part)  # noqa: S301 # Our own child wrote it.

    async def next(self) -> Any:
        length = int.from_bytes(await self._stdout.readexactly(_LENGTH), "big")
        _refill(self._part, await self._stdout.readexactly(length))
        self._part.seek(0)
        loaded = self._unpickler.load()
        # Many parts may have come at once.
        await asyncio.sleep(0)
        return loaded

    async def text(self) -> str:
        """Of the parts up to an empty one."""
        found: list[str] = []
        while part := await self.next():
            found.append(part)
        return "".join(found)

    async def mapping(self) -> dict[str, Any]:
        """Of the parts up to an empty one."""
        found: dict[str, Any] = {}
        while part := await self.next():
            found.update(part)
        return found


def _refill(buffer: io.BytesIO, content: bytes = b"") -> None:
    buffer.seek(0)
    buffer.truncate()
    buffer.write(content)


def parts_of(whole: ConfigSnapshot) -> Iterator[Any]:
    """A snapshot without its teams and callers, then those, some at a time, an empty part behind each."""
    yield msgspec.structs.replace(whole, teams={}, callers={}, bindings={})
    yield from _in_parts(whole.teams)
    yield from _in_parts(whole.callers)


def _in_parts(mapping: dict[str, Any]) -> Iterator[dict[str, Any]]:
    items = iter(mapping.items())
    while part := dict(islice(items, CALLERS_A_PART)):
        yield part
    yield {}


def read_snapshot(source: BinaryIO) -> ConfigSnapshot:
    """What `parts_of` gave. For the child."""

    def part() -> Any:
        return pickle.loads(source.read(int.from_bytes(source.read(_LENGTH), "big")))  # noqa: S301 # Our parent's.

    bare: ConfigSnapshot = part()
    teams: dict[str, Any] = {}
    callers: dict[str, Any] = {}
    for mapping in (teams, callers):
        while found := part():
            mapping.update(found)
    return msgspec.structs.replace(bare, teams=teams, callers=callers)


class _Writer:
    """Parts, by one pickler."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._part = io.BytesIO()
        self._pickler = pickle.Pickler(self._part, _PROTOCOL)

    def write(self, part: Any) -> None:
        _refill(self._part)
        self._pickler.dump(part)
        self._out.write(self._part.tell().to_bytes(_LENGTH, "big"))
        self._out.write(self._part.getbuffer())

    def write_all(self, parts: Iterator[Any]) -> None:
        """They share with what was written before and, some at a time, with each other; what is written later shares
        nothing with them."""
        remembered = self._pickler.memo.copy()
        for number, part in enumerate(parts):
            if number % PARTS_TOGETHER == 0:
                self._pickler.memo = remembered
            self.write(part)
        self._pickler.memo = remembered


def write_snapshot(path: str, loaded_at: int, before: ConfigSnapshot, out: BinaryIO) -> None:
    """The child's work."""
    writer = _Writer(out)
    try:
        settings = load(path, os.environ).settings
    except SettingsInvalid as invalid:
        writer.write(_Head([str(problem) for problem in invalid.problems], invalid.files))
        return
    loaded = LoadedSnapshot.of(settings, loaded_at, before)
    bare = msgspec.structs.replace(loaded.snapshot, teams={}, callers={})
    rest: dict[str, Any] = {"text": "", "teams": {}, "models": {}, "upstreams": {}, "limits": ()}
    writer.write(_Head([], loaded=loaded._replace(settings=settings.model_copy(update=rest), snapshot=bare)))
    text = settings.text
    writer.write_all(text[start : start + TEXT_PART] for start in range(0, len(text) + TEXT_PART, TEXT_PART))
    for part in _in_parts(loaded.snapshot.teams):
        writer.write(part)
    writer.write_all(_in_parts(loaded.snapshot.callers))


def answer_parent(path: str, loaded_at: int) -> None:
    write_snapshot(path, loaded_at, read_snapshot(sys.stdin.buffer), sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    os.nice(NICENESS)
    gc.disable()
    # Under this name, not as __main__, the parent finds the classes that are pickled.
    from gateway.app.snapshot_process import answer_parent as answer

    answer(sys.argv[1], int(sys.argv[2]))
