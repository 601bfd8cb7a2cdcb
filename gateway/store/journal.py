"""Keeps on disk what cannot be settled yet.

Each process has a file, held by a lock that ends with the process; a process that gets the lock of a dead one may
replay its file. A line is the CRC-32 of its text and the text, which is signed (journal_key.py): the checksum finds
damage, the signature forgery. Lines are synced to the disk in batches, and `append` returns when its line is. A torn
end was never promised to any caller. An entry that can never be charged is moved to a `.parked` file next to it, which
has the same form.

Files are read by their descriptors, not by their names: what another program does to the folder meanwhile delays no
charge.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec

from gateway.core.request_record import KeptRecord
from gateway.core.reservation import Hold, Holds, LedgerEntry, Settlement
from gateway.core.stored_objects import StoredObject
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.journal_key import JournalKey

SUFFIX = ".journal"
PARKED = ".parked"

LARGEST_BYTES = 1 << 30
"""A journal takes up to a gibibyte: about 600,000 requests with four limits, of 1.8 KB each."""

LINES_AT_ONCE = 200

_PROBE = b"\n" * 4096

_READ_AT_ONCE = 1 << 20


class JournalFull(Exception):
    """The line cannot be kept: it is beyond the bound, or the disk does not take it."""


class JournalLine(msgspec.Struct, frozen=True):
    """Places count from 1 for as long as the process lives, also when its file is emptied."""

    place: int
    settlement: Settlement


class _WrittenDue(msgspec.Struct, frozen=True):
    hold: Hold
    actual: int


class _WrittenSettlement(msgspec.Struct, frozen=True):
    """A settlement as it is in the file, row by row: gateways of other versions read and write it, too."""

    id: str
    at_ms: int
    dues: Sequence[_WrittenDue]
    entry: LedgerEntry | None
    record: KeptRecord | None = None
    created: StoredObject | None = None


class _WrittenLine(msgspec.Struct, frozen=True):
    place: int
    settlement: _WrittenSettlement

    @classmethod
    def of(cls, line: JournalLine) -> _WrittenLine:
        one = line.settlement
        dues = list(map(_WrittenDue, one.holds, one.actual))
        return cls(line.place, _WrittenSettlement(one.id, one.at_ms, dues, one.entry, one.record, one.created))

    def read(self) -> JournalLine:
        one = self.settlement
        holds, actual = Holds.of([due.hold for due in one.dues]), [due.actual for due in one.dues]
        return JournalLine(self.place, Settlement(one.id, one.at_ms, holds, actual, one.entry, one.record, one.created))


IsSigned = Callable[[bytes], bool]
"""Whether the text of a line, without its checksum, can be trusted."""

DAMAGED = "is damaged"
UNSIGNED = "is not signed by a gateway of this store"


class Read(NamedTuple):
    """A line (None: it has a fault), where in the file the next one begins, the text as it is there, and its fault."""

    line: JournalLine | None
    end: int
    text: bytes
    fault: str = ""


class Journal:
    """The journal of this process; its file is made with the first line. Raises OSError for a folder that cannot be
    written to."""

    def __init__(self, folder: Path, process: str, tasks: BackgroundTasks, largest_bytes: int = LARGEST_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"the folder {folder} cannot be written to")
        self.is_exposed = _is_exposed(folder.stat())
        """Whether another user than root can remove what is in the folder."""
        self.key = JournalKey(folder)
        self.process = process
        self.path = folder / (process + SUFFIX)
        self._tasks = tasks
        self._largest_bytes = largest_bytes
        self._file = -1
        self._places = 0
        self._waiting: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._turn = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self.size = 0
        """Bytes of whole lines in the file."""
        self._spoiled = False
        """Whether something that was refused may still be in the file behind them."""
        self.failing = False
        """Whether the disk did not take what it was last given."""

    async def append(self, settlement: Settlement) -> None:
        """Return when the line is on the disk. Raises JournalFull."""
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append((settlement, kept))
        if self._writer is None or self._writer.done():
            # In a task of its own: who asks may be cancelled, what is half written may not.
            self._writer = self._tasks.start("write the journal", self._write_what_waits())
        await kept

    async def probe(self) -> None:
        """Find out whether the disk takes lines again: `failing` says so afterwards."""
        async with self._turn:
            self.failing = await asyncio.to_thread(self._write_and_cut) is not None

    async def read(self, is_signed: IsSigned, start: int) -> list[Read]:
        """The next lines from here, as `read` gives them. Raises OSError."""
        async with self._turn:
            if start >= self.size:
                return []
            lines = await asyncio.to_thread(read, self._file, is_signed, start, self.size)
        if not lines:
            raise OSError("it has lost lines: another program has changed it")
        return lines

    async def empty(self, read_up_to: int) -> bool:
        """Forget every line, if none has come since this much was read."""
        async with self._turn:
            if read_up_to != self.size or self._waiting:
                return False
            if self.size:
                await asyncio.to_thread(os.ftruncate, self._file, 0)
                self.size = 0
            return True

    async def restore(self) -> None:
        """Put the file back where another program has removed it. Raises OSError."""
        async with self._turn:
            await asyncio.to_thread(self._put_back)

    async def close(self) -> None:
        """Let go of the file: another process may take it up. It is removed if it is empty."""
        if self._writer is not None:
            await asyncio.wait([self._writer])
        if self._file >= 0:
            if self.size:
                with suppress(OSError):
                    await self.restore()
            else:
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    async def _write_what_waits(self) -> None:
        while self._waiting:
            batch: list[tuple[Settlement, asyncio.Future[None]]] = []
            trouble: str | None = "its writer was stopped"
            try:
                async with self._turn:
                    batch, self._waiting = self._waiting, []
                    trouble = await asyncio.to_thread(self._write, [settlement for settlement, _ in batch])
            except Exception as error:  # noqa: BLE001 # Whatever it is, a caller waits for each line of the batch.
                trouble = repr(error)
            finally:
                self.failing = trouble is not None
                self._answer([kept for _, kept in batch], trouble)

    def _answer(self, batch: list[asyncio.Future[None]], trouble: str | None) -> None:
        for kept in batch:
            if kept.done():
                continue
            if trouble is None:
                kept.set_result(None)
            else:
                kept.set_exception(JournalFull(f"{self.path} cannot be written: {trouble}"))

    def _write(self, settlements: list[Settlement]) -> str | None:
        """Why it failed, None when the lines are on the disk: all or none of them."""
        try:
            self.key.keep()
        except OSError as error:
            return str(error)
        lines = [JournalLine(self._places + number, one) for number, one in enumerate(settlements, 1)]
        text = b"".join([spelled(line, self.key.sign) for line in lines])
        trouble = self._put(text)
        if trouble is None:
            self._spoiled = False
            self._places += len(settlements)
            self.size += len(text)
        return trouble

    def _write_and_cut(self) -> str | None:
        trouble = self._put(_PROBE)
        self._cut()
        return trouble

    def _put(self, text: bytes) -> str | None:
        """Bring the text to the disk, behind the lines that are there; it counts only once `size` does."""
        if self.size + len(text) > self._largest_bytes:
            return f"it may not be larger than {self._largest_bytes} bytes"
        try:
            if self._file < 0:
                self._file = _created(self.path)
            self._put_back()
            if self._spoiled:
                os.ftruncate(self._file, self.size)
            self._spoiled = True
            _write_all(self._file, text)
            os.fdatasync(self._file)
        except OSError as error:
            self._cut()
            return str(error)
        return None

    def _put_back(self) -> None:
        """A file that was removed while it was open keeps its lines, but has no name to be found by, and ends with the
        process."""
        if self._file < 0 or os.fstat(self._file).st_nlink:
            return
        removed, file = self._file, _created(self.path)
        try:
            _copy(removed, file, self.size)
            os.fdatasync(file)
        except OSError:
            self.path.unlink(missing_ok=True)
            os.close(file)
            raise
        self._file, self._spoiled = file, False
        os.close(removed)

    def _cut(self) -> None:
        """Half a line would spoil the next one. A disk that refuses this, too, is asked again before that one."""
        if self._spoiled:
            with suppress(OSError):
                os.ftruncate(self._file, self.size)
                self._spoiled = False


class Orphan:
    """The journal of a process that is dead, while this one holds its lock."""

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self.process = path.name.removesuffix(SUFFIX)
        self._file = file

    async def read(self, is_signed: IsSigned, start: int) -> list[Read]:
        """The next lines from here, as `read` gives them. Raises OSError."""
        return await asyncio.to_thread(read, self._file, is_signed, start)

    def count(self, start: int) -> int:
        """How many lines there are from here. Raises OSError."""
        return count(self._file, start)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def orphans(folder: Path, log_error: Callable[[str], None]) -> Iterator[Orphan]:
    """The journals whose processes are dead, each held until it is removed or released; what looks like one and
    cannot be read is logged."""
    for path in sorted(folder.glob("*" + SUFFIX)):
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        except OSError as error:
            log_error(f"{path} cannot be read, so what it holds is not charged: {error.strerror}")
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        if _is_still_at(path, os.fstat(file)):
            yield Orphan(path, file)
        else:
            os.close(file)


def _is_exposed(folder: os.stat_result) -> bool:
    is_writable = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX
    return bool(is_writable) or folder.st_uid not in (os.geteuid(), 0)


def _is_still_at(path: Path, opened: os.stat_result) -> bool:
    """Not if another process has replayed and removed it before it was locked, or if it is no file at all."""
    try:
        return stat.S_ISREG(opened.st_mode) and path.stat().st_ino == opened.st_ino
    except FileNotFoundError:
        return False


def park(journal: Path, lines: Sequence[bytes]) -> None:
    """Move lines out of the way of the others, to be looked at by people. Raises OSError."""
    file = os.open(journal.with_suffix(PARKED), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        _write_all(file, b"".join(lines))
        os.fsync(file)
    finally:
        os.close(file)


def read(file: int, is_signed: IsSigned, start: int, end: int | None = None) -> list[Read]:
    """The next lines from here to `end`, up to LINES_AT_ONCE; none at the end, and none of a torn tail."""
    found: list[Read] = []
    for text in islice(_lines(file, start), LINES_AT_ONCE):
        start += len(text)
        if end is not None and start > end:
            break
        line, fault = _understood(text, is_signed)
        found.append(Read(line, start, text, fault))
    return found


def count(file: int, start: int = 0) -> int:
    """How many lines there are from here."""
    return sum(1 for _ in _lines(file, start))


def _lines(file: int, start: int) -> Iterator[bytes]:
    """The whole ones from here, each with its line feed. The place of the descriptor stays what it was."""
    begun: list[bytes] = []
    while block := os.pread(file, _READ_AT_ONCE, start):
        start += len(block)
        *ends, rest = block.split(b"\n")
        for end in ends:
            yield b"".join([*begun, end, b"\n"])
            begun = []
        begun.append(rest)


def spelled(line: JournalLine, sign: Callable[[bytes], bytes]) -> bytes:
    text = sign(msgspec.json.encode(_WrittenLine.of(line)))
    return b"%08x %s\n" % (crc32(text), text)


def _understood(text: bytes, is_signed: IsSigned) -> tuple[JournalLine | None, str]:
    """The line, or its fault."""
    try:
        if int(text[:8], 16) != crc32(text[9:-1]):
            return None, DAMAGED
        if not is_signed(text[9:-1]):
            return None, UNSIGNED
        return msgspec.json.decode(text[9:], type=_WrittenLine).read(), ""
    except ValueError:
        return None, DAMAGED


def _created(path: Path) -> int:
    """A new file under a lock from its first moment, so that no process can take it for a dead process's."""
    temporary = path.with_suffix(".new")
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError:
        # Before the lock is let go, so that no process takes it for a dead process's.
        for name in (temporary, path):
            with suppress(OSError):
                name.unlink(missing_ok=True)
        os.close(file)
        raise
    return file


def _write_all(file: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(file, rest) :]


def _copy(source: int, target: int, size: int) -> None:
    """So many bytes from the beginning."""
    start = 0
    while start < size:
        text = os.pread(source, min(size - start, _READ_AT_ONCE), start)
        if not text:
            raise OSError("the file is shorter than what was written to it")
        _write_all(target, text)
        start += len(text)
