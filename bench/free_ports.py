"""Loopback ports for servers that take a number and cannot be asked for theirs.

A port is free when it is drawn and taken a moment later. So it is drawn from below those that the kernel gives to
outgoing connections, of which tests and loads open thousands meanwhile, and no process draws one twice.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_drawn: set[int] = set()
# Not the seeded one that tests share: two workers with one seed would draw the same ports.
_chance = random.SystemRandom()


def free_port() -> int:
    for _ in range(1_000):
        port = _chance.randrange(_LOWEST, _first_outgoing())
        if port not in _drawn and _is_free(port):
            _drawn.add(port)
            return port
    raise AssertionError("no port is free")


def _first_outgoing() -> int:
    first = int(_OUTGOING.read_text().split()[0]) if _OUTGOING.exists() else 32_768
    return first if first > _LOWEST + 5_000 else 60_000


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
