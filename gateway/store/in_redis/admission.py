"""Admission: asks slot by slot whether every limit lets the request pass; outside of a cluster that is one call.

An *uncertain call* is one that the store was asked for without an answer, or that could not be given back: it is undone
as soon as the store answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import msgspec

from gateway.core.admission import held_amounts, judge, refusal
from gateway.core.buckets import Counter, CounterState, pace, restored
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit
from gateway.core.reservation import AdmissionRequest, Hold, Holds, LimitStatuses, Refusal, Reservation
from gateway.store.contract import Admission
from gateway.store.in_redis.arguments import (
    QUOTA,
    RatePace,
    ScriptArguments,
    SlotBatch,
    SlotShare,
    Timing,
    packed,
    picked,
)
from gateway.store.in_redis.client import Router, SentCall, ServerClock
from gateway.store.in_redis.connection import CommandMaker, ConnectionDown, ErrorReply
from gateway.store.in_redis.record_lifetimes import RecordLifetimes, ReservationSecond
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

Item = TypeVar("Item")


class SlotReply(msgspec.Struct, frozen=True, gc=False):
    """What admit.lua answered of one slot's share of an admission. Of each charge: the amount that it bears or would
    have to bear (_SHADOW_REFUSED for a shadow limit that would have refused), what is used, of a rate in parts, and
    what is held. `raises` is what grants add to the limit of each, empty where they raise none."""

    share: SlotShare
    now_ms: int
    granted: int
    amounts: Sequence[int]
    spent: Sequence[int]
    held: Sequence[int]
    raises: Sequence[int] = ()


_AskedSlot = tuple[SlotShare, CommandMaker, SentCall | None]
"""A slot's share of an admission, what makes its command, and that on its way; None where it was not known where to."""


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A reservation, the second in which it was made, and where its charges are, slot by slot; None where shadow limits
    that would have refused bear nothing, so that `holds` are not those of whole calls."""

    reservation: Reservation
    second: ReservationSecond
    shares: Sequence[SlotShare] | None


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
        client, slot_key, kind = self._client, batch.slot_key, batch.kind
        clock = client.clock_of(slot_key)
        window = kind.window_at(at_ms if clock is first_clock else clock.now_ms())
        record = self._records.second_of(at_ms).record_in(slot_key)
        # Made when the call leaves: what a busy event loop lets wait is not late.
        command = partial(window.admission, batch.keys_part(window), record, request, most, clock)
        return SlotShare(batch, window, record, kind.settled), command, client.send(record.key, command)

    async def _admitted_by(
        self, request: AdmissionRequest, batches: Sequence[SlotBatch], first: _AskedSlot, at_ms: int, attempts: int
    ) -> Reservation | Refusal:
        client, one = self._client, first
        asked: list[SlotShare] = []
        replies: list[SlotReply] = []
        # A later slot grants no more than an earlier one, which may so hold more than is granted in the end.
        most = request.most
        for batch in batches:
            if replies:
                one = self._ask(request, batch, most, at_ms, client.clock_of(self._clock_key))
            share, command, sent = one
            asked.append(share)
            try:
                try:
                    if sent is None:
                        numbers = await client.run(ADMIT, share.record.key, command)
                    else:
                        numbers = client.carried_out(ADMIT, sent, await sent.reply)
                except (ConnectionDown, ErrorReply):
                    numbers = await client.run(ADMIT, share.record.key, command, sent)
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
            limits, most = len(share.window.places), numbers[2]
            end = 3 + 3 * limits
            raises = _raises_in(numbers, end, limits) if granted > 1 else ()
            reply = SlotReply(share, numbers[1], most, numbers[3:end:3], numbers[4:end:3], numbers[5:end:3], raises)
            if not granted & 1:
                await self._give_all_back(request.id, replies)
                return await self._refusal(request, reply)
            replies.append(reply)
        second = self._records.second_of(at_ms)
        second.made += 1
        reservation = _reservation(request, at_ms, replies)
        self._admitted[request.id] = Admitted(reservation, second, None if reservation.would_refuse else asked)
        return reservation

    def refusal(self, request: AdmissionRequest, reply: SlotReply, others: Sequence[Counter | None]) -> Refusal:
        """Judged by the counters that refused, and by those of other slots as they are now, in the order of the
        charges, where they are known."""
        batch, window = reply.share.batch, reply.share.window
        counters = list(others)
        places = window.places
        raises = reply.raises or [0] * len(places)
        for place, one, terms, spent, held, raised in zip(
            places, batch.limits, window.terms, reply.spent, reply.held, raises, strict=True
        ):
            state = CounterState(reply.now_ms, spent, held, terms if one.kind == QUOTA else (0, 0), raised)
            counters[place] = restored(one.limit, self._arguments.windows.zone, state)
        known = [counter for counter in counters if counter is not None]
        judgement = judge(request, known) if len(known) == len(request.limits) else None
        if judgement is None or not judgement.blocked:
            # What the others grant has meanwhile become too little to be refused, or they are not known.
            charges = request.charges
            own = picked(charges, places)
            request = AdmissionRequest.of(request.id, own, request.likely, request.most, request.least, request.enough)
            known = [counter for counter in picked(counters, places) if counter is not None]
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
                await self._give_back(request_id, reply.share, reply.amounts)
                undone += 1
        except StoreUnavailable:
            return False
        finally:
            for reply in replies[undone:]:
                self._uncertain.undo_later(partial(self._give_back, request_id, reply.share, reply.amounts))
        return True

    async def _undo(self, request: AdmissionRequest, shares: Sequence[SlotShare]) -> None:
        """Give back what was admitted though its answer was lost. Raises StoreUnavailable."""
        for share in shares:
            key = share.record.key
            record = await self._client.ask(key, ("HGET", key, request.id))
            if record is not None and b" " in record:
                await self._give_back(request.id, share, _amounts_of(record, request, share.batch))

    async def _give_back(self, request_id: str, share: SlotShare, amounts: Sequence[int]) -> None:
        batch, window = share.batch, share.window
        keys = [share.record.key]
        numbers = [self._timing.step_ms]
        for one, amount, key, terms in zip(batch.limits, amounts, batch.keys(window), window.terms, strict=True):
            if amount != _SHADOW_REFUSED:
                keys.append(key)
                numbers += (one.kind, one.at_once, amount, terms.first, terms.second)
        command = GIVE_BACK.command(keys, (request_id, packed(numbers)))
        await self._client.run(GIVE_BACK, share.record.key, command)


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
    for place, one in zip(batch.kind.places, batch.limits, strict=True):
        if one.kind != QUOTA:
            buckets[place] = one.capacity
    amounts = held_amounts(request, buckets, granted)
    return picked(amounts, batch.kind.places)


def _reservation(request: AdmissionRequest, at_ms: int, replies: Sequence[SlotReply]) -> Reservation:
    last, limits = replies[-1], request.limits
    granted = last.granted
    if len(replies) == 1:
        window, statuses, amounts = last.share.window, _statuses(last, limits), last.amounts
        has_shadow, begins = window.has_shadow, window.begins
    else:
        statuses, has_shadow = _joined(limits, replies), any(reply.share.window.has_shadow for reply in replies)
        order = _places(replies)
        amounts = _in_order(order, [reply.amounts for reply in replies])
        begins = _in_order(order, [reply.share.window.begins for reply in replies])
    if has_shadow:
        holds, would_refuse = _holds_in_shadow(request, replies, amounts, begins)
        return Reservation(request.id, at_ms, granted, granted < request.most, holds, statuses, would_refuse)
    return Reservation(request.id, at_ms, granted, granted < request.most, Holds(limits, amounts, begins), statuses)


def _statuses(reply: SlotReply, limits: Sequence[Limit]) -> LimitStatuses:
    """Those of the limits of one slot, which `limits` are."""
    share, now_ms, raises = reply.share, reply.now_ms, reply.raises
    window = share.window
    used, resets_ms = [*reply.spent], window.resets.copy()
    for place, flow, scale in _raised_rates(share, raises) if raises else window.rates:
        spent = used[place]
        used[place], resets_ms[place] = -(-spent // scale), now_ms - (-spent // flow)
    if raises:
        return LimitStatuses(list(map(Limit.raised, limits, raises)), used, reply.held, resets_ms, True)
    return LimitStatuses(limits, used, reply.held, resets_ms)


def _raised_rates(share: SlotShare, raises: Sequence[int]) -> list[RatePace]:
    """The rates of the window, where grants add so much to its limits."""
    limits = share.batch.limits
    return [
        (place, *pace(limits[place].limit.raised(by))) if (by := raises[place]) else (place, flow, scale)
        for place, flow, scale in share.window.rates
    ]


def _joined(limits: Sequence[Limit], replies: Sequence[SlotReply]) -> LimitStatuses:
    """Those of several slots."""
    each = [_statuses(reply, picked(limits, reply.share.window.places)) for reply in replies]
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
    places = [place for reply in replies for place in reply.share.window.places]
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
        batch = reply.share.batch
        each = _enforced_amounts(request, batch, reply.granted)
        for place, one, enforced in zip(batch.kind.places, batch.limits, each, strict=True):
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
