"""How a connection to an upstream is opened: name, address, TCP, TLS.

Addresses of both families race (RFC 8305, by aiohappyeyeballs: uvloop's own connector tries one
after the other, so that a dead IPv6 route would cost the whole connect timeout).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable

import aiohappyeyeballs

from gateway.upstream.connection import Connection
from gateway.upstream.fittings import Fittings
from gateway.upstream.origin import Origin

HEAD_START_SECONDS = 0.25
"""What the preferred address gets before the next one joins (RFC 8305, section 5)."""


class CannotConnect(Exception):
    """Why not, in words that reveal no address."""


Addresses = list[aiohappyeyeballs.AddrInfoType]


class Dialler:
    """Opens connections to one origin.

    However many dial at once, one name lookup is on its way: lookups occupy the threads that all
    upstreams share, and a name server that hangs for one upstream must leave some to the others.
    """

    def __init__(self, origin: Origin, fittings: Fittings) -> None:
        self._origin = origin
        self._fittings = fittings
        self._lookup: asyncio.Task[Addresses] | None = None

    async def dial(self, make: Callable[[], Connection]) -> Connection:
        """Raises CannotConnect."""
        try:
            return await self._dial(make)
        # A name that DNS cannot carry is a UnicodeError, and uvloop has a RuntimeError for some addresses.
        except (OSError, UnicodeError, RuntimeError) as error:
            raise CannotConnect(_reason(error)) from error

    async def _dial(self, make: Callable[[], Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        found = await aiohappyeyeballs.start_connection(
            await self._addresses(), happy_eyeballs_delay=HEAD_START_SECONDS, loop=loop
        )
        tls, name = (self._fittings.tls, self._origin.host) if self._origin.tls else (None, None)
        _, connection = await loop.create_connection(make, sock=found, ssl=tls, server_hostname=name)
        return connection

    async def _addresses(self) -> Addresses:
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.create_task(self._look_up())
        # Whoever gives up waiting leaves the lookup to the others.
        return await asyncio.shield(self._lookup)

    async def _look_up(self) -> Addresses:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._origin.host, self._origin.port, type=socket.SOCK_STREAM)
        return list(found)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason})"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "its name cannot be resolved"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "the connection failed"
