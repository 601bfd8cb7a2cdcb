from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.request_record import KeptRecord, RequestRecord
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import CallRefused
from gateway.store.record_writer import RecordWriter

KEPT = [KeptRecord(RequestRecord(name, name, 1, 401, 0.1), 60_000, 10) for name in ("a", "b")]


class Waiting:
    """A source of records."""

    def __init__(self, *kept: KeptRecord) -> None:
        self.kept = list(kept)
        self.dropped: list[KeptRecord] = []

    def take(self) -> list[KeptRecord]:
        taken, self.kept = self.kept, []
        return taken

    def drop(self, records: Sequence[KeptRecord]) -> None:
        self.dropped += records

    def put_back(self, records: Sequence[KeptRecord]) -> None:
        self.kept = [*records, *self.kept]


class Records:
    """A store of records that can be out."""

    def __init__(self) -> None:
        self.written: list[list[KeptRecord]] = []
        self.outage: StoreUnavailable | None = None
        self.news = asyncio.Event()

    async def keep_records(self, kept: Sequence[KeptRecord]) -> None:
        if self.outage is not None:
            raise self.outage
        self.written.append(list(kept))
        self.news.set()

    async def request_records(self, request_id: str, teams: Sequence[str]) -> list[RequestRecord]:
        return []


def unfailing(doing: str, error: BaseException) -> None:
    pytest.fail(f"{doing}: {error!r}")


def writer(store: Records, source: Waiting) -> RecordWriter:
    return RecordWriter(store, source, BackgroundTasks(unfailing), write_every_s=0.001)


async def test_what_waits_is_written_together_and_nothing_where_nothing_waits() -> None:
    store = Records()
    writing = writer(store, Waiting(*KEPT))
    for _ in range(2):
        await writing.write()
    assert store.written == [KEPT]


async def test_what_an_outage_keeps_from_the_store_waits_for_the_next_round() -> None:
    store, source = Records(), Waiting(*KEPT)
    store.outage = StoreUnavailable("Out.")
    writing = writer(store, source)
    with pytest.raises(StoreUnavailable):
        await writing.write()
    assert source.kept == KEPT
    store.outage = None
    writing.start()
    await asyncio.wait_for(store.news.wait(), 5)
    await writing.close()
    assert store.written == [KEPT]


async def test_what_the_store_refuses_is_not_offered_again() -> None:
    store, source = Records(), Waiting(*KEPT)
    store.outage = CallRefused("No.")
    with pytest.raises(CallRefused):
        await writer(store, source).write()
    assert source.kept == []
    assert source.dropped == KEPT


async def test_closing_writes_once_more_and_survives_an_outage() -> None:
    store, source = Records(), Waiting(KEPT[0])
    await writer(store, source).close()
    assert store.written == [[KEPT[0]]]
    store.outage = StoreUnavailable("Out.")
    source.kept = [KEPT[1]]
    await writer(store, source).close()
    assert source.kept == [KEPT[1]]
