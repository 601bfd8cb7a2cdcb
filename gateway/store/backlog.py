"""Settlements that wait: in the files of this process and of dead ones, and in memory if the disk refuses them.

Each second the store and the disk are tried again. Nothing delays what is behind it: an entry that the store refuses
while it accepts the next one is parked, and a file that cannot be read is left where it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Protocol

import msgspec

from gateway.core.errors import StoreUnavailable
from gateway.core.reservation import Settlement
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import CallRefused, Store
from gateway.store.journal import (
    LINES_AT_ONCE,
    Journal,
    JournalFull,
    JournalLine,
    Orphan,
    Read,
    orphans,
    park,
)
from gateway.store.logged_once import LoggedOnce

_PAUSE_S = 1.0
"""Between two checks whether the store is back."""

_ORPHANS_S = 60.0
"""Between two searches for journals that were left behind."""

_IN_MEMORY = 10_000
"""Settlements: some ten megabytes."""

_WITNESSES = 10
"""Entries that are tried, to find out whether the store refuses one of them or all."""


class Replayed(Store, Protocol):
    @property
    def trouble(self) -> str | None:
        """Why the store counts as out, for operators; None while it answers."""
        ...

    def now_ms(self) -> int:
        """The store's time, as well as it is known while the store is out."""
        ...

    async def replay(self, process: str, place: int, settlement: Settlement) -> None:
        """Settle what is at this place of a process's journal, once, however often it is replayed. Place 0 comes before
        all: what is settled there is known by its id when its own place comes. Raises StoreUnavailable."""
        ...

    async def journal_key(self, proposal: bytes) -> bytes:
        """The key that signs journals, the same for every gateway of the store: the proposal where there was none yet.
        Raises StoreUnavailable."""
        ...


def _uncounted(outcome: str, entries: int) -> None:
    """Counts nothing, for callers without metrics."""


class Policy(msgspec.Struct, frozen=True):
    """`lets_through`: whether requests pass unasked while the store is out. `log_error` gets what is lost, `count`
    how many entries were "written", "in_memory", "replayed", "parked" or "lost". `in_memory` is how many may wait
    there.
    `takes_unsigned`: whether entries are charged that no gateway has signed."""

    log_error: Callable[[str], None]
    lets_through: bool = False
    takes_unsigned: bool = False
    pause_s: float = _PAUSE_S
    orphans_s: float = _ORPHANS_S
    in_memory: int = _IN_MEMORY
    count: Callable[[str, int], None] = _uncounted


class _KeptSettlement(Exception):
    """The store refuses an entry, and none is behind it that would show whether it refuses all."""


class Backlog:
    def __init__(self, store: Replayed, journal: Journal, policy: Policy, tasks: BackgroundTasks) -> None:
        self._store = store
        self._journal = journal
        self._policy = policy
        self._tasks = tasks
        self._memory: deque[Settlement] = deque()
        self._own = 0
        self._orphaned = 0
        self._read_up_to = 0
        self._orphans_read: dict[str, int] = {}
        """How far the journals of dead processes are replayed, by process."""
        self._log_once = LoggedOnce(policy.log_error)
        self._news = asyncio.Event()
        self._moving: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return self._own + self._orphaned + len(self._memory)

    @property
    def failing(self) -> bool:
        """Whether an entry that is kept now would be lost with the process."""
        return self._journal.failing

    async def keep(self, settlement: Settlement) -> None:
        """Raises StoreUnavailable where nothing has space for it."""
        try:
            await self._journal.append(settlement)
        except JournalFull as full:
            if len(self._memory) >= self._policy.in_memory:
                self._policy.count("lost", 1)
                raise StoreUnavailable(f"A settlement is lost: {full}") from full
            if not self._memory:
                self._policy.log_error(f"settlements are kept in memory: {full}")
            self._memory.append(settlement)
            self._policy.count("in_memory", 1)
        else:
            self._own += 1
            self._policy.count("written", 1)
        self._news.set()

    async def close(self) -> None:
        """Try once more what is only in memory; what is on disk waits there for the next start."""
        if self._moving is not None:
            await asyncio.wait([self._moving])
        await self._empty_memory()
        await self._journal.close()
        if self._memory:
            self._policy.count("lost", len(self._memory))
            self._policy.log_error(f"{len(self._memory)} settlements are lost: neither store nor disk took them")

    async def work(self) -> None:
        """Settle what waits, for as long as the process lives."""
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        while True:
            self._news.clear()
            try:
                await self._empty_memory()
                await self._replay_own()
                if loop.time() >= look_at:
                    await self._replay_orphans()
                    look_at = loop.time() + self._policy.orphans_s
            except StoreUnavailable:
                await asyncio.sleep(self._policy.pause_s)
                continue
            except Exception as error:  # noqa: BLE001 # A defect must not end the replay permanently.
                self._log_once(f"the journal cannot be replayed: {error!r}")
                await asyncio.sleep(self._policy.pause_s)
                continue
            if self._own or self._memory or self._journal.failing:
                await asyncio.sleep(self._policy.pause_s)
                continue
            try:
                async with asyncio.timeout_at(look_at):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _share_key(self) -> None:
        key = self._journal.key
        if not key.is_shared:
            await asyncio.to_thread(key.share, await self._store.journal_key(key.proposal))

    async def _empty_memory(self) -> None:
        await self._offer_to_store()
        # In a task of its own: what is stopped half-way would be written once more.
        self._moving = self._tasks.start("keep settlements", self._offer_to_disk())
        await asyncio.shield(self._moving)
        if self._journal.failing:
            await self._journal.probe()

    async def _offer_to_store(self) -> None:
        for _ in range(len(self._memory)):
            try:
                await self._store.settle(self._memory[0])
            except Exception as error:  # noqa: BLE001 # What the store refuses stays, and is tried on the disk.
                if not _is_refused(error):
                    return
                self._memory.rotate(-1)
            else:
                self._memory.popleft()
                self._policy.count("replayed", 1)

    async def _offer_to_disk(self) -> None:
        while self._memory:
            some = list(islice(self._memory, LINES_AT_ONCE))
            # They are written together, all or none.
            if any(await asyncio.gather(*[self._journal.append(one) for one in some], return_exceptions=True)):
                return
            for _ in some:
                self._memory.popleft()
            self._own += len(some)
            self._policy.count("written", len(some))

    async def _replay_own(self) -> None:
        journal = self._journal
        try:
            while not await journal.empty(self._read_up_to):
                before = self._read_up_to
                with suppress(OSError):  # Only what is not charged before this process ends needs a name.
                    await journal.restore()
                async for end in self._replay(journal, before):
                    self._read_up_to = end
                    self._own -= 1
                if self._read_up_to == before:
                    return  # What is being written comes next.
        except (OSError, _KeptSettlement) as error:
            self._log_once(f"the journal {journal.path} waits: {error}")
            return
        self._read_up_to = 0

    async def _replay_orphans(self) -> None:
        found = list(orphans(self._journal.path.parent, self._log_once))
        try:
            self._orphaned = sum([await self._count(orphan) for orphan in found])
            await self._share_key()
            for orphan in found:
                await self._replay_orphan(orphan)
        finally:
            for orphan in found:
                orphan.release()

    async def _count(self, orphan: Orphan) -> int:
        try:
            return await asyncio.to_thread(orphan.count, self._orphans_read.get(orphan.process, 0))
        except OSError:
            # Its replay says so.
            return 0

    async def _replay_orphan(self, orphan: Orphan) -> None:
        start = self._orphans_read.get(orphan.process, 0)
        try:
            async for end in self._replay(orphan, start):
                self._orphans_read[orphan.process] = end
                self._orphaned -= 1
            orphan.remove()
            self._orphans_read.pop(orphan.process, None)
        except (OSError, _KeptSettlement) as error:
            self._log_once(f"the journal {orphan.path} waits: {error}")

    async def _replay(self, journal: Journal | Orphan, start: int) -> AsyncIterator[int]:
        """Yields the end of each line that is done. Raises StoreUnavailable, OSError, _KeptSettlement."""
        process, path = journal.process, journal.path
        while lines := await journal.read(self._signed_by(process), start):
            parked = 0
            for number, one in enumerate(lines):
                if one.line is None:
                    if number >= parked:
                        # All with one fault in a row, in one write, before any of them counts as dealt with.
                        faulty = [other.text for other in takewhile(partial(_has_fault, one.fault), lines[number:])]
                        await self._park(path, faulty, one.fault)
                        parked = number + len(faulty)
                elif why := await self._refusal(process, one.line, lines[number + 1 :]):
                    await self._park(path, [one.text], f"is refused by the store ({why})")
                else:
                    self._policy.count("replayed", 1)
                start = one.end
                yield start

    def _signed_by(self, process: str) -> Callable[[bytes], bool]:
        """Whether a line of this process's journal can be trusted."""
        if self._policy.takes_unsigned:
            return _is_anybodys
        key = self._journal.key
        return key.is_own if process == self._journal.process else key.is_ours

    async def _refusal(self, process: str, line: JournalLine, behind: Sequence[Read]) -> str | None:
        """Why the store refuses only this line; None if it is settled."""
        for attempt in range(2):
            try:
                await self._store.replay(process, line.place, line.settlement)
            except Exception as error:
                if not _is_refused(error):
                    raise
                if attempt:
                    return str(error.__cause__ or error)
                if not await self._takes_any(process, behind):
                    raise _KeptSettlement(f"the store refuses its next entry: {error.__cause__ or error}") from error
            else:
                return None
        return None

    async def _takes_any(self, process: str, lines: Sequence[Read]) -> bool:
        """Settled by their ids alone, so that their places are still to come."""
        for other in [one.line for one in lines if one.line is not None][:_WITNESSES]:
            try:
                await self._store.replay(process, 0, other.settlement)
            except Exception as error:
                if not _is_refused(error):
                    raise
            else:
                return True
        return False

    async def _park(self, path: Path, lines: Sequence[bytes], why: str) -> None:
        await asyncio.to_thread(park, path, lines)
        self._policy.count("parked", len(lines))
        # Once for each file: one that is garbage has a great many lines.
        self._log_once(f"an entry of {path.name} {why}: it is not charged, and kept in {path.stem}.parked", path)


def _has_fault(fault: str, one: Read) -> bool:
    return one.fault == fault


def _is_anybodys(_text: bytes) -> bool:
    return True


def _is_refused(error: Exception) -> bool:
    """Whether the error is about the call, by the server's word or by a defect of the gateway, and not about the
    store."""
    return isinstance(error, CallRefused) or not isinstance(error, StoreUnavailable)
