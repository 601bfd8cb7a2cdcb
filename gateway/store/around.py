"""A store around another: what a wrapper does not change goes straight through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from gateway.core.limit import Limit
from gateway.core.reservation import Ask, Refusal, Reservation, Settlement, Standing
from gateway.store.contract import Store, UsageQuery, UsageRow

Inner = TypeVar("Inner", bound=Store)


class StoreAround(Generic[Inner]):
    """Implements `contract.Store` by the store within."""

    def __init__(self, store: Inner) -> None:
        self._store = store

    async def admit(self, ask: Ask) -> Reservation | Refusal:
        return await self._store.admit(ask)

    async def settle(self, settlement: Settlement) -> None:
        await self._store.settle(settlement)

    async def renew(self, ids: Sequence[str]) -> None:
        await self._store.renew(ids)

    async def standings(self, limits: Sequence[Limit]) -> list[Standing]:
        return await self._store.standings(limits)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        return await self._store.usage(query)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()
