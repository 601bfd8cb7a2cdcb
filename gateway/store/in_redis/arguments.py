"""What the scripts take and give, and what of it stays the same from call to call.

A call may touch the keys of one slot only, so the limits of a request fall into `SlotBatch`es: one outside of
a cluster. A batch knows its limits' keys and numbers for as long as no calendar window among them ends
(`WindowArguments`), and is kept for the next request that the same limits bind. Of a call, everything is
prepared as the bytes that are sent but the request's id and its own numbers. Numbers are sent to admit.lua and
settle.lua in MessagePack, which is short and quickly read, and to others as little-endian doubles, as
counter.lua reads them; their order is in the heads of lua/*.lua. Replies become `LimitStatuses` by the same
arithmetic as in core/buckets.py, without a counter object in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.buckets import pace, rescaled
from gateway.core.calendar import DAY_MS, FOREVER_MS, window
from gateway.core.limits import Limit, Meter, Mode, Per
from gateway.core.reservation import AdmissionRequest, LimitStatus
from gateway.store.in_redis.client import ServerClock
from gateway.store.in_redis.keys import ORGANISATION, StoreKeys, hash_tag, team_tag
from gateway.store.in_redis.scripts import ADMIT, bulk, bulk_length, doubles

RATE, QUOTA, LEASES = 0, 1, 2

LONG_MS = 7 * DAY_MS
"""How long a record is kept: a settlement of which the gateway has no answer can be repeated for a week."""

SHORT_MS = 3_600_000
"""How long it is still kept once all of its reservations are known to be settled."""

_RECENT_LIMITS = 65_536
"""Limits that are kept, in each of two generations: what end users have is forgotten again."""

_RECENT_SETS = 32_768
"""Sets of limits that bind a request together, likewise: each key has one for each model that it uses. Where more are
in use, each request prepares its own, which takes as long as the rest of an admission."""

_SLOT_ORDER = {"t": 0, "m": 1, "o": 2}
"""Admission asks the closest first, so that what a team has used up never touches what others share."""

_ENCODER = msgspec.msgpack.Encoder()

Key = TypeVar("Key")
Value = TypeVar("Value")


class Timing(msgspec.Struct, frozen=True):
    """Milliseconds: how late a call may come, and how long a step of holds is."""

    slack_ms: int
    step_ms: int


class CounterTerms(NamedTuple):
    """The two numbers of a counter's kind: a rate's flow and scale, a quota's window, 0 and 0 of leases."""

    first: int
    second: int


RatePace = tuple[int, int, int]
"""How a rate flows back: its place among the limits of a batch, flow and scale. Each admission takes some apart: of a
tuple with names each field would be asked for by itself."""


class LimitArguments:
    """What is fixed of one limit: its counter's key (of a quota without the window), and its numbers."""

    __slots__ = ("at_once", "capacity", "enforced", "kind", "limit", "stem", "tag", "terms")

    def __init__(self, limit: Limit, keys: StoreKeys) -> None:
        self.limit = limit
        self.tag = hash_tag(limit)
        self.stem = keys.counter(limit)
        self.enforced = int(limit.mode is Mode.ENFORCE)
        self.at_once = int(limit.meter is Meter.REQUESTS)
        self.capacity = limit.amount
        self.terms = CounterTerms(0, 0)
        if limit.per is None:
            self.kind = LEASES
        elif limit.per.rate_ms is None:
            self.kind = QUOTA
        else:
            self.kind, self.capacity = RATE, limit.burst
            self.terms = CounterTerms(*pace(limit))

    def status(self, now_ms: int, spent: int, held: int, terms: CounterTerms) -> LimitStatus:
        """`spent` is in parts of a unit where the limit is a rate, and true at `now_ms`."""
        if self.kind == RATE:
            flow, scale = terms
            used, resets_ms = -(-spent // scale), now_ms - (-spent // flow)
        else:
            used, resets_ms = spent, 0 if terms.second == FOREVER_MS else terms.second
        return LimitStatus(self.limit, used, held, max(0, self.capacity - used - held), resets_ms)

    def spent_at(self, now_ms: int, spent: int, scale: int, stamp_ms: int) -> int:
        """What of a rate has not flowed back by now, in parts of this limit's scale."""
        flow, own_scale = self.terms
        return max(0, rescaled(spent, scale, own_scale) - max(0, now_ms - stamp_ms) * flow)


class CalendarWindows:
    """The windows around now: each is computed once while it lasts."""

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._latest: dict[Per, CounterTerms] = {}

    def terms(self, arguments: LimitArguments, at_ms: int) -> CounterTerms:
        """The limit's terms at this time."""
        if arguments.kind != QUOTA:
            return arguments.terms
        per = arguments.limit.per or Per.TOTAL
        latest = self._latest.get(per)
        if latest is None or not latest.first <= at_ms < latest.second:
            latest = self._latest[per] = CounterTerms(*window(per, self.zone, at_ms))
        return latest


class WindowArguments:
    """A batch's keys and numbers from `start_ms` until `end_ms`. `begins` and `resets` are columns: the first
    millisecond of a quota's window and the first after it, 0 where there is none. `rates` has the limits that are
    rates."""

    __slots__ = ("begins", "end_ms", "keys", "rates", "resets", "start_ms", "terms")

    def __init__(self, limits: Sequence[LimitArguments], terms: Sequence[CounterTerms]) -> None:
        self.start_ms, self.end_ms = 0, FOREVER_MS
        self.terms = tuple(terms)
        kinds = [one.kind for one in limits]
        for kind, of_window in zip(kinds, terms, strict=True):
            if kind == QUOTA:
                self.start_ms, self.end_ms = max(self.start_ms, of_window.first), min(self.end_ms, of_window.second)
        self.keys = tuple(map(counter_key, limits, terms))
        self.rates = tuple([(place, *terms[place]) for place, kind in enumerate(kinds) if kind == RATE])
        self.begins = [own.first if kind == QUOTA else 0 for kind, own in zip(kinds, terms, strict=True)]
        self.resets = [
            own.second if kind == QUOTA and own.second != FOREVER_MS else 0
            for kind, own in zip(kinds, terms, strict=True)
        ]


class WindowCall:
    """What of the calls of admit.lua for one batch stays the same while one window lasts, as it is sent."""

    __slots__ = ("head", "keys", "numbers", "window")

    def __init__(self, batch: SlotBatch, window: WindowArguments, timing: Timing) -> None:
        self.window = window
        numbers = [LONG_MS, timing.slack_ms, timing.step_ms]
        for one, terms in zip(batch.limits, window.terms, strict=True):
            numbers += (one.kind, one.enforced, one.at_once, one.capacity, terms.first, terms.second)
        self.head = ADMIT.head(1 + len(window.keys), 1)
        self.keys = bulk(*window.keys)
        self.numbers = one_by_one(numbers)


class SlotShare:
    """Where the charges of a reservation are in one slot: the counters of the batch in this window, and the key of its
    record, also as the part of a command. `dues` are the places in the batch of what its settlement changes: all, where
    admission was not asked."""

    __slots__ = ("batch", "dues", "record", "record_part", "window")

    def __init__(self, batch: SlotBatch, window: WindowArguments, record: str, *, is_asked: bool = True) -> None:
        self.batch = batch
        self.dues = batch.settled if is_asked else tuple(range(len(batch.places)))
        self.window = window
        self.record = record
        self.record_part = bulk(record)


class SlotCall(SlotShare):
    """The calls of admit.lua for one batch whose requests are in one record, while one window lasts."""

    __slots__ = ("_head", "_numbers", "second")

    def __init__(self, batch: SlotBatch, prepared: WindowCall, second: int) -> None:
        super().__init__(batch, prepared.window, f"{batch.slot_key}{second}")
        self.second = second
        self._head = prepared.head + self.record_part + prepared.keys
        self._numbers = prepared.numbers

    def command(self, request: AdmissionRequest, most: int, clock: ServerClock) -> bytes:
        """The call for this request, which wants `most` output, at the time that the batch's server has now."""
        fixed, per_output, places = request.fixed, request.per_output, self.batch.places
        if len(places) != len(fixed):
            fixed, per_output = picked(fixed, places), picked(per_output, places)
        least, numbers = request.least, self._numbers
        if least > most:
            least = most
        own = one_by_one([request.id, clock.now_ms(), request.likely, most, least, request.enough, *fixed, *per_output])
        return b"".join((self._head, bulk_length(len(numbers) + len(own)), numbers, own, b"\r\n"))

    def raised_rates(self, raises: Sequence[int]) -> list[RatePace]:
        """The rates of the window, where grants add so much to its limits."""
        limits = self.batch.limits
        return [
            (place, *pace(limits[place].limit.raised(by))) if (by := raises[place]) else (place, flow, scale)
            for place, flow, scale in self.window.rates
        ]


class SlotBatch:
    """The limits of which one call may speak, by their places among those of the request."""

    __slots__ = (
        *("_call", "_prepared", "_window", "_windows", "at_once", "has_shadow", "limits", "places", "process"),
        *("settled", "slot_key", "tag"),
    )

    def __init__(
        self,
        keys: StoreKeys,
        process: str,
        tag: str,
        places: Sequence[int],
        limits: Sequence[LimitArguments],
        windows: CalendarWindows,
    ) -> None:
        self.process = process
        self.tag = tag
        self.slot_key = keys.records(tag, process)
        """A key of the slot, by which its server is found: what the keys of this process's records begin with."""
        self.places = tuple(places)
        self.limits = tuple(limits)
        self.has_shadow = any(not one.enforced for one in limits)
        self.at_once = tuple([place for place, one in enumerate(limits) if one.at_once and one.kind == RATE])
        """The places of the rates that admission uses at once, among the limits of the batch: a usual settlement leaves
        them as they are."""
        self.settled = tuple([place for place in range(len(limits)) if place not in self.at_once])
        """All others."""
        self._windows = windows
        self._window: WindowArguments | None = None
        self._prepared: WindowCall | None = None
        self._call: SlotCall | None = None

    def window_at(self, at_ms: int) -> WindowArguments:
        window = self._window
        if window is None or not window.start_ms <= at_ms < window.end_ms:
            window = self._window = WindowArguments(
                self.limits, [self._windows.terms(one, at_ms) for one in self.limits]
            )
        return window

    def call_at(self, now_ms: int, at_ms: int, timing: Timing) -> SlotCall:
        """For a reservation of the time `at_ms`, where the batch's server has the time `now_ms`."""
        call, second = self._call, at_ms // 1000
        if call is not None and call.second == second and call.window.start_ms <= now_ms < call.window.end_ms:
            return call
        window, prepared = self.window_at(now_ms), self._prepared
        if prepared is None or prepared.window is not window:
            prepared = self._prepared = WindowCall(self, window, timing)
        call = self._call = SlotCall(self, prepared, second)
        return call

    def record(self, at_ms: int) -> str:
        """The key of the record of a reservation that this process made then."""
        return f"{self.slot_key}{at_ms // 1000}"


class PreparedTuple(NamedTuple):
    """`limits` are kept alive, so that no other tuple has their identity."""

    limits: tuple[Limit, ...]
    batches: tuple[SlotBatch, ...]


class Recent(Generic[Key, Value]):
    """What was asked for lately: `size` entries at least, twice as many at most."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[Key, Value] = {}
        self._older: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        found = self._entries.get(key)
        if found is None:
            found = self._older.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: Key, value: Value) -> None:
        if len(self._entries) >= self._size:
            self._entries, self._older = {}, self._entries
        self._entries[key] = value


class ScriptArguments:
    """The prepared arguments of limits, by the identity of the `Limit` objects: to hash one takes longer than all else
    here. An entry keeps its limits alive, so that no other object has their identities.

    `by_slot`: a call may speak of one slot only.
    """

    def __init__(self, keys: StoreKeys, zone: ZoneInfo, process: str, by_slot: bool) -> None:
        self._keys = keys
        self._process = process
        self._by_slot = by_slot
        self.windows = CalendarWindows(zone)
        self._limits: Recent[int, LimitArguments] = Recent(_RECENT_LIMITS)
        self._sets: Recent[tuple[int, ...], tuple[SlotBatch, ...]] = Recent(_RECENT_SETS)
        self._tuples: Recent[int, PreparedTuple] = Recent(_RECENT_SETS)

    def slot_batches(self, limits: tuple[Limit, ...]) -> tuple[SlotBatch, ...]:
        """The limits by who can speak of them in one call, the closest first; one batch at least. The same tuple comes
        with many requests, so it is looked up as one."""
        prepared = self._tuples.get(id(limits))
        if prepared is None:
            prepared = PreparedTuple(limits, self._batches_of(limits))
            self._tuples.put(id(limits), prepared)
        return prepared.batches

    def _batches_of(self, limits: Sequence[Limit]) -> tuple[SlotBatch, ...]:
        identity = tuple(map(id, limits))
        batches = self._sets.get(identity)
        if batches is None:
            batches = self._split([self._of(limit) for limit in limits])
            self._sets.put(identity, batches)
        return batches

    def unremembered(self, limits: Sequence[Limit]) -> tuple[SlotBatch, ...]:
        """The same for a report, whose many limits would push out those of the requests."""
        return self._split([LimitArguments(limit, self._keys) for limit in limits])

    def empty(self, tag: str) -> SlotBatch:
        """A batch without limits."""
        return self._batch(tag, (), ())

    def billing_tag(self, team: str) -> str:
        """The tag of the batch that speaks of a team's ledger."""
        return team_tag(team) if self._by_slot else ORGANISATION

    def window_of(self, batch: SlotBatch, begins: Sequence[int]) -> WindowArguments:
        """The batch's arguments where the windows of its quotas begin at these times."""
        return WindowArguments(
            batch.limits, [self.windows.terms(*each) for each in zip(batch.limits, begins, strict=True)]
        )

    def _of(self, limit: Limit) -> LimitArguments:
        arguments = self._limits.get(id(limit))
        if arguments is None:
            arguments = LimitArguments(limit, self._keys)
            self._limits.put(id(limit), arguments)
        return arguments

    def _split(self, limits: Sequence[LimitArguments]) -> tuple[SlotBatch, ...]:
        if not self._by_slot or not limits:
            return (self._batch(ORGANISATION, range(len(limits)), limits),)
        places: dict[str, list[int]] = {}
        for place, one in enumerate(limits):
            places.setdefault(one.tag, []).append(place)
        return tuple(
            [
                self._batch(tag, at, [limits[place] for place in at])
                for tag, at in sorted(places.items(), key=lambda item: _SLOT_ORDER[item[0][0]])
            ]
        )

    def _batch(self, tag: str, places: Sequence[int], limits: Sequence[LimitArguments]) -> SlotBatch:
        return SlotBatch(self._keys, self._process, tag, places, limits, self.windows)


def counter_key(arguments: LimitArguments, terms: CounterTerms) -> str:
    return f"{arguments.stem}:{terms.first}" if arguments.kind == QUOTA else arguments.stem


def picked(column: Sequence[int], places: Sequence[int]) -> list[int]:
    """What the column has at these places. Not within the functions that each request calls: they would keep the column
    in a cell for it."""
    return [column[place] for place in places]


def one_by_one(values: Sequence[float | str]) -> bytes:
    """These values in MessagePack, one behind the other: the list of them without its head."""
    encoded = _ENCODER.encode(values)
    return encoded[1:] if len(values) < 16 else encoded[3:]


def packed(numbers: Sequence[float]) -> bytes:
    return doubles(len(numbers)).pack(*numbers)
