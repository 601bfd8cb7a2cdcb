"""Opens listening sockets.

asyncio binds `::` to IPv6 only. This module makes it accept IPv4 too, as nginx, Envoy and Go's servers do, so that one
address is enough in a network of both.

Under uvloop a server accepts one connection in each turn of the event loop (libuv has it so), and a turn takes
milliseconds where the loop is busy: a new client would wait for as many turns as others came before it. So several
servers accept from the same socket (`accept_faster`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from gateway.core.address import Address

ANY = "::"
_BACKLOG = 100
"""As asyncio has it."""

ACCEPTED_PER_TURN = 8
"""Connections, which take a millisecond together with their first requests. Each of so many servers asks the system for
every connection that comes, a microsecond in vain."""


async def listen(
    protocol: Callable[[], asyncio.BaseProtocol],
    address: Address,
    *,
    shared: bool = False,
    backlog: int = _BACKLOG,
    start_serving: bool = True,
) -> asyncio.Server:
    """A server at this address; `shared`: other processes listen there, too. Raises OSError."""
    loop = asyncio.get_running_loop()
    if address.host != ANY or not socket.has_dualstack_ipv6():
        return await loop.create_server(
            protocol, *address, reuse_port=shared or None, backlog=backlog, start_serving=start_serving
        )
    both = socket.create_server(
        (ANY, address.port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=shared, backlog=backlog
    )
    both.setblocking(False)
    try:
        return await loop.create_server(protocol, sock=both, backlog=backlog, start_serving=start_serving)
    except BaseException:
        both.close()
        raise


async def listen_on_all(
    protocol: Callable[[], asyncio.BaseProtocol],
    addresses: Sequence[Address],
    *,
    shared: bool = False,
    backlog: int = _BACKLOG,
) -> list[asyncio.Server]:
    """A server at each address, or at none. Raises OSError, which names the address."""
    servers: list[asyncio.Server] = []
    for address in addresses:
        try:
            servers.append(await listen(protocol, address, shared=shared, backlog=backlog))
        except OSError as error:
            for server in servers:
                server.close()
            raise OSError(error.errno, f"{address} cannot be listened on: {_reason(error)}") from error
    return servers


async def accept_faster(
    protocol: Callable[[], asyncio.BaseProtocol], servers: Sequence[asyncio.Server], *, backlog: int
) -> list[asyncio.Server]:
    """More servers at the sockets of these, to be closed with them."""
    loop = asyncio.get_running_loop()
    sockets = [each for server in servers for each in server.sockets]
    return [
        await loop.create_server(protocol, sock=each.dup(), backlog=backlog)
        for each in sockets
        for _ in range(ACCEPTED_PER_TURN - 1)
    ]


async def stop_listening(server: asyncio.Server) -> None:
    """Close it, and leave open what it has accepted.

    Under asyncio's own loop in Python 3.11, a connection that is being accepted while its server closes is lost: no
    protocol gets it, and it stays open. So the sockets are left alone for two turns before; uvloop does not need it.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    server.close()


def _reason(error: OSError) -> str:
    """In the system's words: those of asyncio name the address in a form of their own."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def address_taken(asked: Address, server: asyncio.Server) -> Address:
    """With the port that port 0 became."""
    return Address(asked.host, server.sockets[0].getsockname()[1])
