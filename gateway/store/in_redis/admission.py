"""Admission: ask slot by slot whether every limit lets the request pass; outside of a cluster that is one call.

What the store was asked and this process has no answer to, or what it could not give back, is an
*uncertain call*: it is undone as soon as the store answers. The records of the reservations that were
made are counted by second (`RecordLifetimes`), until settlement lets them end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from gateway.core.admission import held_amount, judge, refusal
from gateway.core.buckets import Counter, CounterState, restored
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit
from gateway.core.reservation import AdmissionRequest, Hold, LimitStatus, Refusal, Reservation
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.arguments import LONG_MS, QUOTA, ScriptArguments, SlotBatch, Timing, WindowArguments, packed
from gateway.store.in_redis.client import Router, ServerClock
from gateway.store.in_redis.connection import ConnectionDown
from gateway.store.in_redis.scripts import ADMIT, GIVE_BACK

_ATTEMPTS = 8
"""A window ends, or a server's clock is not known yet: one more attempt is enough for either. A burst that keeps Redis
busy for longer than a call may be late takes one for each such stretch."""

_FIRST_CHARGE = 3
_CHARGE_REPLY = 3
"""Numbers in a reply of admit.lua: those of the call, and of each charge after them."""

_NOT_BORNE = -1
_QUIET_MS = 2_000
"""A second is over when it is this far behind: clocks are only nearly the same."""


class SlotCall(msgspec.Struct, frozen=True):
    """One slot's share of an admission, as it was asked: by this its charges are found again."""

    batch: SlotBatch
    window: WindowArguments
    record: str


class AdmissionReply(msgspec.Struct, frozen=True):
    """What admit.lua answered; `numbers` are as its head describes them."""

    call: SlotCall
    admitted: bool
    now_ms: int
    granted: int
    numbers: list[int]

    @property
    def amounts(self) -> list[int]:
        """What each charge bears; _NOT_BORNE for a shadow limit that would have refused."""
        end = _FIRST_CHARGE + len(self.call.batch.limits) * _CHARGE_REPLY
        return self.numbers[_FIRST_CHARGE:end:_CHARGE_REPLY]


class UncertainCalls:
    """Undoes what may have been carried out though this process did not hear of it, or could not be given back.

    Nothing is undone before the call can no longer be carried out late. What fails is tried again until it is done."""

    PAUSE_S = 1.0
    MOST = 4_096
    """Beyond so many, what was carried out unheard stays: holds end by themselves."""

    _AT_ONCE = 64

    def __init__(self, tasks: BackgroundTasks, slack_s: float) -> None:
        self._tasks = tasks
        self._slack_s = slack_s
        self._waiting: dict[Callable[[], Awaitable[None]], None] = {}
        self._any = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def add(self, undo: Callable[[], Awaitable[None]]) -> None:
        """`undo` raises StoreUnavailable as long as it cannot be done."""
        if len(self._waiting) >= self.MOST:
            return
        self._waiting[undo] = None
        self._any.set()
        if self._running is None:
            self._running = self._tasks.keep_running("uncertain calls", self._undo_for_good)

    async def _undo_for_good(self) -> None:
        while True:
            await self._any.wait()
            due = list(self._waiting)
            await asyncio.sleep(self._slack_s)
            for at in range(0, len(due), self._AT_ONCE):
                done = await asyncio.gather(*[self._try(undo) for undo in due[at : at + self._AT_ONCE]])
                if not all(done):
                    await asyncio.sleep(self.PAUSE_S)
                    break
            if not self._waiting:
                self._any.clear()

    async def _try(self, undo: Callable[[], Awaitable[None]]) -> bool:
        # What fails is tried again after all others, so that it holds up none of them.
        del self._waiting[undo]
        try:
            await undo()
        except (StoreUnavailable, asyncio.CancelledError) as failure:
            self._waiting[undo] = None
            if isinstance(failure, asyncio.CancelledError):
                raise
            return False
        return True


class RecordLifetimes:
    """Counts the open reservations of each second of this process, and knows their records' keys.

    Once every reservation of a second is settled, and this process knows it, nothing can come again but a repetition
    within the hour, and its records may end then. What this process never learned about stays for LONG_MS, until a
    journal can have settled it."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._keys: dict[int, set[str]] = {}

    def begin(self, at_ms: int, keys: Sequence[str]) -> None:
        second = at_ms // 1000
        self._open[second] = self._open.get(second, 0) + 1
        self._keys.setdefault(second, set()).update(keys)

    def end(self, at_ms: int) -> None:
        second = at_ms // 1000
        if second in self._open:
            self._open[second] -= 1

    def settled(self, now_ms: int) -> dict[int, set[str]]:
        """The records' keys of each second that is over and of which everything is settled, until it is forgotten."""
        over = (now_ms - _QUIET_MS) // 1000
        return {second: self._keys[second] for second, count in self._open.items() if second < over and count <= 0}

    def forget(self, second: int) -> None:
        self._open.pop(second, None)
        self._keys.pop(second, None)


class Admissions:
    """Carries out admit.lua and what takes it back. `now_ms` is the time that reservations are made at: one for all
    slots, though each is asked by the clock of its own server."""

    def __init__(
        self,
        client: Router,
        arguments: ScriptArguments,
        timing: Timing,
        uncertain: UncertainCalls,
        records: RecordLifetimes,
        now_ms: Callable[[], int],
    ) -> None:
        self._client = client
        self._arguments = arguments
        self._timing = timing
        self._uncertain = uncertain
        self._records = records
        self._now_ms = now_ms

    async def admit(self, request: AdmissionRequest) -> Reservation | AdmissionReply:
        """A reservation, or the reply that refuses. Raises StoreUnavailable."""
        batches = self._arguments.batches_of(request)
        for _ in range(_ATTEMPTS):
            verdict = await self._attempt(request, batches)
            if verdict is not None:
                return verdict
        raise StoreUnavailable(
            "The gateway and its store do not agree on the time. Try again soon.", retry_after_ms=1_000
        )

    def refusal(self, request: AdmissionRequest, reply: AdmissionReply, others: Sequence[Counter | None]) -> Refusal:
        """Judged by the counters that refused, and by those of other slots as they are now, in the order of the
        charges, where they are known."""
        batch, window = reply.call.batch, reply.call.window
        counters = list(others)
        for number, (place, one) in enumerate(zip(batch.places, batch.limits, strict=True)):
            at = _FIRST_CHARGE + number * _CHARGE_REPLY
            spent, held = reply.numbers[at + 1 : at + _CHARGE_REPLY]
            terms = window.terms[number]
            state = CounterState(reply.now_ms, spent, held, terms if one.kind == QUOTA else (0, 0))
            counters[place] = restored(one.limit, self._arguments.windows.zone, state)
        known = [counter for counter in counters if counter is not None]
        judgement = judge(request, known) if len(known) == len(request.charges) else None
        if judgement is None or not judgement.blocked:
            # What the others grant has meanwhile become too little to be refused, or they are not known.
            charges = tuple([request.charges[place] for place in batch.places])
            request = msgspec.structs.replace(request, charges=charges)
            known = [counter for counter in [counters[place] for place in batch.places] if counter is not None]
            judgement = judge(request, known)
        return refusal(request, known, judgement, reply.now_ms)

    async def _attempt(
        self, request: AdmissionRequest, batches: Sequence[SlotBatch]
    ) -> Reservation | AdmissionReply | None:
        """None where the store wants to be asked again, at the time that it gave."""
        at_ms = self._now_ms()
        asked: list[SlotCall] = []
        replies: list[AdmissionReply] = []
        remaining = request
        for batch in batches:
            clock = self._client.clock_of(batch.records)
            call = SlotCall(batch, batch.at(clock.now_ms()), batch.record(at_ms))
            asked.append(call)
            try:
                answer = await self._ask(remaining, call, clock)
            except (StoreUnavailable, asyncio.CancelledError) as lost:
                if replies or _may_have_been_carried_out(lost):
                    self._uncertain.add(partial(self._undo, request, asked))
                raise
            if answer[0] < 0:
                given_back = await self._give_all_back(request.id, replies)
                if not given_back:
                    raise StoreUnavailable("The gateway's store does not answer. Try again soon.", retry_after_ms=1_000)
                return None
            reply = AdmissionReply(call, answer[0] == 1, answer[1], answer[2], answer)
            if not reply.admitted:
                await self._give_all_back(request.id, replies)
                return reply
            replies.append(reply)
            if len(batches) > 1:
                # A later slot grants no more than an earlier one, which may so hold more than is granted in the end.
                remaining = msgspec.structs.replace(request, most=reply.granted)
        self._records.begin(at_ms, [call.record for call in asked])
        return _reservation(request, at_ms, replies)

    async def _ask(self, request: AdmissionRequest, call: SlotCall, clock: ServerClock) -> list[int]:
        """What admit.lua returns. Raises StoreUnavailable."""

        def arguments() -> tuple[str | int | bytes, ...]:
            # Made when the call leaves: what a busy event loop lets wait is not late.
            numbers = call.window.admission(request, call.batch.places, clock.now_ms(), self._timing)
            return request.id, LONG_MS, numbers

        asked_at = clock.moment()
        answer: list[int] = await self._client.run(ADMIT, [call.record, *call.window.keys], arguments)
        clock.learn(answer[1], asked_at)
        return answer

    async def _give_all_back(self, request_id: str, replies: Sequence[AdmissionReply]) -> bool:
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
                self._uncertain.add(partial(self._give_back, request_id, reply.call, reply.amounts))
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
            if amount != _NOT_BORNE:
                keys.append(key)
                numbers += (one.kind, one.at_once, amount, terms.first, terms.second)
        await self._client.run(GIVE_BACK, keys, (request_id, packed(numbers)))


def _may_have_been_carried_out(lost: BaseException) -> bool:
    return isinstance(lost, asyncio.CancelledError) or (
        isinstance(lost.__cause__, ConnectionDown) and lost.__cause__.sent
    )


def _amounts_of(record: bytes, request: AdmissionRequest, batch: SlotBatch) -> list[int]:
    """What an open record (counter.lua says how it is written) holds of each charge."""
    _, granted, *shadows = [int(number) for number in record.split()]
    amounts = [
        held_amount(request.charges[place], one.kind == QUOTA, request, granted)
        for place, one in zip(batch.places, batch.limits, strict=True)
    ]
    for key_number, amount in zip(shadows[::2], shadows[1::2], strict=True):
        # Among the script's keys the record is the first.
        amounts[key_number - 2] = amount
    return amounts


def _reservation(request: AdmissionRequest, at_ms: int, replies: Sequence[AdmissionReply]) -> Reservation:
    granted = replies[-1].granted
    statuses: list[LimitStatus | None] = [None] * len(request.charges)
    holds: list[Hold | None] = [None] * len(request.charges)
    for reply in replies:
        call, numbers, at = reply.call, reply.numbers, _FIRST_CHARGE
        for place, one, terms in zip(call.batch.places, call.batch.limits, call.window.terms, strict=True):
            amount = numbers[at]
            statuses[place] = one.status(reply.now_ms, numbers[at + 1], numbers[at + 2], terms)
            if amount != _NOT_BORNE:
                window_ms = terms.first if one.kind == QUOTA else 0
                capped = not one.enforced and amount < held_amount(
                    request.charges[place], one.kind == QUOTA, request, reply.granted
                )
                holds[place] = Hold(one.limit, amount, window_ms, capped)
            at += _CHARGE_REPLY
    would_refuse: tuple[Limit, ...] = ()
    if None in holds:
        would_refuse = tuple(
            [charge.limit for charge, hold in zip(request.charges, holds, strict=True) if hold is None]
        )
    return Reservation(
        request.id,
        at_ms,
        granted,
        granted < request.most,
        tuple([hold for hold in holds if hold is not None]),
        tuple([status for status in statuses if status is not None]),
        would_refuse,
    )
