"""Settlement and renewal: what happens to reservations after they were made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from gateway.core.calendar import DAY_MS, day_ms, day_of_ms
from gateway.core.reservation import LedgerEntry, Reservation, Settlement, SettlementLine
from gateway.store.in_redis.arguments import (
    LEASES,
    LONG_MS,
    QUOTA,
    SHORT_MS,
    LimitArguments,
    ScriptArguments,
    SlotBatch,
    Timing,
    counter_key,
    packed,
)
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import StoreKeys, team_tag
from gateway.store.in_redis.ledger import LEDGER_MS, NO_BILL, bill_arguments
from gateway.store.in_redis.scripts import CLOSE, RENEW, SETTLE
from gateway.store.ledger import moved_to

_DAY_S = 86_400
_DAY_IS_CLOSED = 2
"""What settle.lua returns then."""

_BEGUN, _DONE = "begun", "done"
_TEAMS_AT_ONCE = 50
_RENEWED_AT_ONCE = 50
"""Reservations in one call: Redis does nothing else meanwhile."""


class JournalPosition(msgspec.Struct, frozen=True):
    """The process that made a reservation, and where its settlement is in that process's journal (0: in none)."""

    process: str
    place: int = 0


class ScriptCall(msgspec.Struct, frozen=True):
    keys: list[str]
    arguments: tuple[str | int | bytes, ...]


class SlotHolds(msgspec.Struct, frozen=True):
    """What a reservation holds in one slot."""

    reservation: Reservation
    batch: SlotBatch


class Settlements:
    """Carries out settle.lua."""

    def __init__(
        self, client: Router, arguments: ScriptArguments, keys: StoreKeys, timing: Timing, users_max: int
    ) -> None:
        self._client = client
        self._arguments = arguments
        self._keys = keys
        self._timing = timing
        self._users_max = users_max
        self._closings = Closings(client, keys)
        self._teams: dict[str, float] = {}

    async def settle(self, settlement: Settlement, position: JournalPosition) -> None:
        """In every slot that the settlement speaks of. What fails in one is repeated in all: each settles it once.
        Raises StoreUnavailable."""
        limits = [line.hold.limit for line in settlement.dues]
        batches = [batch for batch in self._arguments.slot_batches(limits) if batch.places]
        billing = ""
        if settlement.entry is not None:
            await self._register_team(settlement.entry.team)
            billing = self._arguments.billing_tag(team_tag(settlement.entry.team))
            if all(batch.tag != billing for batch in batches):
                batches.append(self._arguments.empty(billing))
        if len(batches) == 1:
            # A single call needs no task of its own.
            entry = settlement.entry if batches[0].tag == billing else None
            await self._settle_slot(settlement, entry, batches[0], position)
            return
        await asyncio.gather(
            *[
                self._settle_slot(settlement, settlement.entry if batch.tag == billing else None, batch, position)
                for batch in batches
            ]
        )

    async def _settle_slot(
        self, settlement: Settlement, entry: LedgerEntry | None, batch: SlotBatch, position: JournalPosition
    ) -> None:
        while True:
            call = self._settlement(settlement, entry, batch, position)
            outcome, _, *open_ms = await self._client.run_timed(SETTLE, call.keys, call.arguments)
            if outcome != _DAY_IS_CLOSED or entry is None:
                return
            entry = moved_to(entry, day_of_ms(open_ms[0]))

    def _settlement(
        self, settlement: Settlement, entry: LedgerEntry | None, batch: SlotBatch, position: JournalPosition
    ) -> ScriptCall:
        record = self._keys.record(batch.tag, position.process, settlement.at_ms)
        bill = NO_BILL if entry is None else bill_arguments(entry, self._keys, self._users_max)
        keys = [record, self._keys.journal(batch.tag, position.process), *bill.keys]
        # The journal's mark is kept as long as the ledger: what is older than both is not in doubt any more.
        numbers = [self._timing.step_ms, position.place, LEDGER_MS, *bill.numbers]
        window = batch.window_at(settlement.at_ms)
        for number, place in enumerate(batch.places):
            one, line = batch.limits[number], settlement.dues[place]
            key, terms = window.keys[number], window.terms[number]
            if one.kind == QUOTA and terms.first != line.hold.window_ms:
                terms = self._arguments.windows.terms(one, line.hold.window_ms)
                key = counter_key(one, terms)
            keys.append(key)
            held, used = _corrections(line, one)
            numbers += (one.kind, held, used, terms.first, terms.second)
        return ScriptCall(keys, (settlement.id, LONG_MS, packed(numbers), *bill.names))

    async def _register_team(self, team: str) -> None:
        """Put the team into the set of teams that the ledger knows, once a day. That is in a slot of its own, so no
        script can write it beside the bill: the team is put there before it, and one too many does no harm."""
        now_s = asyncio.get_running_loop().time()
        if self._teams.get(team, 0) > now_s:
            return
        key = self._keys.teams()
        await asyncio.gather(
            self._client.ask(key, ("SADD", key, team)),
            self._client.ask(key, ("PEXPIRE", key, LEDGER_MS)),
        )
        await self._closings.take_over(team)
        self._teams[team] = now_s + _DAY_S


class Closings:
    """Closes days of the ledger, team by team. Until it is done for all of them, `_BEGUN` has the day: a team that is
    registered meanwhile takes it over, or is seen by the closing."""

    def __init__(self, client: Router, keys: StoreKeys) -> None:
        self._client = client
        self._keys = keys

    async def close(self, until: str) -> bool:
        """As `Ledger.close_ledger`."""
        key, open_ms = self._keys.closed(), day_ms(until)
        if await self._client.time(key) < open_ms + DAY_MS:
            return False
        await self._note(_BEGUN, open_ms)
        teams: set[bytes] = set()
        async for batch in self._client.scan("SSCAN", self._keys.teams()):
            teams.update(batch)
        every = [team.decode() for team in teams]
        for at in range(0, len(every), _TEAMS_AT_ONCE):
            closed = await asyncio.gather(
                *[self._close_team(team, open_ms) for team in every[at : at + _TEAMS_AT_ONCE]]
            )
            if not all(closed):
                return False
        await self._note(_DONE, open_ms)
        return True

    async def closed_until(self) -> str:
        key = self._keys.closed()
        open_ms = await self._client.ask(key, ("ZSCORE", key, _DONE))
        return "" if open_ms is None else day_of_ms(int(float(open_ms)))

    async def take_over(self, team: str) -> None:
        """Close for a team that is in the set of teams from now on what is closed for all."""
        key = self._keys.closed()
        open_ms = await self._client.ask(key, ("ZSCORE", key, _BEGUN))
        if open_ms is not None:
            await self._close_team(team, int(float(open_ms)))

    async def _close_team(self, team: str, open_ms: int) -> bool:
        closed, _ = await self._client.run_timed(CLOSE, [self._keys.days(team)], (open_ms, LEDGER_MS))
        return closed == 1

    async def _note(self, progress: str, open_ms: int) -> None:
        key = self._keys.closed()
        await self._client.ask(key, ("ZADD", key, "GT", open_ms, progress))
        await self._client.ask(key, ("PEXPIRE", key, LEDGER_MS))


class Renewals:
    """Carries out renew.lua, and lets records end."""

    def __init__(self, client: Router, arguments: ScriptArguments, timing: Timing) -> None:
        self._client = client
        self._arguments = arguments
        self._timing = timing

    async def renew(self, reservations: Iterable[Reservation]) -> None:
        """Each in every slot that holds something for it. Raises StoreUnavailable."""
        by_tag: dict[str, list[SlotHolds]] = {}
        for reservation in reservations:
            for batch in self._arguments.slot_batches([hold.limit for hold in reservation.holds]):
                by_tag.setdefault(batch.tag, []).append(SlotHolds(reservation, batch))
        calls = [
            self._renewal(held[at : at + _RENEWED_AT_ONCE])
            for held in by_tag.values()
            for at in range(0, len(held), _RENEWED_AT_ONCE)
        ]
        await asyncio.gather(*[self._renew_slot(call) for call in calls])

    async def _renew_slot(self, call: ScriptCall) -> None:
        await self._client.run_timed(RENEW, call.keys, call.arguments)

    async def shorten_records(self, records: Iterable[str]) -> None:
        """Let these records, of which everything is known, end in an hour. Raises StoreUnavailable."""
        await asyncio.gather(*[self._client.ask(key, ("PEXPIRE", key, SHORT_MS)) for key in records])

    def _renewal(self, held: Sequence[SlotHolds]) -> ScriptCall:
        key_numbers: dict[str, int] = {}
        numbers = [self._timing.step_ms]
        for slot in held:
            holding: list[int] = []
            for place, one in zip(slot.batch.places, slot.batch.limits, strict=True):
                hold = slot.reservation.holds[place]
                if not one.at_once:
                    key = counter_key(one, self._arguments.windows.terms(one, hold.window_ms))
                    holding += (key_numbers.setdefault(key, len(key_numbers) + 1), one.kind, hold.amount)
            record = key_numbers.setdefault(slot.batch.record(slot.reservation.at_ms), len(key_numbers) + 1)
            numbers += (record, len(holding) // 3, *holding)
        return ScriptCall(list(key_numbers), (LONG_MS, packed(numbers), *[slot.reservation.id for slot in held]))


def _corrections(line: SettlementLine, one: LimitArguments) -> tuple[int, int]:
    """What is held no more, and what is used: admission used `requests` at once, and only what goes beyond them is
    added."""
    if one.at_once:
        return 0, max(0, line.charged - line.hold.amount)
    return line.hold.amount, 0 if one.kind == LEASES else line.charged
