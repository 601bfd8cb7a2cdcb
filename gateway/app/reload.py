"""Loads a changed configuration while the gateway runs: as a whole, or not at all.

Three things start a reload: SIGHUP, a change of the file or of one that its `${file:…}` name, and POST
/admin/v1/reload. Requests in flight keep the configuration that they began with.

One reload runs at a time. All reloads that are asked for meanwhile become the next one and share its result: the
running one may have read the file before they were asked for. If the file changes while it is read, it is read again,
so that the newest file is in force at the end.
"""

from __future__ import annotations

import asyncio
import signal
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gateway.app.config_documents import READ_ONCE, changes_between
from gateway.app.gateway import Gateway
from gateway.app.loaded_snapshot import LoadedSnapshot, LoadFailed
from gateway.app.process_settings import ProcessSettings
from gateway.app.snapshot_differences import SHOWN_MAX, Differences, in_words
from gateway.app.snapshot_process import load_in_child
from gateway.core.errors import InternalError, StoreUnavailable
from gateway.core.snapshot import ConfigSnapshot
from gateway.identity.contract import AuditEntry
from gateway.runtime.release import release_in_parts
from gateway.runtime.tasks import BackgroundTasks
from gateway.telemetry.log import Log

LOOK_EVERY_S = 2.0
"""Between two checks of the file. Kubernetes swaps a link for a changed ConfigMap, which inotify misses."""

READINGS = 5
"""A file is read this often while it changes; the next check finds what came after the last reading."""

COMPARED_CHARACTERS = 256 * 1024
"""Up to this size a file is compared as text, which then takes a second; of a larger one the snapshots are compared."""

Load = Callable[[str, int, ConfigSnapshot], Awaitable[LoadedSnapshot]]
"""Reads a file, at a time in seconds since 1970, and compares it with a snapshot. Raises LoadFailed."""


class Stamp(NamedTuple):
    """What differs in a file that has changed."""

    modified_ns: int
    size: int
    inode: int


class Reloader:
    """Keeps a gateway to a file."""

    def __init__(
        self, path: str, gateway: Gateway, log: Log, settings: ProcessSettings, load: Load = load_in_child
    ) -> None:
        self._path = path
        self._load = load
        self._gateway = gateway
        self._log = log
        self._settings = settings
        self._text = settings.text
        """The text of the configuration in force."""
        self._files = (path, *settings.referenced_files)
        """The files that are watched: the configuration, and those that its `${file:…}` name."""
        self._seen = _stamps(self._files)
        self._asked = asyncio.Event()
        self._running: asyncio.Task[list[str]] | None = None
        self._next: asyncio.Task[list[str]] | None = None
        self._asked_by: list[str] = []
        """Who asked for the next reload, for the log."""

    def start(self) -> None:
        """Listen to SIGHUP and to the admin API, and watch the file, until the gateway's tasks are closed."""
        self._gateway.on_reload(self.reload)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.ask)
        if self._has_changed_since_it_was_read():
            self._seen = {}
        self._tasks.keep_running("watch the configuration", self.watch)

    @property
    def _tasks(self) -> BackgroundTasks:
        return self._gateway.tasks

    async def reload(self, asked_by: str) -> list[str]:
        """Load the file as it is now, or newer. Returns what is wrong with it, if it was refused."""
        self._asked_by.append(asked_by)
        if self._next is not None:
            reloading = self._next
        elif self._running is not None and not self._running.done():
            reloading = self._next = self._tasks.start("reload", self._reload_after(self._running))
        else:
            reloading = self._running = self._tasks.start("reload", self._reload())
        return await asyncio.shield(reloading)

    async def watch(self) -> None:
        """Reload whenever one of the files has changed, for as long as this is awaited."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_EVERY_S)
            is_asked = self._asked.is_set()
            if is_asked or await self._look() != self._seen:
                self._asked.clear()
                await self.reload("SIGHUP" if is_asked else "a change of the file")

    def ask(self) -> None:
        """Have `watch` reload the file now, changed or not."""
        self._asked.set()

    def _has_changed_since_it_was_read(self) -> bool:
        """A start takes seconds with 10,000 keys, and the stamps are of its end."""
        with suppress(OSError):
            text = Path(self._path).read_text(encoding="utf-8-sig", errors="replace")
            return bool(self._text) and text != self._text
        return False

    async def _reload_after(self, running: asyncio.Task[list[str]]) -> list[str]:
        await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await self._reload()

    async def _reload(self) -> list[str]:
        asked_by, self._asked_by = sorted(set(self._asked_by)), []
        try:
            loaded = await self._newest()
            await self._refuse_clashes(loaded.snapshot)
        except LoadFailed as failed:
            self._log.error("configuration rejected", asked_by=asked_by, problems=failed.problems)
            self._gateway.reload_refused(failed.problems)
            return failed.problems
        settings = loaded.settings
        fixed = [name for name in READ_ONCE if getattr(settings, name) != getattr(self._settings, name)]
        before = self._gateway.swap(loaded)
        self._gateway.reload_accepted()
        self._retire(before)
        del before
        differences, restarted = loaded.changes
        words = await self._in_words(differences, settings.text)
        summary = {"changes": words, "counters_restarted": list(restarted), "needs_restart": fixed}
        self._log.info("configuration reloaded", asked_by=asked_by, **summary)
        await self._audit(asked_by, differences, loaded)
        return []

    async def _in_words(self, changes: Differences, text: str) -> list[str]:
        """The words of `gateway diff`. If the text is the same, a file that it names has changed: then the difference
        of the snapshots."""
        before, self._text = self._text, text
        found: list[str] = []
        if before and text and before != text and max(len(before), len(text)) <= COMPARED_CHARACTERS:
            with suppress(InternalError, OSError):
                found = [change.in_words() for change in await changes_between(before, text)]
        more = [f"and {len(found) - SHOWN_MAX} more"] if len(found) > SHOWN_MAX else []
        return [*found[:SHOWN_MAX], *more] or in_words(changes)

    async def _refuse_clashes(self, snapshot: ConfigSnapshot) -> None:
        """Raises LoadFailed. While the store is out its keys are unknown, and the file is accepted."""
        with suppress(StoreUnavailable):
            if clashes := await self._gateway.keys.clashes(snapshot):
                raise LoadFailed([f"{self._path}: {clash}" for clash in clashes])

    async def _audit(self, asked_by: list[str], changes: Differences, loaded: LoadedSnapshot) -> None:
        """A reload that changes nothing that requests can notice is only in the log."""
        if not changes.before and not changes.after:
            return
        entry = AuditEntry(
            ", ".join(asked_by), "config.reload", loaded.settings.file_hash, changes.before, changes.after
        )
        try:
            await self._gateway.keys.note(entry)
        except StoreUnavailable:
            self._log.warning("reload is not in the audit", why="the store does not answer")

    async def _newest(self) -> LoadedSnapshot:
        """Raises LoadFailed."""
        for _ in range(READINGS - 1):
            self._seen = await self._look()
            try:
                loaded = await self._read()
            except LoadFailed:
                if await self._look() == self._seen:
                    raise
            else:
                if await self._look() == self._seen:
                    return loaded
        self._seen = await self._look()
        return await self._read()

    async def _read(self) -> LoadedSnapshot:
        """Files that it names for the first time are watched from now on, and so are read once more. This includes
        those of a refused configuration: the error may be in one of them. Raises LoadFailed."""
        try:
            services = self._gateway.services
            loaded = await self._load(self._path, services.clock.now_ms() // 1000, services.snapshot)
        except LoadFailed as failed:
            self._files = tuple(dict.fromkeys((*self._files, *failed.files)))
            raise
        self._files = (self._path, *loaded.settings.referenced_files)
        return loaded

    async def _look(self) -> dict[str, Stamp | None]:
        """In a thread, because there may be a file for each of thousands of keys."""
        return await asyncio.to_thread(_stamps, self._files)

    def _retire(self, snapshot: ConfigSnapshot) -> None:
        """Free what a snapshot has much of little by little, once the last request under it has ended."""
        weakref.finalize(snapshot, self._release, snapshot.callers, snapshot.bindings).atexit = False

    def _release(self, *mappings: dict[Any, Any]) -> None:
        # Where the loop has ended, nothing is left to delay.
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            self._tasks.start("release a snapshot", release_in_parts(*mappings))


def _stamps(paths: Iterable[str]) -> dict[str, Stamp | None]:
    return {path: _stamp(path) for path in paths}


def _stamp(path: str) -> Stamp | None:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None  # A file that is being replaced may be away for a moment.
    return Stamp(found.st_mtime_ns, found.st_size, found.st_ino)
