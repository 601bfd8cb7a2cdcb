"""One event of a streamed answer, before it is written in any dialect."""

from __future__ import annotations

from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """`tokens` of output become the client's with it; `reports` says that it carries usage; `name` is its type."""

    payload: dict[str, Any]
    tokens: int = 0
    reports: bool = False
    name: str = ""
