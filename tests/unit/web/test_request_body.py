from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from gateway.web.body_memory import BodyMemory
from gateway.web.request_body import ClientBody


async def received(*pieces: bytes) -> StreamReader:
    loop = asyncio.get_running_loop()
    content = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    for piece in pieces:
        content.feed_data(piece)
    content.feed_eof()
    return content


def client_body(content: StreamReader, memory: BodyMemory) -> ClientBody:
    connection = SimpleNamespace(transport=None)
    request: Any = SimpleNamespace(
        content=content, headers={}, content_length=None, has_body=True, connection=connection
    )
    return ClientBody(request, 2**20, memory)


async def test_a_body_that_is_released_is_held_nowhere() -> None:
    memory, content = BodyMemory(2**20), await received(b"one ", b"two")
    body = client_body(content, memory)
    assert (body.available(), memory.held_bytes) == (b"one two", 7)
    body.release()
    assert (b"".join(content._buffer), memory.held_bytes) == (b"", 0)


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
async def test_the_rest_of_a_body_that_was_not_taken_can_still_be_dropped(taken: bool) -> None:
    content = await received(b"x" * 70_000)
    body = client_body(content, BodyMemory(2**20))
    if taken:
        assert len(await body.whole()) == 70_000
    body.release()
    assert len(await content.readany()) == (0 if taken else 70_000)
