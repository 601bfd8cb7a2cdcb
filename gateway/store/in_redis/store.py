"""The store in Redis: promises what store/contract.py says, for any number of gateways.

Every promise is one script (lua/*.lua), carried out by Redis at once and by its own clock. On a cluster
it is one script a slot: admission goes from slot to slot and is given back where one refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit
from gateway.core.reservation import AdmissionRequest, LimitStatus, Refusal, Reservation, Settlement
from gateway.core.store_url import read_store_url
from gateway.store.contract import HOLD_STEPS, HOLD_TTL_MS, UsageQuery, UsageRow
from gateway.store.in_redis.address import Address
from gateway.store.in_redis.admission import admit
from gateway.store.in_redis.calls import Timing
from gateway.store.in_redis.clock import StoreClock
from gateway.store.in_redis.courier import Courier, Observer
from gateway.store.in_redis.doubts import Doubts
from gateway.store.in_redis.keys import Keys
from gateway.store.in_redis.kit import Kit
from gateway.store.in_redis.ledger import Teams, usage
from gateway.store.in_redis.line import Command
from gateway.store.in_redis.records import Records
from gateway.store.in_redis.script import SCRIPTS
from gateway.store.in_redis.servers import Cluster, OneServer
from gateway.store.in_redis.settlement import Origin, renew, settle, shorten
from gateway.store.in_redis.standings import peek
from gateway.store.in_redis.terms import Terminology

_GREETING: tuple[Command, ...] = tuple(("SCRIPT", "LOAD", script.text) for script in SCRIPTS)


class RedisOptions(msgspec.Struct, frozen=True):
    """`process` is this gateway's name in the store: no two that live at the same time may share it."""

    url: str
    process: str
    prefix: str = "gw"
    timeout_s: float = 0.25
    hold_ttl_ms: int = HOLD_TTL_MS


def _unobserved(call: str, outcome: str, seconds: float) -> None:
    """Nobody looks."""


class RedisStore:
    """Connects when it is first asked. Raises ValueError for a URL that cannot be read."""

    def __init__(self, options: RedisOptions, zone: ZoneInfo, observe: Observer = _unobserved) -> None:
        url = read_store_url(options.url)
        servers = Cluster if url.kind == "cluster" else OneServer
        self._servers = servers(Address(url), options.timeout_s, _GREETING)
        keys = Keys(options.prefix)
        courier = Courier(self._servers, observe)
        self.clock = StoreClock()
        self._kit = Kit(
            courier=courier,
            keys=keys,
            words=Terminology(keys, zone),
            clock=self.clock,
            records=Records(),
            teams=Teams(courier, keys),
            doubts=Doubts(options.timeout_s, options.hold_ttl_ms / 1000),
            zone=zone,
            process=options.process,
            timing=Timing(slack_ms=round(options.timeout_s * 1000), step_ms=options.hold_ttl_ms // HOLD_STEPS),
            by_slot=servers.by_slot,
        )
        self._open: dict[str, Reservation] = {}
        self._in_doubt: dict[str, Reservation] = {}
        """Settled, but nobody knows whether Redis heard of it: their records stay until a replay has made sure."""

    @property
    def trouble(self) -> str | None:
        """Why the store counts as out, for operators; None while it answers."""
        return self._servers.trouble() or self._kit.courier.objection

    async def admit(self, request: AdmissionRequest) -> Reservation | Refusal:
        verdict = await admit(self._kit, request)
        if isinstance(verdict, Reservation):
            self._open[request.id] = verdict
        return verdict

    async def settle(self, settlement: Settlement) -> None:
        reservation = self._open.pop(settlement.id, None)
        try:
            await settle(self._kit, settlement, Origin(self._kit.process))
        except Exception:
            if reservation is not None:
                self._in_doubt[settlement.id] = reservation
            raise
        if reservation is not None:
            self._kit.records.end(reservation.at_ms)

    async def replay(self, process: str, place: int, settlement: Settlement) -> None:
        """Settle what stands at this place of a process's journal, once, however often it is replayed. The
        places of a journal are to be replayed in their order, one after the other."""
        await settle(self._kit, settlement, Origin(process, place))
        reservation = self._in_doubt.pop(settlement.id, None)
        if reservation is not None:
            self._kit.records.end(reservation.at_ms)

    async def renew(self, ids: Sequence[str]) -> None:
        await renew(self._kit, [self._open[name] for name in ids if name in self._open])
        await shorten(self._kit)

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        _, counters = await peek(self._kit, limits)
        return [counter.limit_status(limit) for counter, limit in zip(counters, limits, strict=True)]

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        return await usage(self._kit, query)

    async def ping(self) -> None:
        await peek(self._kit, ())

    async def close(self) -> None:
        with suppress(StoreUnavailable):
            await shorten(self._kit)
        await self._kit.doubts.close()
        await self._servers.close()
