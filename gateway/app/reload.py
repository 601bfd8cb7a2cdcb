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

    def begin(self) -> asyncio.Task[None]:
        """Listen to SIGHUP and to the admin API, and watch the file for as long as the task runs."""
        self._gateway.on_reload(self.reload)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.ask)
        return loop.create_task(self.watch())

    async def reload(self) -> list[str]:
        """Take the file up now; what is wrong with it, where it was refused."""
        self._seen = _stamp(self._path)
        try:
            # In a thread: a large file takes long enough to make running streams stutter.
            settings = (await asyncio.to_thread(load, self._path, os.environ)).settings
        except SettingsInvalid as invalid:
            problems = [str(problem) for problem in invalid.problems]
            self._log.error("configuration rejected", problems=problems)
            self._gateway.count_reload("refused")
            return problems
        fixed = [name for name in _FIXED if getattr(settings, name) != getattr(self._settings, name)]
        self._gateway.take_up(settings)
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
