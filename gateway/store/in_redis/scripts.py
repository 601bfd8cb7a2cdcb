"""The Lua scripts as they are sent: each file behind those that it shares with others, known by the SHA-1 of the whole.
A local in capitals is a constant, whose value is put in.

A command is sent as an array of strings, each with its length in front (RESP). Most of a call is the same as in the
call before, so its bytes are prepared once: `head` and `bulk` make them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from struct import Struct

from gateway.core.remembered import remembered

_FOLDER = Path(__file__).with_name("lua")
_CONSTANT = re.compile(r"^local ([A-Z][A-Z_]*) = ('[^'\n]*'|[0-9][0-9 *^-]*)$", re.MULTILINE)


class LuaScript:
    """`name` is what its calls are observed as; `files` are put one behind the other."""

    def __init__(self, name: str, *files: Path) -> None:
        self.name = name
        self.text = text = _with_constants("\n".join(file.read_text(encoding="utf-8") for file in files))
        # Redis names scripts by SHA-1; nothing is proven by it.
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.head = lru_cache(1_024)(self._head)
        """The same bytes for as many keys and arguments: calls are prepared for thousands of keys of callers."""

    def _head(self, keys: int, arguments: int) -> bytes:
        """What a call with so many keys and arguments begins with."""
        return b"*%d\r\n%b" % (3 + keys + arguments, bulk("EVALSHA", self.sha, keys))

    def command(self, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> bytes:
        """A whole call."""
        return self.head(len(keys), len(arguments)) + bulk(*keys, *arguments)


def bulk(*values: str | bytes | int) -> bytes:
    """These values as parts of a command."""
    pieces = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return b"".join([b"$%d\r\n%b\r\n" % (len(piece), piece) for piece in pieces])


@remembered(1_024)
def bulk_length(size: int) -> bytes:
    """What is before a part of so many bytes. To join the pieces of a part takes less than a format string."""
    return b"$%d\r\n" % size


@remembered(256)
def doubles(count: int) -> Struct:
    """So many little-endian doubles, in which scripts take numbers."""
    return Struct(f"<{count}d")


@remembered(256)
def whole_numbers(count: int) -> Struct:
    """So many little-endian whole numbers of eight bytes, in which admit.lua gives its reply."""
    return Struct(f"<{count}q")


def _with_constants(text: str) -> str:
    """The script with the value of each constant where its name is. Redis runs a script from its first line at each
    call, and each function that uses a local of the script costs that call more."""
    values = {name: f"({value})" if " " in value else value for name, value in _CONSTANT.findall(text)}
    return re.sub(r"\b[A-Z][A-Z_]*\b", lambda name: values.get(name[0], name[0]), _CONSTANT.sub("", text))


_COUNTER, _HOLDS, _RECORDS = _FOLDER / "counter.lua", _FOLDER / "holds.lua", _FOLDER / "request_records.lua"
ADMIT, CLOSE, GRANT = (LuaScript(name, _COUNTER, _FOLDER / f"{name}.lua") for name in ("admit", "close", "grant"))
RENEW, GIVE_BACK = (LuaScript(name, _COUNTER, _HOLDS, _FOLDER / f"{name}.lua") for name in ("renew", "give_back"))
SETTLE = LuaScript("settle", _COUNTER, _HOLDS, _RECORDS, _FOLDER / "settle.lua")
KEEP_RECORDS = LuaScript("keep_records", _COUNTER, _RECORDS, _FOLDER / "keep_records.lua")
SCRIPTS = (ADMIT, SETTLE, RENEW, GIVE_BACK, CLOSE, GRANT, KEEP_RECORDS)

CLAIM_NOTIFICATIONS, GATHER_NOTIFICATIONS, POST_NOTIFICATIONS = [
    LuaScript(name, _COUNTER, _FOLDER / f"{name}.lua")
    for name in ("claim_notifications", "gather_notifications", "post_notifications")
]
"""Loaded when they are called first: many gateways have no receivers."""

LOADING = tuple(("SCRIPT", "LOAD", script.text) for script in SCRIPTS)
"""The commands that a new connection begins with, so that the server knows every script."""
