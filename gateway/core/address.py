"""Where something listens: a host and a port."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # What listens everywhere listens here, too.


class Address(NamedTuple):
    """`host` is without brackets; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def from_here(self) -> Address:
        """The address at which a client on the same machine reaches the listener."""
        return Address(_LOOPBACK.get(self.host, self.host), self.port)


def listed(addresses: Iterable[Address]) -> str:
    """The addresses for people, one after the other."""
    return ", ".join(map(str, addresses))
