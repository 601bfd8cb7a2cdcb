from __future__ import annotations

import asyncio
import tempfile
from io import BytesIO
from threading import Event
from typing import IO

from gateway.web.body_memory import BodyMemory, HeldBytes
from gateway.web.disk_spool import DiskSpool

WAIT_S = 10.0


class StalledFile(BytesIO):
    """Writes nothing before the disk goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.goes_on = Event(), Event()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.begun.set()
        assert self.goes_on.wait(WAIT_S)
        return super().write(data)


def spool_into(file: IO[bytes]) -> DiskSpool:
    return DiskSpool(HeldBytes(BodyMemory(1024 * 1024), "a"), lambda: file)


async def test_a_tail_has_what_was_written_before_it() -> None:
    with tempfile.TemporaryFile(buffering=0) as file:
        spool = spool_into(file)
        await spool.write(b"some")
        tail = spool.tail()
        await spool.write(b"more")

        assert tail.length == len(b"some")
        assert [await tail.piece(), await tail.piece()] == [b"some", b""]


async def test_closing_does_not_wait_for_the_disk() -> None:
    file = StalledFile()
    spool = spool_into(file)
    writing = asyncio.create_task(spool.write(b"some"))
    assert await asyncio.to_thread(file.begun.wait, WAIT_S)

    closing = asyncio.create_task(asyncio.to_thread(spool.close))
    done, _ = await asyncio.wait([closing], timeout=WAIT_S / 10)
    is_closed_early = file.closed
    file.goes_on.set()
    await asyncio.gather(writing, closing)

    assert closing in done
    assert not is_closed_early, "a thread still writes to it"
    assert file.closed, "whoever used it last gives its space back"


async def test_nothing_is_written_or_read_once_it_is_closed() -> None:
    file = BytesIO()
    spool = spool_into(file)
    await spool.write(b"some")
    tail = spool.tail()
    spool.close()

    await spool.write(b"more")

    assert file.closed
    assert await tail.piece() == b""
