"""A changed configuration, taken up while the gateway runs: whole, or not at all.

SIGHUP, a change of the file and POST /admin/v1/reload lead here. Requests under way go on under the
configuration that they began with.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from gateway.app.gateway import Gateway
from gateway.app.snapshot_builder import snapshot
from gateway.settings import Settings, SettingsInvalid, load
from gateway.telemetry.log import Log

LOOK_EVERY_S = 2.0
"""How often the file is looked at. Kubernetes swaps a link for a changed ConfigMap, which inotify misses."""

_FIXED = ("listen", "admin", "workers", "timezone", "max_body", "drain", "store")
"""Settings that are read once, at the start."""


class Reloader:
    """Keeps a gateway to a file."""

    def __init__(self, path: str, gateway: Gateway, log: Log, settings: Settings) -> None:
        self._path = path
        self._gateway = gateway
        self._log = log
        self._settings = settings
        self._seen = _stamp(path)
        self._asked = asyncio.Event()

    def start(self) -> None:
        """Listen to SIGHUP and to the admin API, and watch the file, until the gateway's tasks are closed."""
        self._gateway.on_reload(self.reload)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.ask)
        self._gateway.tasks.keep_running("watch the configuration", self.watch)

    async def reload(self) -> list[str]:
        """Take the file up now; what is wrong with it, where it was refused."""
        self._seen = _stamp(self._path)
        try:
            # In a thread: a large file takes long enough to make running streams stutter.
            settings = (await asyncio.to_thread(load, self._path, os.environ)).settings
        except SettingsInvalid as invalid:
            problems = [str(problem) for problem in invalid.problems]
            self._log.error("configuration refused", problems=problems)
            self._gateway.count_reload("refused")
            return problems
        fixed = [name for name in _FIXED if getattr(settings, name) != getattr(self._settings, name)]
        loaded_at = self._gateway.services.clock.now_ms() // 1000
        self._gateway.swap(snapshot(settings, loaded_at), settings.keepalive.total_seconds())
        self._gateway.count_reload("accepted")
        self._log.info("configuration reloaded", needs_restart=fixed)
        return []

    async def watch(self) -> None:
        """Take the file up whenever it has changed, for as long as this is awaited."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_EVERY_S)
            if self._asked.is_set() or _stamp(self._path) != self._seen:
                self._asked.clear()
                await self.reload()

    def ask(self) -> None:
        """Have `watch` take the file up now, changed or not."""
        self._asked.set()


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None  # A file that is being replaced may be away for a moment.
    return found.st_mtime_ns, found.st_size, found.st_ino
