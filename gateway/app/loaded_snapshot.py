"""What is loaded of a configuration, and the parts in which it goes from one process to another.

Each part has its length in front. Reading one takes a fraction of a millisecond. One pickler writes all parts of the
new snapshot, so that callers still share what they share with their team; it remembers the callers of a few parts at a
time, since a memory of all of them would take milliseconds to free. The parts of an old snapshot are only compared, so
each is pickled by itself. docs/decisions/0029-a-reload-is-compared-in-the-child.md has the figures.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import msgspec

from gateway.app.process_settings import ProcessSettings
from gateway.app.snapshot_differences import SnapshotChanges
from gateway.core.snapshot import ConfigSnapshot
from gateway.telemetry.configured_names import ConfiguredNames

CALLERS_A_PART = 25
"""Or teams."""

TEXT_PART = 128 * 1024
"""Characters of the configuration's text."""

PARTS_TOGETHER = 10
"""Parts that share what is none of their team's. What is remembered of more would take long to free."""

LENGTH = 4
"""Bytes in front of a part."""

_PROTOCOL = 3
"""It names the place of each object that is remembered, so that a place can be used again. Later ones count."""


class LoadedSnapshot(NamedTuple):
    """`names` are all that are configured, `changes` those since the snapshot before. `warnings` name what works, but
    probably not as it was meant."""

    settings: ProcessSettings
    snapshot: ConfigSnapshot
    names: ConfiguredNames
    changes: SnapshotChanges = SnapshotChanges()
    warnings: tuple[str, ...] = ()


class LoadFailed(Exception):
    """`problems` are what is wrong with the configuration, or why it could not be read, `files` those that it names, as
    far as it was read. `is_invalid`: the configuration was read, or is not there."""

    def __init__(self, problems: list[str], files: tuple[str, ...] = (), *, is_invalid: bool = False) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.files = files
        self.is_invalid = is_invalid


class Head(NamedTuple):
    """The first part of what the child writes: what is wrong, and the files that a configuration with problems names;
    or what is loaded, with a snapshot that has no teams and no callers yet."""

    problems: list[str]
    files: tuple[str, ...] = ()
    loaded: LoadedSnapshot | None = None


def assembled() -> Generator[None, Any, LoadedSnapshot]:
    """Takes the parts in their order and returns the whole. Raises LoadFailed."""
    head: Head = yield
    if head.loaded is None:
        raise LoadFailed(head.problems, head.files, is_invalid=True)
    text: list[str] = []
    while part := (yield):
        text.append(part)
    teams = yield from _merged()
    callers = yield from _merged()
    settings = msgspec.structs.replace(head.loaded.settings, text="".join(text))
    whole = msgspec.structs.replace(head.loaded.snapshot, teams=teams, callers=callers)
    return head.loaded._replace(settings=settings, snapshot=whole)


def _merged() -> Generator[None, Any, dict[str, Any]]:
    """Of the parts up to an empty one."""
    found: dict[str, Any] = {}
    while part := (yield):
        found.update(part)
    return found


class Unpickler:
    """Of the parts of one child, which share what was in earlier ones."""

    def __init__(self) -> None:
        self._part = io.BytesIO()
        self._unpickler = pickle.Unpickler(self._part)  # noqa: S301 # Our own child wrote it.

    def load(self, part: bytes) -> Any:
        _refill(self._part, part)
        self._part.seek(0)
        return self._unpickler.load()


class PartWriter:
    """Parts, by one pickler."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._part = io.BytesIO()
        self._pickler = pickle.Pickler(self._part, _PROTOCOL)

    def write(self, part: Any) -> None:
        _refill(self._part)
        self._pickler.dump(part)
        self._out.write(self._part.tell().to_bytes(LENGTH, "big"))
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


def write_loaded(loaded: LoadedSnapshot, writer: PartWriter) -> None:
    """What `assembled` takes."""
    text = loaded.settings.text
    bare = msgspec.structs.replace(loaded.snapshot, teams={}, callers={})
    settings = msgspec.structs.replace(loaded.settings, text="")
    writer.write(Head([], loaded=loaded._replace(settings=settings, snapshot=bare)))
    writer.write_all(text[start : start + TEXT_PART] for start in range(0, len(text) + TEXT_PART, TEXT_PART))
    for part in _in_parts(loaded.snapshot.teams):
        writer.write(part)
    writer.write_all(_in_parts(loaded.snapshot.callers))


def parts_of(whole: ConfigSnapshot) -> Iterator[Any]:
    """A snapshot without its teams and callers, then those, some at a time, an empty part behind each."""
    yield msgspec.structs.replace(whole, teams={}, callers={}, bindings={})
    yield from _in_parts(whole.teams)
    yield from _in_parts(whole.callers)


def read_snapshot(source: BinaryIO) -> ConfigSnapshot:
    """What `parts_of` gave. For the child."""

    def part() -> Any:
        return pickle.loads(source.read(int.from_bytes(source.read(LENGTH), "big")))  # noqa: S301 # Our parent's.

    bare: ConfigSnapshot = part()
    teams: dict[str, Any] = {}
    callers: dict[str, Any] = {}
    for mapping in (teams, callers):
        while found := part():
            mapping.update(found)
    return msgspec.structs.replace(bare, teams=teams, callers=callers)


def _in_parts(mapping: dict[str, Any]) -> Iterator[dict[str, Any]]:
    items = iter(mapping.items())
    while part := dict(islice(items, CALLERS_A_PART)):
        yield part
    yield {}


def _refill(buffer: io.BytesIO, content: bytes = b"") -> None:
    buffer.seek(0)
    buffer.truncate()
    buffer.write(content)
