"""The store in Redis, for any number of gateways. It promises what store/contract.py says.

Every promise is one script (lua/*.lua), which Redis carries out atomically and by its own clock. On a cluster it is one
script for each slot: admission goes from slot to slot and gives back what it got if one refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.buckets import Counter
from gateway.core.errors import StoreUnavailable
from gateway.core.estimate import EstimateSubject, LearnedEstimate
from gateway.core.grants import Grant
from gateway.core.limits import Limit
from gateway.core.request_record import KeptRecord, RequestRecord
from gateway.core.reservation import AdmissionRequest, LimitStatus, Refusal, Settlement
from gateway.core.store_url import read_store_url
from gateway.core.stored_objects import ObjectName, StoredObject
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import (
    HOLD_STEPS,
    HOLD_TTL_MS,
    Admission,
    ProcessReplies,
    SettlementEnd,
    UsageQuery,
    UsageRow,
    settled,
)
from gateway.store.in_redis.admission import Admissions, Admitted, SlotReply
from gateway.store.in_redis.arguments import LONG_MS, ScriptArguments, Timing
from gateway.store.in_redis.client import BegunCall, Observer, Router
from gateway.store.in_redis.discovery import servers_of
from gateway.store.in_redis.estimates import EstimateRows
from gateway.store.in_redis.grants import GrantWriter
from gateway.store.in_redis.keys import StoreKeys
from gateway.store.in_redis.losses import RedisLosses
from gateway.store.in_redis.notifications import RedisNotificationOutbox
from gateway.store.in_redis.objects import ObjectRows
from gateway.store.in_redis.process_calls import ProcessChannel
from gateway.store.in_redis.record_lifetimes import RecordLifetimes
from gateway.store.in_redis.records import RecordRows
from gateway.store.in_redis.remembered_refusals import RememberedRefusals
from gateway.store.in_redis.reports import Reports
from gateway.store.in_redis.settlement import Closings, JournalPosition, Renewals, Settlements
from gateway.store.in_redis.uncertain_calls import UncertainCalls
from gateway.store.ledger import USERS_MAX

JOURNAL_KEY_LIFE_S = 400 * 86_400
"""From each start of a gateway on: longer than any journal is left behind."""


class RedisOptions(msgspec.Struct, frozen=True):
    """`process` is this gateway's name in the store: no two that live at the same time may share it."""

    url: str
    process: str
    prefix: str = "gw"
    timeout_s: float = 0.25
    hold_ttl_ms: int = HOLD_TTL_MS
    users_max: int = USERS_MAX


class RedisClient(msgspec.Struct, frozen=True):
    """`admissions` carries what a request waits for, `background` everything else, on connections of its own."""

    admissions: Router
    background: Router


def _unobserved(call: str, outcome: str, seconds: float) -> None:
    """Where nothing is measured."""


def _unlogged(what: str, error: BaseException) -> None:
    """Where nothing is logged."""


class RedisStore:
    """Connects when it is first asked; `tasks` are closed with it. Raises ValueError for a URL that cannot be read."""

    def __init__(
        self,
        options: RedisOptions,
        zone: ZoneInfo,
        observe: Observer = _unobserved,
        tasks: BackgroundTasks | None = None,
    ) -> None:
        self._tasks = tasks or BackgroundTasks(_unlogged)
        self._servers = servers_of(read_store_url(options.url), options.timeout_s, self._tasks)
        self.client = RedisClient(Router(self._servers, observe), Router(self._servers, observe, background=True))
        self._unjournalled = JournalPosition(options.process)
        self._records = RecordLifetimes()
        keys = StoreKeys(options.prefix)
        self._teams = keys.teams()
        self._journal_key = keys.journal_key()
        timing = Timing(slack_ms=round(options.timeout_s * 1000), step_ms=options.hold_ttl_ms // HOLD_STEPS)
        arguments = ScriptArguments(keys, zone, options.process, timing, self._servers.by_slot)
        uncertain = UncertainCalls(self._tasks, options.timeout_s)
        self._open: dict[str, Admitted] = {}
        self._admissions = Admissions(
            self.client.admissions, arguments, timing, uncertain, self._records, self._teams, self._open, self._refusal
        )
        self._refused = RememberedRefusals(self.now_ms)
        self.repeated_refusal: Callable[[AdmissionRequest], Refusal | None] = self._refused.repeated
        self.notifications = RedisNotificationOutbox(self.client.background, keys, self._servers.by_slot)
        self.losses = RedisLosses(self.client.background, keys)
        settlements = partial(
            Settlements,
            arguments=arguments,
            keys=keys,
            timing=timing,
            users_max=options.users_max,
            crossed=self.notifications.crossed,
        )
        self._settlements = settlements(self.client.admissions)
        self._replays = settlements(self.client.background)
        self._closings = Closings(self.client.background, keys)
        self._renewals = Renewals(self.client.background, arguments, timing)
        self._reports = Reports(self.client.background, arguments, keys, timing)
        self._grants = GrantWriter(self.client.background, arguments, keys, timing)
        self._estimates = EstimateRows(self.client.background, keys, options.process)
        self._objects = ObjectRows(self.client.admissions, keys)
        self._record_rows = RecordRows(self.client.background, keys)
        self._processes = ProcessChannel(self.client.background, keys, self._tasks)
        self._in_doubt: dict[str, Admitted] = {}
        """Settled, but without an answer: their records stay until a repetition has made sure, or as long as they last.
        What is lost or parked is never repeated."""

    @property
    def trouble(self) -> str | None:
        """Why the store counts as out, for operators; None while it answers."""
        return self._servers.trouble() or self.client.admissions.refusal or self.client.background.refusal

    def now_ms(self) -> int:
        """The store's time: what it gave last, and what has passed since. Also while it is out."""
        return self.client.admissions.clock_of(self._teams).now_ms()

    def admit(self, request: AdmissionRequest) -> Admission:
        return self._admissions.admit(request)

    async def _refusal(self, request: AdmissionRequest, reply: SlotReply) -> Refusal:
        refusal = self._admissions.refusal(request, reply, await self._other_counters(request, reply))
        self._refused.remember(request, refusal)
        return refusal

    async def settle(self, settlement: Settlement) -> None:
        await settled(self, settlement)

    def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
        admitted = self._open.pop(settlement.id, None) or self._in_doubt.pop(settlement.id, None)
        if admitted is None or not self._settlements.begin(
            settlement, self._unjournalled, admitted, partial(self._replied, settlement, admitted, then)
        ):
            then(self._settle(settlement, admitted))

    def _replied(self, settlement: Settlement, admitted: Admitted, then: SettlementEnd, call: BegunCall) -> None:
        if self._settlements.has_settled(call):
            admitted.second.settled += 1
            then(None)
        else:
            then(self._settle(settlement, admitted, call))

    async def _settle(self, settlement: Settlement, admitted: Admitted | None, begun: BegunCall | None = None) -> None:
        try:
            await self._settlements.settle(settlement, self._unjournalled, admitted, begun)
        except Exception:
            if admitted is not None:
                self._in_doubt[settlement.id] = admitted
            raise
        if admitted is not None:
            admitted.second.settled += 1

    async def replay(self, process: str, place: int, settlement: Settlement) -> None:
        """Settle what is at this place of a process's journal, once, however often it is replayed. The
        places of a journal are to be replayed in their order, one after the other; place 0 comes before all."""
        await self._replays.settle(settlement, JournalPosition(process, place))
        # Its record stays for as long as its own place is still to come.
        admitted = self._in_doubt.pop(settlement.id, None) if place else None
        if admitted is not None:
            admitted.second.settled += 1

    async def journal_key(self, proposal: bytes) -> bytes:
        """The key that signs journals: the proposal, where there was none yet."""
        name, ask = self._journal_key, self.client.background.ask
        await ask(name, ("SET", name, proposal.hex(), "NX"))
        await ask(name, ("EXPIRE", name, str(JOURNAL_KEY_LIFE_S)))
        kept: bytes = await ask(name, ("GET", name))
        return bytes.fromhex(kept.decode())

    @property
    def open_ids(self) -> Collection[str]:
        return self._open.keys()

    async def renew(self, ids: Sequence[str]) -> None:
        await self._renewals.renew([self._open[name].reservation for name in ids if name in self._open])
        await self._shorten_records()

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        return await self._reports.limit_statuses(limits)

    async def grant(self, limit: Limit, grant: Grant) -> None:
        await self._grants.add(limit, grant)
        self._refused.forget()

    async def withdraw(self, limit: Limit, grant: Grant) -> None:
        await self._grants.take_away(limit, grant)
        self._refused.forget()

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        return await self._reports.usage(query)

    async def close_ledger(self, until: str) -> bool:
        return await self._closings.close(until)

    async def closed_until(self) -> str:
        return await self._closings.closed_until()

    async def share_estimates(self, learned: Mapping[EstimateSubject, LearnedEstimate]) -> None:
        await self._estimates.write(learned)

    async def shared_estimates(self) -> dict[EstimateSubject, LearnedEstimate]:
        return await self._estimates.read()

    async def stored_object(self, name: ObjectName) -> StoredObject | None:
        return await self._objects.find(name)

    async def keep_records(self, kept: Sequence[KeptRecord]) -> None:
        await self._record_rows.keep(kept)

    async def request_records(self, request_id: str, teams: Sequence[str]) -> list[RequestRecord]:
        return await self._record_rows.find(request_id, teams)

    def answer_processes(self, answer: Callable[[bytes], bytes]) -> None:
        self._processes.answer(answer)

    async def ask_processes(self, question: bytes) -> ProcessReplies:
        return await self._processes.ask(question)

    async def ping(self) -> None:
        # On both connections, so that a broken one is found before a request needs it.
        await asyncio.gather(self._reports.time(), self.client.admissions.ask(self._teams, ("TIME",)))

    async def close(self) -> None:
        with suppress(StoreUnavailable):
            await self._shorten_records()
        self._servers.close()
        await self._tasks.close()

    async def _shorten_records(self) -> None:
        """A second after the other; one that fails is done with the next renewal."""
        now_ms = self.now_ms()
        while self._in_doubt:
            name, oldest = next(iter(self._in_doubt.items()))
            if now_ms < oldest.reservation.at_ms + LONG_MS:
                break
            del self._in_doubt[name]
            oldest.second.settled += 1
        for second in self._records.settled(now_ms):
            if second.made:
                await self._renewals.shorten_records(second.record_keys)
            self._records.forget(second)

    async def _other_counters(self, request: AdmissionRequest, reply: SlotReply) -> Sequence[Counter | None]:
        """Those of the slots that did not refuse, as they are now; None where they are not to be had."""
        limits = request.limits
        if len(reply.share.window.places) == len(limits):
            return [None] * len(limits)
        try:
            return await self._reports.counters(limits)
        except StoreUnavailable:
            return [None] * len(limits)
