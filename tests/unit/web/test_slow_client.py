from __future__ import annotations

import asyncio

from gateway.web.slow_client import SlowClient

STALLED_S = 0.001


class Unread(asyncio.Transport):
    """What a client has still to read, each time that it is looked at; the last of it from then on."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]

    def abort(self) -> None:
        assert not self.aborted.is_set()
        self.aborted.set()


async def test_a_client_that_reads_nothing_is_disconnected() -> None:
    client = Unread(9)
    SlowClient(client, STALLED_S)
    async with asyncio.timeout(5):
        await client.aborted.wait()


async def test_one_that_reads_is_not_until_it_stops() -> None:
    client = Unread(9, 8, 8, 7, 7, 1, 1, 1)
    SlowClient(client, STALLED_S)
    async with asyncio.timeout(5):
        await client.aborted.wait()
    assert client.sizes == [1]


async def test_one_that_has_caught_up_is_left_alone() -> None:
    client = Unread(9)
    SlowClient(client, STALLED_S).end()
    await asyncio.sleep(STALLED_S * 10)
    assert not client.aborted.is_set()
