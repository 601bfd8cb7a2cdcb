"""Settlement and renewal: what happens to reservations after admission."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence

import msgspec

from gateway.core.calendar import DAY_MS, day_ms, day_of_ms
from gateway.core.end_users import OTHER_USERS
from gateway.core.limits import Scope
from gateway.core.remembered import remembered
from gateway.core.request_record import KeptRecord
from gateway.core.reservation import LedgerEntry, Reservation, Settlement
from gateway.store.in_redis.admission import Admitted
from gateway.store.in_redis.arguments import (
    LONG_MS,
    SHORT_MS,
    Recent,
    ScriptArguments,
    SlotBatch,
    SlotShare,
    Timing,
    WindowArguments,
    counter_key,
    one_by_one,
    packed,
    picked,
)
from gateway.store.in_redis.client import BegunCall, Router
from gateway.store.in_redis.keys import StoreKeys, gathered_users
from gateway.store.in_redis.ledger import LEDGER_MS, BillName, bill_name
from gateway.store.in_redis.objects import ObjectRows
from gateway.store.in_redis.record_lifetimes import SlotRecord
from gateway.store.in_redis.records import record_arguments
from gateway.store.in_redis.scripts import CLOSE, RENEW, SETTLE, bulk, bulk_length
from gateway.store.ledger import figures_of, moved_to, weight_of

_DAY_IS_CLOSED, _IS_FIRST_BILL = 2, 3
"""What settle.lua returns then."""

_NO_MORE = 2
"""The numbers of its reply where no notification was put in."""

_BEGUN, _DONE = "begun", "done"
_TEAMS_AT_ONCE = 50
_RECENT_BILLS = 32_768
"""Names of bills whose arguments are kept, in each of two generations."""

_RECENT_ALIKE = 4_096
"""Parts of settlements that are the same for many bills, and are kept once."""

_OF_A_THRESHOLD = 4
"""Numbers, as settle.lua takes them."""

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


class SettledInSlot(msgspec.Struct, frozen=True):
    """What a settlement writes in one slot beside its counters: in that of its team alone there is any."""

    entry: LedgerEntry | None = None
    kept: KeptRecord | None = None


_NOTHING_MORE = SettledInSlot()


class SettlementArguments:
    """What is the same in all settlements of one batch and window whose bills have one name: the bytes around the
    record's key, the id and the numbers. `recorded_of` is the team of which a record is kept, if any is. There is one
    for each key and model in use, so `alike` gives the same object for equal bytes: `_head`, `_bill` and `_always` are
    mostly those of others, too."""

    __slots__ = ("_always", "_bill", "_head", "_keys", "_names", "for_user")

    def __init__(
        self,
        keys: StoreKeys,
        timing: Timing,
        users_max: int,
        share: SlotShare,
        bill: BillName | None,
        recorded_of: str | None,
        journal: str | None,
        alike: Callable[[bytes], bytes],
    ) -> None:
        batch, window, dues = share.batch, share.window, share.dues
        counters = batch.keys(window)
        bill_keys, names = ((), ()) if bill is None else (bill.keys(keys), bill.fields())
        self.for_user = bill is not None and bill.for_user
        is_recorded = int(recorded_of is not None)
        thresholds = _Thresholds(batch, window, keys, dues)
        # The journal's mark is kept as long as the ledger: what is older than both is not in doubt any more.
        always = [timing.step_ms, LEDGER_MS, LONG_MS, users_max, 0 if bill is None else day_ms(bill.day), is_recorded]
        always += (len(dues), len(thresholds.numbers) // _OF_A_THRESHOLD)
        for place in dues:
            one, terms = batch.limits[place], window.terms[place]
            always += (place + 1, one.kind, one.at_once, terms.first, terms.second)
        outbox = (keys.notifications(batch.tag), *thresholds.gathered) if thresholds.numbers else ()
        record_keys = () if recorded_of is None else keys.request_records(recorded_of)
        known_keys = (*picked(counters, dues), *outbox, *record_keys)
        if journal is not None:
            known_keys += (journal,)
        self._head = SETTLE.head(1 + len(bill_keys) + len(known_keys), 2 + len(names) + self.for_user + 4 * is_recorded)
        self._bill = alike(bulk(*bill_keys))
        self._keys = bulk(*known_keys)
        self._always = alike(one_by_one(always + thresholds.numbers))
        self._names = bulk(*names)

    def command(self, record_part: bytes, name: str, user: str, numbers: Sequence[float]) -> bytes:
        called, always, own = name.encode(), self._always, one_by_one(numbers)
        pieces = (
            self._head, record_part, self._bill, self._keys, bulk_length(len(called)), called, b"\r\n",
            bulk_length(len(always) + len(own)), always, own, b"\r\n", self._names,
        )  # fmt: skip
        command = b"".join(pieces)
        return command + bulk(user) if self.for_user else command


class _Thresholds:
    """Four numbers for each, as settle.lua takes them, and the keys of the end users who cross those of theirs."""

    __slots__ = ("gathered", "numbers")

    def __init__(self, batch: SlotBatch, window: WindowArguments, keys: StoreKeys, dues: Sequence[int]) -> None:
        self.numbers: list[int] = []
        self.gathered: list[str] = []
        for due, place in enumerate(dues, 1):
            limit, terms = batch.limits[place].limit, window.terms[place]
            # The users that share one counter are not one who could be named.
            if not limit.notify_at or limit.subject == OTHER_USERS:
                continue
            is_user = limit.scope is Scope.USER
            if is_user:
                self.gathered.append(gathered_users(keys.counter(limit.for_user("")), terms.first))
            gathered = len(self.gathered) if is_user else 0
            for percent in limit.notify_at:
                self.numbers += (due, percent, limit.amount, gathered)


class Settlements:
    """Carries out settle.lua. `crossed` gets the tag of a slot, and how many notifications were put in there and were
    dropped."""

    def __init__(
        self,
        client: Router,
        arguments: ScriptArguments,
        keys: StoreKeys,
        timing: Timing,
        users_max: int,
        crossed: Callable[[str, int, int], None],
    ) -> None:
        self._client = client
        self._arguments = arguments
        self._keys = keys
        self._timing = timing
        self._users_max = users_max
        self._crossed = crossed
        self._closings = Closings(client, keys)
        self._objects = ObjectRows(client, keys)
        self._teams: set[str] = set()
        """Those that are in the set of teams, as far as is known."""
        self._prepared: Recent[Hashable, SettlementArguments] = Recent(_RECENT_BILLS)
        self._alike: Callable[[bytes], bytes] = remembered(_RECENT_ALIKE)(bytes)

    def begin(
        self,
        settlement: Settlement,
        position: JournalPosition,
        admitted: Admitted,
        then: Callable[[BegunCall], None],
    ) -> bool:
        """Begin a settlement that takes a single call, as nearly every one does: `then` gets the call once it has
        ended. False where it takes more, or where the call cannot be made: `settle` does it then, or raises the
        error."""
        shares, entry, kept, created = admitted.shares, settlement.entry, settlement.record, settlement.created
        if shares is None or len(shares) > 1 or entry is None or created is not None:
            return False
        share = shares[0]
        if (
            admitted.reservation.holds is not settlement.holds
            or entry.team not in self._teams
            or self._arguments.billing_tag(entry.team) != share.batch.tag
        ):
            return False
        try:
            command = self._command(settlement, entry, kept, share, position)
        except Exception:  # noqa: BLE001 # Whatever it is, `settle` comes to it as well.
            return False
        return self._client.begin(SETTLE, share.record.key, command, then)

    def has_settled(self, call: BegunCall) -> bool:
        """Whether its reply says no more than that, as nearly every one does."""
        numbers = call.numbers
        return numbers is not None and len(numbers) == _NO_MORE and numbers[0] < _DAY_IS_CLOSED

    async def settle(
        self,
        settlement: Settlement,
        position: JournalPosition,
        admitted: Admitted | None = None,
        begun: BegunCall | None = None,
    ) -> None:
        """In every slot that the settlement speaks of. What fails in one is repeated in all: each settles it once.
        `admitted` is what this process has admitted under its id, if anything; `begun` the call of it that has ended.
        Raises StoreUnavailable."""
        entry, kept, billing = settlement.entry, settlement.record, ""
        if entry is not None:
            if entry.team not in self._teams:
                await self._register_team(entry.team)
            billing = self._arguments.billing_tag(entry.team)
        elif kept is not None:
            billing = self._arguments.billing_tag(kept.record.team)
        shares: Sequence[SlotShare] | None = None
        if admitted is not None and admitted.reservation.holds is settlement.holds:
            shares = admitted.shares
        if shares is None:
            shares = self._shares_of(settlement, position)
        shares = [share for share in shares if share.batch.limits]
        if billing and all(share.batch.tag != billing for share in shares):
            shares.append(self._share_of(self._arguments.empty(billing), settlement, position))
        more = SettledInSlot(entry, kept)
        calls = [
            self._settle_slot(settlement, more, share, position, begun)
            if share.batch.tag == billing
            else self._settle_slot(settlement, _NOTHING_MORE, share, position)
            for share in shares
        ]
        if settlement.created is not None:
            calls.append(self._objects.keep(settlement.created))
        await asyncio.gather(*calls)

    def _shares_of(self, settlement: Settlement, position: JournalPosition) -> list[SlotShare]:
        batches = self._arguments.slot_batches(settlement.holds.limits)
        return [self._share_of(batch, settlement, position) for batch in batches]

    def _share_of(self, batch: SlotBatch, settlement: Settlement, position: JournalPosition) -> SlotShare:
        """Of a reservation of which only the settlement is known."""
        kind, begins = batch.kind, settlement.holds.windows_ms
        window = kind.window_at(settlement.at_ms)
        if len(kind.places) != len(begins):
            begins = picked(begins, kind.places)
        if begins != window.begins:
            window = kind.window_of(begins)
        record = SlotRecord(self._keys.record(batch.tag, position.process, settlement.at_ms))
        # What admission has used at once of a rate stays as it is, unless admission was not asked.
        held, charged = settlement.holds.amounts, settlement.actual
        is_asked = all(charged[kind.places[place]] <= held[kind.places[place]] for place in kind.at_once)
        return SlotShare(batch, window, record, kind.settled if is_asked else tuple(range(len(kind.places))))

    async def _settle_slot(
        self,
        settlement: Settlement,
        more: SettledInSlot,
        share: SlotShare,
        position: JournalPosition,
        begun: BegunCall | None = None,
    ) -> None:
        while True:
            if begun is not None and begun.numbers is not None:
                outcome, _, *told = begun.numbers
            else:
                command = self._command(settlement, more.entry, more.kept, share, position)
                outcome, _, *told = await self._client.run(SETTLE, share.record.key, command, begun)
            if outcome != _DAY_IS_CLOSED or more.entry is None:
                if told:
                    self._crossed(share.batch.tag, told[0], told[1])
                if outcome == _IS_FIRST_BILL and more.entry is not None:
                    self._teams.discard(more.entry.team)  # Should the next call fail, the repetition makes it.
                    await self._register_team(more.entry.team)
                return
            more, begun = SettledInSlot(moved_to(more.entry, day_of_ms(told[0])), more.kept), None

    def _command(
        self,
        settlement: Settlement,
        entry: LedgerEntry | None,
        kept: KeptRecord | None,
        share: SlotShare,
        position: JournalPosition,
    ) -> bytes:
        holds, places = settlement.holds, share.window.places
        held, charged = holds.amounts, settlement.charged if holds.capped else settlement.actual
        if len(places) != len(held):
            held, charged = picked(held, places), picked(charged, places)
        recorded_of = None if kept is None else kept.record.team
        which: Hashable
        figures: Sequence[int]
        if entry is None:
            figures, weight, user = (), 0.0, ""
            which = (share.batch, share.window, recorded_of, share.dues)
        else:
            figures, user = figures_of(entry), entry.user
            weight = weight_of(entry) if user else 0.0
            # What a bill's name is made of, without making it.
            which = (
                share.batch, share.window, recorded_of, share.dues, entry.day, entry.team, entry.key, entry.model,
                entry.upstream, entry.cost_center, entry.late, user != "",
            )  # fmt: skip
        prepared = self._prepared.get(which) if not position.place else None
        if prepared is None:
            prepared = self._prepare(which, share, entry, recorded_of, position)
        numbers = [position.place, weight, len(figures), *figures, len(held), *held, *charged]
        command = prepared.command(share.record.part, settlement.id, user, numbers)
        return command if kept is None else command + record_arguments(kept)

    def _prepare(
        self,
        which: Hashable,
        share: SlotShare,
        entry: LedgerEntry | None,
        recorded_of: str | None,
        position: JournalPosition,
    ) -> SettlementArguments:
        bill = None if entry is None else bill_name(entry)
        journal = self._keys.journal(share.batch.tag, position.process) if position.place else None
        prepared = SettlementArguments(
            self._keys, self._timing, self._users_max, share, bill, recorded_of, journal, self._alike
        )
        if journal is None:
            self._prepared.put(which, prepared)
        return prepared

    async def _register_team(self, team: str) -> None:
        """Put the team into the set of teams that the ledger knows. That is in a slot of its own, so no script can
        write it beside the bill: the team is put there before this process's first bill of it, since one too many does
        no harm. It is put there again with the first bill of each day, which renews the set's life, and which comes
        again where Redis has lost its data."""
        key = self._keys.teams()
        await asyncio.gather(
            self._client.ask(key, ("SADD", key, team)),
            self._client.ask(key, ("PEXPIRE", key, LEDGER_MS)),
        )
        await self._closings.take_over(team)
        self._teams.add(team)


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
        key = self._keys.days(team)
        reply: list[int] = await self._client.run(CLOSE, key, CLOSE.command([key], (open_ms, LEDGER_MS)))
        return reply[0] == 1

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
            for batch in self._arguments.slot_batches(reservation.holds.limits):
                by_tag.setdefault(batch.tag, []).append(SlotHolds(reservation, batch))
        calls = [
            self._renewal(held[at : at + _RENEWED_AT_ONCE])
            for held in by_tag.values()
            for at in range(0, len(held), _RENEWED_AT_ONCE)
        ]
        await asyncio.gather(
            *[self._client.run(RENEW, call.keys[0], RENEW.command(call.keys, call.arguments)) for call in calls]
        )

    async def shorten_records(self, records: Iterable[str]) -> None:
        """Let these records, of which everything is known, end in an hour. Raises StoreUnavailable."""
        await asyncio.gather(*[self._client.ask(key, ("PEXPIRE", key, SHORT_MS)) for key in records])

    def _renewal(self, held: Sequence[SlotHolds]) -> ScriptCall:
        key_numbers: dict[str, int] = {}
        numbers = [self._timing.step_ms]
        for slot in held:
            holding: list[int] = []
            for place, one in zip(slot.batch.kind.places, slot.batch.limits, strict=True):
                hold = slot.reservation.holds[place]
                if not one.at_once:
                    key = counter_key(one, self._arguments.windows.terms(one, hold.window_ms))
                    holding += (key_numbers.setdefault(key, len(key_numbers) + 1), one.kind, hold.amount)
            record = key_numbers.setdefault(slot.batch.record_key(slot.reservation.at_ms), len(key_numbers) + 1)
            numbers += (record, len(holding) // 3, *holding)
        return ScriptCall(list(key_numbers), (LONG_MS, packed(numbers), *[slot.reservation.id for slot in held]))
