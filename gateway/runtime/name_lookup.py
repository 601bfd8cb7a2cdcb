"""Looks up the addresses of hosts, each in a thread of its own.

uvloop's own look-ups share two threads, and one that is given up goes on there until the name server's time is over.
Two names whose server hangs would hold up all others. Here one look-up runs for a host, however many ask for it at
once, and it delays only those who wait for that host.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from gateway.runtime.own_thread import run_in_own_thread
from gateway.runtime.tasks import BackgroundTasks

ResolvedAddress: TypeAlias = tuple[
    socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]
]
"""As `socket.getaddrinfo` gives them."""

Resolve = Callable[[str, int], list[ResolvedAddress]]


class LookupFailed(OSError):
    """The host has no address that could be found, or none yet as the process stops."""


def resolve(host: str, port: int) -> list[ResolvedAddress]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]  # IPv6 is built in.


class NameLookups:
    def __init__(self, tasks: BackgroundTasks, resolve: Resolve = resolve) -> None:
        self._tasks = tasks
        self._resolve = resolve
        self._running: dict[tuple[str, int], asyncio.Task[list[ResolvedAddress] | LookupFailed]] = {}

    async def addresses(self, host: str, port: int) -> list[ResolvedAddress]:
        """At least one. Raises LookupFailed."""
        with suppress(socket.gaierror, UnicodeError):
            # An address needs no name server, and so no thread.
            numeric = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            return list(numeric)  # type: ignore[arg-type]
        lookup = self._running.get((host, port))
        if lookup is None:
            lookup = self._running[host, port] = self._tasks.start("name_lookup", self._look_up(host, port))
            lookup.add_done_callback(lambda _: self._running.pop((host, port)))
        # A caller that gives up waiting leaves the look-up to the others.
        await asyncio.wait([lookup])
        if lookup.cancelled():
            raise LookupFailed("the gateway is shutting down")
        found = lookup.result()
        if isinstance(found, LookupFailed):
            raise LookupFailed(str(found))
        return found

    async def _look_up(self, host: str, port: int) -> list[ResolvedAddress] | LookupFailed:
        """A failure is a result: when all who asked have given up, no caller is left to take an exception."""
        try:
            return await run_in_own_thread("name lookup", lambda: self._resolve(host, port))
        except socket.gaierror as error:
            return LookupFailed(f"its name cannot be resolved ({error.strerror})")
        # A name that DNS cannot carry is a UnicodeError, a thread too many a RuntimeError.
        except (OSError, UnicodeError, RuntimeError) as error:
            return LookupFailed(f"its name cannot be resolved ({error})")
