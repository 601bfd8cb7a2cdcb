"""Admission: ask slot by slot whether every limit lets the request pass; outside of a cluster that is one call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from gateway.core.admission import held_amount, judge, need_of, refusal
from gateway.core.buckets import Counter, CounterState, restored
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit
from gateway.core.reservation import AdmissionRequest, Hold, Refusal, Reservation
from gateway.store.in_redis.calls import Answer, Figures, Part, admit_answer, admit_call, numbers
from gateway.store.in_redis.kit import Kit
from gateway.store.in_redis.line import LineDown
from gateway.store.in_redis.records import LONG_MS
from gateway.store.in_redis.script import ADMIT, GIVE_BACK
from gateway.store.in_redis.standings import peek
from gateway.store.in_redis.terms import QUOTA, Terms

_ATTEMPTS = 8
"""A window ends, or the store's clock is not known yet: one more attempt mends either. A burst that keeps Redis busy
for longer than a call may be late takes one for each such stretch."""


async def admit(kit: Kit, request: AdmissionRequest) -> Reservation | Refusal:
    parts = kit.parts([charge.limit for charge in request.charges])
    for _ in range(_ATTEMPTS):
        verdict = await _attempt(kit, request, parts)
        if verdict is not None:
            return verdict
    raise StoreUnavailable("The gateway and its store do not agree on the time. Try again soon.", retry_after_ms=1_000)


async def _attempt(kit: Kit, request: AdmissionRequest, parts: Sequence[Part]) -> Reservation | Refusal | None:
    """None where the store wants to be asked again, at the time that it told."""
    at_ms = kit.clock.now_ms()
    admitted: list[Answer] = []
    asked = request
    for part in parts:
        try:
            answer = await _ask_part(kit, asked, part, at_ms)
        except (StoreUnavailable, asyncio.CancelledError) as lost:
            if _may_have_been_heard(lost) or admitted:
                kit.doubts.add(lambda: _undo(kit, request, parts[: len(admitted) + 1], at_ms))
            raise
        if answer is None or not answer.admitted:
            for before in admitted:
                await _give_back(kit, request.id, before, at_ms)
            return None if answer is None else await _refusal(kit, request, answer)
        admitted.append(answer)
        if len(parts) > 1:
            # A later slot grants no more than an earlier one, which may so hold more than is granted in the end.
            asked = msgspec.structs.replace(request, most=answer.granted)
    kit.records.begin(at_ms, [kit.record(part, at_ms) for part in parts])
    return _reservation(kit, request, admitted, at_ms)


async def _ask_part(kit: Kit, request: AdmissionRequest, part: Part, at_ms: int) -> Answer | None:
    asked = kit.clock.moment()
    keys, told = admit_call(request, part, kit.words, at_ms, kit.timing)

    def args() -> tuple[str, int, bytes]:
        # The time is told when the call leaves: what a busy gateway lets lie is not late to Redis.
        return request.id, LONG_MS, numbers([kit.clock.now_ms()]) + told

    reply = await kit.courier.run(ADMIT, [kit.record(part, at_ms), *keys], args)
    kit.clock.learn(reply[1], asked)
    return admit_answer(reply, part)


def _may_have_been_heard(lost: BaseException) -> bool:
    return isinstance(lost, asyncio.CancelledError) or (isinstance(lost.__cause__, LineDown) and lost.__cause__.sent)


async def _undo(kit: Kit, request: AdmissionRequest, parts: Sequence[Part], at_ms: int) -> None:
    """Give back what was admitted without anybody hearing of it. Raises StoreUnavailable."""
    for part in parts:
        record = kit.record(part, at_ms)
        told = await kit.courier.ask(record, ("HGET", record, request.id))
        if told is None or b" " not in told:
            continue
        granted = int(told.split()[1])
        figures = tuple(
            [
                (held_amount(request.charges[place], terms.kind == QUOTA, request, granted), 0, 0)
                for place, terms in zip(part.places, part.terms, strict=True)
            ]
        )
        await _give_back(kit, request.id, Answer(part, True, at_ms, granted, figures), at_ms)


async def _give_back(kit: Kit, name: str, answer: Answer, at_ms: int) -> None:
    keys = [kit.record(answer.part, at_ms)]
    told = [kit.timing.step_ms]
    for terms, (amount, _, _) in zip(answer.part.terms, answer.figures, strict=True):
        key, first, second = kit.words.counter(terms, at_ms)
        keys.append(key)
        told += (terms.kind, terms.at_once, amount, first, second)
    await kit.courier.run(GIVE_BACK, keys, (name, numbers(told)))


def _reservation(kit: Kit, request: AdmissionRequest, answers: Sequence[Answer], at_ms: int) -> Reservation:
    told: dict[int, tuple[Counter, Hold]] = {}
    would_refuse: list[Limit] = []
    granted = answers[-1].granted
    for answer in answers:
        for place, terms, figures in zip(answer.part.places, answer.part.terms, answer.figures, strict=True):
            counter = _counter(kit, terms, figures, answer.now_ms)
            told[place] = counter, Hold(terms.limit, figures[0], counter.start_ms)
            if not terms.enforced and _was_short(request, place, counter, granted, figures[0]):
                would_refuse.append(terms.limit)
    in_order = [told[place] for place in range(len(request.charges))]
    limit_statuses = tuple([counter.limit_status(hold.limit) for counter, hold in in_order])
    holds = tuple([hold for _, hold in in_order])
    return Reservation(request.id, at_ms, granted, granted < request.most, holds, limit_statuses, tuple(would_refuse))


async def _refusal(kit: Kit, request: AdmissionRequest, answer: Answer) -> Refusal:
    """Judged by the counters that refused; those of other slots are looked at for it, without a charge."""
    own = dict(zip(answer.part.places, _counters(kit, answer), strict=True))
    counters = [own.get(place) for place in range(len(request.charges))]
    if None in counters:
        _, seen = await peek(kit, [charge.limit for charge in request.charges])
        counters = [own.get(place, counter) for place, counter in enumerate(seen)]
    known = [counter for counter in counters if counter is not None]
    judgement = judge(request, known)
    if not judgement.blocked:
        # What the others grant has meanwhile become too little to be refused: then the refusal is told alone.
        part = answer.part.places
        request = msgspec.structs.replace(request, charges=tuple([request.charges[place] for place in part]))
        known = [own[place] for place in part]
        judgement = judge(request, known)
    return refusal(request, known, judgement, answer.now_ms)


def _counters(kit: Kit, answer: Answer) -> list[Counter]:
    return [
        _counter(kit, terms, figures, answer.now_ms)
        for terms, figures in zip(answer.part.terms, answer.figures, strict=True)
    ]


def _counter(kit: Kit, terms: Terms, figures: Figures, now_ms: int) -> Counter:
    return restored(
        terms.limit, kit.zone, CounterState(now_ms, figures[1], figures[2], kit.words.window_of(terms, now_ms))
    )


def _was_short(request: AdmissionRequest, place: int, counter: Counter, granted: int, borne: int) -> bool:
    """Whether the counter had too little room before it bore this request."""
    room = counter.capacity - counter.used - counter.held + borne
    return need_of(request.charges[place], counter, request, granted) > room
