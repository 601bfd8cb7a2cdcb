"""Where to listen."""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """`host` is without brackets; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
