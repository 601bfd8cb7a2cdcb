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

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.buckets import pace, rescaled
from gateway.core.calendar import DAY_MS, FOREVER_MS, window
from gateway.core.limits import Limit, Meter, Mode, Per
from gateway.core.reservation import AdmissionRequest, LimitStatus
from gateway.store.in_redis.client import ServerClock
from gateway.store.in_redis.keys import ORGANISATION, StoreKeys, hash_tag, team_tag
from gateway.store.in_redis.record_lifetimes import SlotRecord
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

    @property
    def numbers(self) -> tuple[object, ...]:
        """All of it but names."""
        return (self.kind, self.limit.per, self.enforced, self.at_once, self.capacity, self.terms)

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
    """The numbers of a batch from `start_ms` until `end_ms`, for all batches of its kind. `begins` and `resets` are
    columns: the first millisecond of a quota's window and the first after it, 0 where there is none. `rates` has the
    limits that are rates."""

    __slots__ = (
        *("_head", "_numbers", "begins", "end_ms", "has_shadow", "places", "rates", "resets", "settled", "start_ms"),
        "terms",
    )

    def __init__(self, kind: BatchKind, terms: Sequence[CounterTerms]) -> None:
        self.places, self.settled, self.has_shadow = kind.places, kind.settled, kind.has_shadow
        self.start_ms, self.end_ms = 0, FOREVER_MS
        self.terms = tuple(terms)
        kinds = [one.kind for one in kind.limits]
        for of_limit, of_window in zip(kinds, terms, strict=True):
            if of_limit == QUOTA:
                self.start_ms, self.end_ms = max(self.start_ms, of_window.first), min(self.end_ms, of_window.second)
        self.rates = tuple([(place, *terms[place]) for place, one in enumerate(kinds) if one == RATE])
        self.begins = [own.first if one == QUOTA else 0 for one, own in zip(kinds, terms, strict=True)]
        self.resets = [
            own.second if one == QUOTA and own.second != FOREVER_MS else 0
            for one, own in zip(kinds, terms, strict=True)
        ]
        numbers = [LONG_MS, kind.timing.slack_ms, kind.timing.step_ms]
        for one, own in zip(kind.limits, terms, strict=True):
            numbers += (one.kind, one.enforced, one.at_once, one.capacity, own.first, own.second)
        self._head = ADMIT.head(1 + len(kinds), 1)
        self._numbers = one_by_one(numbers)

    def admission(
        self, keys: bytes, record: SlotRecord, request: AdmissionRequest, most: int, clock: ServerClock
    ) -> bytes:
        """The call of admit.lua for a request that wants `most` output, at the time that the batch's server has now;
        `keys` are those of its counters."""
        fixed, per_output, places = request.fixed, request.per_output, self.places
        if len(places) != len(fixed):
            fixed, per_output = picked(fixed, places), picked(per_output, places)
        least, numbers = request.least, self._numbers
        if least > most:
            least = most
        own = one_by_one([request.id, clock.now_ms(), request.likely, most, least, request.enough, *fixed, *per_output])
        return b"".join((self._head, record.part, keys, bulk_length(len(numbers) + len(own)), numbers, own, b"\r\n"))


class BatchKind:
    """What batches have in common whose limits differ in what they are called alone: as do those of most keys. So
    there are few, and what requests read of them is in the processor's caches, however many keys are in use.

    `limits` are those of any of the batches: only what is the same of all of them counts."""

    __slots__ = ("_window", "_windows", "at_once", "has_shadow", "limits", "places", "settled", "timing")

    def __init__(
        self, places: Sequence[int], limits: Sequence[LimitArguments], windows: CalendarWindows, timing: Timing
    ) -> None:
        self.places = tuple(places)
        self.limits = tuple(limits)
        self.timing = timing
        self.has_shadow = any(not one.enforced for one in limits)
        self.at_once = tuple([place for place, one in enumerate(limits) if one.at_once and one.kind == RATE])
        """The places of the rates that admission uses at once, among the limits of the batch: a usual settlement leaves
        them as they are."""
        self.settled = tuple([place for place in range(len(limits)) if place not in self.at_once])
        """All others."""
        self._windows = windows
        self._window: WindowArguments | None = None

    def window_at(self, at_ms: int) -> WindowArguments:
        window = self._window
        if window is None or not window.start_ms <= at_ms < window.end_ms:
            window = self._window = self.window_of([at_ms] * len(self.limits))
        return window

    def window_of(self, begins: Sequence[int]) -> WindowArguments:
        """Where the windows of the quotas have these times."""
        return WindowArguments(self, list(map(self._windows.terms, self.limits, begins)))


class SlotBatch:
    """The limits of which one call may speak, by their places among those of the request. There is one for each key and
    model: all except names is in its `kind`. `slot_key` is a key of the slot, by which its server is found: what the
    keys of this process's records begin with."""

    __slots__ = ("_keys", "_window", "kind", "limits", "slot_key", "tag")

    def __init__(self, tag: str, slot_key: str, kind: BatchKind, limits: Sequence[LimitArguments]) -> None:
        self.tag = tag
        self.slot_key = slot_key
        self.kind = kind
        self.limits = tuple(limits)
        self._window: WindowArguments | None = None
        self._keys = b""

    def keys(self, window: WindowArguments) -> list[str]:
        """Those of its counters in this window."""
        return list(map(counter_key, self.limits, window.terms))

    def keys_part(self, window: WindowArguments) -> bytes:
        """The same as parts of a command."""
        if self._window is not window:
            self._window, self._keys = window, bulk(*self.keys(window))
        return self._keys

    def record_key(self, at_ms: int) -> str:
        """Of the record of a reservation that this process made then."""
        return f"{self.slot_key}{at_ms // 1000}"


class SlotShare(msgspec.Struct, frozen=True, gc=False):
    """Where the charges of a reservation are in one slot: the counters of the batch in this window, and its record.
    `dues` are the places in the batch of what its settlement changes: all, where admission was not asked."""

    batch: SlotBatch
    window: WindowArguments
    record: SlotRecord
    dues: tuple[int, ...]


KindMaker = Callable[[Sequence[int], Sequence[LimitArguments]], BatchKind]
"""Gives the kind of a batch with these limits, at these places of the request."""


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

    def __init__(self, keys: StoreKeys, zone: ZoneInfo, process: str, timing: Timing, by_slot: bool) -> None:
        self._keys = keys
        self._process = process
        self._timing = timing
        self._by_slot = by_slot
        self.windows = CalendarWindows(zone)
        self._slot_keys: dict[str, str] = {}
        self._kinds: Recent[Hashable, BatchKind] = Recent(_RECENT_SETS)
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
            batches = self._split([self._of(limit) for limit in limits], self._shared_kind)
            self._sets.put(identity, batches)
        return batches

    def unremembered(self, limits: Sequence[Limit]) -> tuple[SlotBatch, ...]:
        """The same for a report, whose many limits would push out those of the requests."""
        return self._split([LimitArguments(limit, self._keys) for limit in limits], self._kind)

    def empty(self, tag: str) -> SlotBatch:
        """A batch without limits."""
        return self._batch(tag, self._shared_kind((), ()), ())

    def billing_tag(self, team: str) -> str:
        """The tag of the batch that speaks of a team's ledger."""
        return team_tag(team) if self._by_slot else ORGANISATION

    def _of(self, limit: Limit) -> LimitArguments:
        arguments = self._limits.get(id(limit))
        if arguments is None:
            arguments = LimitArguments(limit, self._keys)
            self._limits.put(id(limit), arguments)
        return arguments

    def _split(self, limits: Sequence[LimitArguments], kind_of: KindMaker) -> tuple[SlotBatch, ...]:
        if not self._by_slot or not limits:
            return (self._batch(ORGANISATION, kind_of(range(len(limits)), limits), limits),)
        places: dict[str, list[int]] = {}
        for place, one in enumerate(limits):
            places.setdefault(one.tag, []).append(place)
        batches = []
        for tag, at in sorted(places.items(), key=lambda item: _SLOT_ORDER[item[0][0]]):
            of_slot = [limits[place] for place in at]
            batches.append(self._batch(tag, kind_of(at, of_slot), of_slot))
        return tuple(batches)

    def _batch(self, tag: str, kind: BatchKind, limits: Sequence[LimitArguments]) -> SlotBatch:
        slot_key = self._slot_keys.get(tag)
        if slot_key is None:
            slot_key = self._slot_keys[tag] = self._keys.records(tag, self._process)
        return SlotBatch(tag, slot_key, kind, limits)

    def _kind(self, places: Sequence[int], limits: Sequence[LimitArguments]) -> BatchKind:
        return BatchKind(places, limits, self.windows, self._timing)

    def _shared_kind(self, places: Sequence[int], limits: Sequence[LimitArguments]) -> BatchKind:
        alike = (tuple(places), *[one.numbers for one in limits])
        kind = self._kinds.get(alike)
        if kind is None:
            kind = self._kind(places, limits)
            self._kinds.put(alike, kind)
        return kind


def counter_key(arguments: LimitArguments, terms: CounterTerms) -> str:
    return f"{arguments.stem}:{terms.first}" if arguments.kind == QUOTA else arguments.stem


def picked(column: Sequence[Value], places: Sequence[int]) -> list[Value]:
    """What the column has at these places. Not within the functions that each request calls: they would keep the column
    in a cell for it."""
    return [column[place] for place in places]


def one_by_one(values: Sequence[float | str]) -> bytes:
    """These values in MessagePack, one behind the other: the list of them without its head."""
    encoded = _ENCODER.encode(values)
    return encoded[1:] if len(values) < 16 else encoded[3:]


def packed(numbers: Sequence[float]) -> bytes:
    return doubles(len(numbers)).pack(*numbers)
