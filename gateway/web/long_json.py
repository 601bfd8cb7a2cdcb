"""Encodes JSON objects with long lists in slices.

Encoding the status of 50,000 limits takes tens of milliseconds, and so does freeing the objects that they were made of.
The event loop serves clients meanwhile. So the items of a long list are encoded and freed some at a time, and a long
text is put together in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gateway.runtime.slices import in_slices

ITEMS_AT_ONCE = 200

_IN_THREAD_FROM = 1024 * 1024
"""Bytes. `bytes.join` holds the interpreter lock for less."""


async def encoded_in_slices(content: dict[str, Any]) -> bytes:
    """What `msgspec.json.encode` gives, of an object with strings as names. Its long lists lose their items."""
    parts = [part async for part in _object_parts(content)]
    if sum(map(len, parts)) <= _IN_THREAD_FROM:
        return b"".join(parts)
    return await asyncio.to_thread(b"".join, parts)


async def _object_parts(content: dict[str, Any]) -> AsyncIterator[bytes]:
    separator = b"{"
    for name, value in content.items():
        yield separator + msgspec.json.encode(name) + b":"
        if isinstance(value, list) and len(value) > ITEMS_AT_ONCE:
            async for part in _list_parts(value):
                yield part
        elif isinstance(value, dict) and any(isinstance(member, list) for member in value.values()):
            async for part in _object_parts(value):
                yield part
        else:
            yield msgspec.json.encode(value)
        separator = b","
    yield b"}" if content else b"{}"


async def _list_parts(items: list[Any]) -> AsyncIterator[bytes]:
    async for at in in_slices(range(0, len(items), ITEMS_AT_ONCE), 1):
        part = items[at : at + ITEMS_AT_ONCE]
        items[at : at + ITEMS_AT_ONCE] = [None] * len(part)
        yield (b"," if at else b"[") + msgspec.json.encode(part)[1:-1]
    yield b"]"
