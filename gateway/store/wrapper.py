"""The base of stores that wrap another: every call that a wrapper does not change goes to the wrapped store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

from gateway.core.estimate import EstimateSubject, LearnedEstimate
from gateway.core.grants import Grant
from gateway.core.limits import Limit
from gateway.core.request_record import KeptRecord, RequestRecord
from gateway.core.reservation import AdmissionRequest, LimitStatus, Refusal, Settlement
from gateway.core.stored_objects import ObjectName, StoredObject
from gateway.store.contract import Admission, ProcessReplies, SettlementEnd, Store, UsageQuery, UsageRow, settled

Inner = TypeVar("Inner", bound=Store)


class StoreWrapper(Generic[Inner]):
    """Implements `contract.Store` by the store within."""

    def __init__(self, store: Inner) -> None:
        self._store = store
        self.repeated_refusal: Callable[[AdmissionRequest], Refusal | None] = store.repeated_refusal
        """That of the store itself: in a flood nothing else is asked of it."""

    def admit(self, request: AdmissionRequest) -> Admission:
        return self._store.admit(request)

    async def settle(self, settlement: Settlement) -> None:
        await settled(self, settlement)

    def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
        self._store.begin_settlement(settlement, then)

    @property
    def open_ids(self) -> Collection[str]:
        return self._store.open_ids

    async def renew(self, ids: Sequence[str]) -> None:
        await self._store.renew(ids)

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        return await self._store.limit_statuses(limits)

    async def grant(self, limit: Limit, grant: Grant) -> None:
        await self._store.grant(limit, grant)

    async def withdraw(self, limit: Limit, grant: Grant) -> None:
        await self._store.withdraw(limit, grant)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        return await self._store.usage(query)

    async def close_ledger(self, until: str) -> bool:
        return await self._store.close_ledger(until)

    async def closed_until(self) -> str:
        return await self._store.closed_until()

    async def share_estimates(self, learned: Mapping[EstimateSubject, LearnedEstimate]) -> None:
        await self._store.share_estimates(learned)

    async def shared_estimates(self) -> dict[EstimateSubject, LearnedEstimate]:
        return await self._store.shared_estimates()

    async def stored_object(self, name: ObjectName) -> StoredObject | None:
        return await self._store.stored_object(name)

    async def keep_records(self, kept: Sequence[KeptRecord]) -> None:
        await self._store.keep_records(kept)

    async def request_records(self, request_id: str, teams: Sequence[str]) -> list[RequestRecord]:
        return await self._store.request_records(request_id, teams)

    def answer_processes(self, answer: Callable[[bytes], bytes]) -> None:
        self._store.answer_processes(answer)

    async def ask_processes(self, question: bytes) -> ProcessReplies:
        return await self._store.ask_processes(question)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()
