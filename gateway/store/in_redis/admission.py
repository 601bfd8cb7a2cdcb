"""Admission: asks slot by slot whether every limit lets the request pass; outside of a cluster that is one call.

An *uncertain call* is one that the store was asked for without an answer, or that could not be given back: it is undone
as soon as the store answers. The records of reservations are counted by second (`RecordLifetimes`), until settlement
lets them end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import msgspec

from gateway.core.admission import held_amounts, judge, refusal
from gateway.core.buckets import Counter, CounterState, restored
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit
from gateway.core.reservation import AdmissionRequest, Hold, Holds, LimitStatuses, Refusal, Reservation
from gateway.store.contract import Admission
from gateway.store.in_redis.arguments import (
    QUOTA,
    ScriptArguments,
    SlotBatch,
    SlotCall,
    SlotShare,
    Timing,
    packed,
)
from gateway.store.in_redis.client import Router, SentCall, ServerClock
from gateway.store.in_redis.connection import CommandMaker, ConnectionDown, ErrorReply
from gateway.store.in_redis.scripts import ADMIT, GIVE_BACK
from gateway.store.in_redis.uncertain_calls import UncertainCalls

_ATTEMPTS = 16
"""A window ends, or a server's clock is not known yet: one more attempt is enough for either. A burst that keeps Redis
busy for longer than a call may be late takes one for each such stretch."""

_GRANTED_MOST = 3
"""The largest first number of a reply of admit.lua."""

_NOT_64_BITS = "The store's Redis counts in 32 bits: use one that is built for 64."
"""Its numbers have four bytes, of which two are read as one."""

_NOT_FORWARDED = "Nothing was forwarded; try again soon."

_SHADOW_REFUSED = -1
_QUIET_MS = 2_000
"""A second is over when it is this far behind: clocks are only nearly the same."""


Item = TypeVar("Item")


class SlotReply(msgspec.Struct, frozen=True, gc=False):
    """What admit.lua answered of one slot's share of an admission. Of each charge: the amount that it bears or would
    have to bear (_SHADOW_REFUSED for a shadow limit that would have refused), what is used, of a rate in parts, and
    what is held. `raises` is what grants add to the limit of each, empty where they raise none."""

    call: SlotCall
    now_ms: int
    granted: int
    amounts: Sequence[int]
    spent: Sequence[int]
    held: Sequence[int]
    raises: Sequence[int] = ()


_AskedSlot = tuple[SlotCall, CommandMaker, SentCall | None]
"""A slot's share of an admission, what makes its command, and that on its way; None where it was not known where to."""


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A reservation, and where its charges are, slot by slot; None where shadow limits that would have refused bear
    nothing, so that `holds` are not those of whole calls."""

    reservation: Reservation
    shares: Sequence[SlotShare] | None


class RecordLifetimes:
    """Counts the open reservations of each second of this process, and knows their records' keys.

    Once every reservation of a second is settled, and this process knows it, nothing can come again but a repetition
    within the hour, and its records may end then. What this process never learned about stays for LONG_MS, until a
    journal can have settled it."""

    def __init__(self) -> None:
        self._seconds: dict[int, _Second] = {}

    def begin(self, at_ms: int, calls: Iterable[SlotShare]) -> None:
        second = self._seconds.get(at_ms // 1000)
        if second is None:
            second = self._seconds[at_ms // 1000] = _Second()
        second.open += 1
        for call in calls:
            second.keys.add(call.record)

    def end(self, at_ms: int) -> None:
        second = self._seconds.get(at_ms // 1000)
        if second is not None:
            second.open -= 1

    def settled(self, now_ms: int) -> dict[int, set[str]]:
        """The records' keys of each second that is over and of which everything is settled, until it is forgotten."""
        over = (now_ms - _QUIET_MS) // 1000
        return {at: second.keys for at, second in self._seconds.items() if at < over and second.open <= 0}

    def forget(self, second: int) -> None:
        self._seconds.pop(second, None)


class _Second:
    """The open reservations of a second, and the keys of its records."""

    __slots__ = ("keys", "open")

    def __init__(self) -> None:
        self.open = 0
        self.keys: set[str] = set()


RefusalMaker = Callable[[AdmissionRequest, SlotReply], Coroutine[Any, Any, Refusal]]
"""Makes the refusal of a request from the reply that refuses it."""


class Admissions:
    """Carries out admit.lua and what takes it back. Reservations are made at the time of the server that has
    `clock_key`: one for all slots, though each is asked by the clock of its own server. `admitted` gets what is
    admitted, by the id of its request."""

    def __init__(
        self,
        client: Router,
        arguments: ScriptArguments,
        timing: Timing,
        uncertain: UncertainCalls,
        records: RecordLifetimes,
        clock_key: str,
        admitted: dict[str, Admitted],
        refusal: RefusalMaker,
    ) -> None:
        self._client = client
        self._arguments = arguments
        self._timing = timing
        self._uncertain = uncertain
        self._records = records
        self._clock_key = clock_key
        self._admitted = admitted
        self._refusal = refusal

    def admit(self, request: AdmissionRequest, attempts: int = _ATTEMPTS) -> Admission:
        """Ask the first slot now; what it says, and the others, come as this is awaited. Raises StoreUnavailable
        then."""
        clock = self._client.clock_of(self._clock_key)
        at_ms = clock.now_ms()
        batches = self._arguments.slot_batches(request.limits)
        first = self._ask(request, batches[0], request.most, at_ms, clock)
        return self._admitted_by(request, batches, first, at_ms, attempts)

    def _ask(
        self, request: AdmissionRequest, batch: SlotBatch, most: int, at_ms: int, first_clock: ServerClock
    ) -> _AskedSlot:
        client = self._client
        clock = client.clock_of(batch.slot_key)
        call = batch.call_at(at_ms if clock is first_clock else clock.now_ms(), at_ms, self._timing)
        # Made when the call leaves: what a busy event loop lets wait is not late.
        command = partial(call.command, request, most, clock)
        return call, command, client.send(call.record, command)

    async def _admitted_by(
        self, request: AdmissionRequest, batches: Sequence[SlotBatch], first: _AskedSlot, at_ms: int, attempts: int
    ) -> Reservation | Refusal:
        client, one = self._client, first
        asked: list[SlotCall] = []
        replies: list[SlotReply] = []
        # A later slot grants no more than an earlier one, which may so hold more than is granted in the end.
        most = request.most
        for batch in batches:
            if replies:
                one = self._ask(request, batch, most, at_ms, client.clock_of(self._clock_key))
            call, command, sent = one
            asked.append(call)
            try:
                try:
                    if sent is None:
                        numbers = await client.run(ADMIT, call.record, command)
                    else:
                        numbers = client.carried_out(ADMIT, sent, await sent.reply)
                except (ConnectionDown, ErrorReply):
                    numbers = await client.run(ADMIT, call.record, command, sent)
            except (StoreUnavailable, asyncio.CancelledError) as lost:
                if replies or _may_have_been_carried_out(lost):
                    self._uncertain.undo_later(partial(self._undo, request, asked))
                if isinstance(lost, StoreUnavailable):
                    raise _not_forwarded(lost) from lost.__cause__
                raise
            granted = numbers[0]
            if granted < 0:
                return await self._ask_again(request, replies, attempts - 1)
            # A reply with few charges is padded to a length that Redis makes fastest.
            limits, most = len(call.window.keys), numbers[2]
            end = 3 + 3 * limits
            raises = _raises_in(numbers, end, limits) if granted > 1 else ()
            reply = SlotReply(call, numbers[1], most, numbers[3:end:3], numbers[4:end:3], numbers[5:end:3], raises)
            if not granted & 1:
                await self._give_all_back(request.id, replies)
                return await self._refusal(request, reply)
            replies.append(reply)
        self._records.begin(at_ms, asked)
        reservation = _reservation(request, at_ms, replies)
        self._admitted[request.id] = Admitted(reservation, None if reservation.would_refuse else asked)
        return reservation

    def refusal(self, request: AdmissionRequest, reply: SlotReply, others: Sequence[Counter | None]) -> Refusal:
        """Judged by the counters that refused, and by those of other slots as they are now, in the order of the
        charges, where they are known."""
        batch, window = reply.call.batch, reply.call.window
        counters = list(others)
        raises = reply.raises or [0] * len(batch.places)
        for place, one, terms, spent, held, raised in zip(
            batch.places, batch.limits, window.terms, reply.spent, reply.held, raises, strict=True
        ):
            state = CounterState(reply.now_ms, spent, held, terms if one.kind == QUOTA else (0, 0), raised)
            counters[place] = restored(one.limit, self._arguments.windows.zone, state)
        known = [counter for counter in counters if counter is not None]
        judgement = judge(request, known) if len(known) == len(request.limits) else None
        if judgement is None or not judgement.blocked:
            # What the others grant has meanwhile become too little to be refused, or they are not known.
            charges = request.charges
            own = [charges[place] for place in batch.places]
            request = AdmissionRequest.of(request.id, own, request.likely, request.most, request.least, request.enough)
            known = [counter for counter in [counters[place] for place in batch.places] if counter is not None]
            judgement = judge(request, known)
        return refusal(request, known, judgement, reply.now_ms)

    async def _ask_again(
        self, request: AdmissionRequest, replies: Sequence[SlotReply], attempts: int
    ) -> Reservation | Refusal:
        """Where the store wants to be asked at the time that it gave: its clock is off, or a window is over."""
        if replies and not await self._give_all_back(request.id, replies):
            raise StoreUnavailable(f"The gateway's store does not answer. {_NOT_FORWARDED}", retry_after_ms=1_000)
        if not attempts:
            raise StoreUnavailable(
                f"The store was asked too late each time: it or the gateway is busy. {_NOT_FORWARDED}",
                retry_after_ms=1_000,
            )
        return await self.admit(request, attempts)

    async def _give_all_back(self, request_id: str, replies: Sequence[SlotReply]) -> bool:
        """Whether all of it was; the rest is an uncertain call."""
        undone = 0
        try:
            for reply in replies:
                await self._give_back(request_id, reply.call, reply.amounts)
                undone += 1
        except StoreUnavailable:
            return False
        finally:
            for reply in replies[undone:]:
                self._uncertain.undo_later(partial(self._give_back, request_id, reply.call, reply.amounts))
        return True

    async def _undo(self, request: AdmissionRequest, calls: Sequence[SlotCall]) -> None:
        """Give back what was admitted though its answer was lost. Raises StoreUnavailable."""
        for call in calls:
            record = await self._client.ask(call.record, ("HGET", call.record, request.id))
            if record is not None and b" " in record:
                await self._give_back(request.id, call, _amounts_of(record, request, call.batch))

    async def _give_back(self, request_id: str, call: SlotCall, amounts: Sequence[int]) -> None:
        keys = [call.record]
        numbers = [self._timing.step_ms]
        window = call.window
        for one, amount, key, terms in zip(call.batch.limits, amounts, window.keys, window.terms, strict=True):
            if amount != _SHADOW_REFUSED:
                keys.append(key)
                numbers += (one.kind, one.at_once, amount, terms.first, terms.second)
        command = GIVE_BACK.command(keys, (request_id, packed(numbers)))
        await self._client.run(GIVE_BACK, call.record, command)


def _raises_in(numbers: Sequence[int], begin: int, limits: int) -> Sequence[int]:
    if numbers[0] > _GRANTED_MOST:
        raise StoreUnavailable(_NOT_64_BITS)
    return numbers[begin : begin + limits]


def _not_forwarded(lost: StoreUnavailable) -> StoreUnavailable:
    """The same kind of error, in the words for the client whose request ends here."""
    return type(lost)(f"{lost.message} {_NOT_FORWARDED}", retry_after_ms=lost.retry_after_ms)


def _may_have_been_carried_out(lost: BaseException) -> bool:
    return isinstance(lost, asyncio.CancelledError) or (
        isinstance(lost.__cause__, ConnectionDown) and lost.__cause__.sent
    )


def _amounts_of(record: bytes, request: AdmissionRequest, batch: SlotBatch) -> list[int]:
    """What an open record (counter.lua says how it is written) holds of each charge."""
    _, granted, *others = [int(number) for number in record.split()]
    amounts = _enforced_amounts(request, batch, granted)
    for key_number, amount in zip(others[::2], others[1::2], strict=True):
        # Among the script's keys the record is the first.
        amounts[key_number - 2] = amount
    return amounts


def _enforced_amounts(request: AdmissionRequest, batch: SlotBatch, granted: int) -> list[int]:
    """What limits that are enforced would hold of the batch's charges."""
    buckets: list[int | None] = [None] * len(request.limits)
    for place, one in zip(batch.places, batch.limits, strict=True):
        if one.kind != QUOTA:
            buckets[place] = one.capacity
    amounts = held_amounts(request, buckets, granted)
    return [amounts[place] for place in batch.places]


def _reservation(request: AdmissionRequest, at_ms: int, replies: Sequence[SlotReply]) -> Reservation:
    last, limits = replies[-1], request.limits
    granted = last.granted
    if len(replies) == 1:
        call, statuses, amounts = last.call, _statuses(last, limits), last.amounts
        has_shadow, begins = call.batch.has_shadow, call.window.begins
    else:
        statuses, has_shadow = _joined(limits, replies), any(reply.call.batch.has_shadow for reply in replies)
        order = _places(replies)
        amounts = _in_order(order, [reply.amounts for reply in replies])
        begins = _in_order(order, [reply.call.window.begins for reply in replies])
    if has_shadow:
        holds, would_refuse = _holds_in_shadow(request, replies, amounts, begins)
        return Reservation(request.id, at_ms, granted, granted < request.most, holds, statuses, would_refuse)
    return Reservation(request.id, at_ms, granted, granted < request.most, Holds(limits, amounts, begins), statuses)


def _statuses(reply: SlotReply, limits: Sequence[Limit]) -> LimitStatuses:
    """Those of the limits of one slot, which `limits` are."""
    call, now_ms, raises = reply.call, reply.now_ms, reply.raises
    window = call.window
    used, resets_ms = [*reply.spent], window.resets.copy()
    for place, flow, scale in call.raised_rates(raises) if raises else window.rates:
        spent = used[place]
        used[place], resets_ms[place] = -(-spent // scale), now_ms - (-spent // flow)
    if raises:
        return LimitStatuses(list(map(Limit.raised, limits, raises)), used, reply.held, resets_ms, True)
    return LimitStatuses(limits, used, reply.held, resets_ms)


def _joined(limits: Sequence[Limit], replies: Sequence[SlotReply]) -> LimitStatuses:
    """Those of several slots."""
    each = [_statuses(reply, [limits[place] for place in reply.call.batch.places]) for reply in replies]
    order = _places(replies)
    are_raised = any(one.are_raised for one in each)
    return LimitStatuses(
        _in_order(order, [one.limits for one in each]) if are_raised else limits,
        _in_order(order, [one.used for one in each]),
        _in_order(order, [one.held for one in each]),
        _in_order(order, [one.resets_ms for one in each]),
        are_raised,
    )


def _places(replies: Sequence[SlotReply]) -> list[int]:
    """Among the limits of the replies, one behind the other, where that of each place of the request is."""
    places = [place for reply in replies for place in reply.call.batch.places]
    return sorted(range(len(places)), key=places.__getitem__)


def _in_order(order: Sequence[int], columns: Sequence[Sequence[Item]]) -> list[Item]:
    """A column of several slots, in the order of the request's limits."""
    column = list(chain.from_iterable(columns))
    return [column[at] for at in order]


def _holds_in_shadow(
    request: AdmissionRequest, replies: Sequence[SlotReply], amounts: Sequence[int], begins: Sequence[int]
) -> tuple[Holds, tuple[Limit, ...]]:
    """What is held, and the shadow limits that would have refused."""
    capped = set[int]()
    for reply in replies:
        batch = reply.call.batch
        each = _enforced_amounts(request, batch, reply.granted)
        for place, one, enforced in zip(batch.places, batch.limits, each, strict=True):
            if not one.enforced and amounts[place] < enforced:
                capped.add(place)
    places = range(len(amounts))
    holds = [
        Hold(request.limits[place], amounts[place], begins[place], place in capped)
        for place in places
        if amounts[place] != _SHADOW_REFUSED
    ]
    would_refuse = [request.limits[place] for place in places if amounts[place] == _SHADOW_REFUSED]
    return Holds.of(holds), tuple(would_refuse)
