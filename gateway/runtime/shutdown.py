"""Stops a process: the first SIGTERM or SIGINT drains it, a second one aborts it.

A single process handles the second signal itself. A worker does not: service managers signal every process of a group,
so that the supervisor's first signal may arrive there twice. Workers abort when the supervisor orders it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

END_SIGNALS = (signal.SIGTERM, signal.SIGINT)

LogSignal = Callable[[str, str], None]
"""Logs a signal's name and its effect."""


class Shutdown:
    """`requested`: drain. `aborted`: end what still runs."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.aborted = asyncio.Event()

    def request(self) -> None:
        self.requested.set()

    def abort(self) -> None:
        self.requested.set()
        self.aborted.set()

    def on_signals(self, log_signal: LogSignal) -> None:
        """The first signal requests, the second aborts."""

        def on_signal(name: str) -> None:
            again = self.requested.is_set()
            log_signal(name, "the drain is cut short" if again else "drain")
            (self.abort if again else self.request)()

        loop = asyncio.get_running_loop()
        for number in END_SIGNALS:
            loop.add_signal_handler(number, on_signal, number.name)

    def on_signals_of_a_group(self) -> None:
        """Every signal requests, and none aborts."""
        loop = asyncio.get_running_loop()
        for number in END_SIGNALS:
            loop.add_signal_handler(number, self.request)
