"""How limits stand, read without a script: a counter is one string, and its arithmetic is the core's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from struct import unpack

from gateway.core.buckets import Bucket, Counter, CounterState, rescaled, restored
from gateway.core.limits import Limit
from gateway.store.contract import HOLD_STEPS
from gateway.store.in_redis.calls import Part
from gateway.store.in_redis.kit import Kit
from gateway.store.in_redis.terms import Terms

_AT_ONCE = 200
"""Counters in one reply."""


async def peek(kit: Kit, limits: Sequence[Limit]) -> tuple[int, list[Counter]]:
    """The store's time, and the limits' counters at it, in the same order."""
    parts = [chunk for part in kit.parts(limits) for chunk in _chunks(part)]
    now_ms = await _time(kit, parts)
    replies = await asyncio.gather(*[_read(kit, part, now_ms) for part in parts])
    found: list[Counter | None] = [None] * len(limits)
    for part, counters in zip(parts, replies, strict=True):
        for place, counter in zip(part.places, counters, strict=True):
            found[place] = counter
    return now_ms, [counter for counter in found if counter is not None]


async def _time(kit: Kit, parts: Sequence[Part]) -> int:
    """Of the server that keeps the first of them; those of a cluster keep nearly the same."""
    key = parts[0].terms[0].stem if parts and parts[0].terms else kit.keys.teams()
    asked = kit.clock.moment()
    seconds, microseconds = await kit.courier.ask(key, ("TIME",))
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    kit.clock.learn(now_ms, asked)
    return now_ms


async def _read(kit: Kit, part: Part, now_ms: int) -> list[Counter]:
    if not part.terms:
        return []
    keys = [kit.words.counter(terms, now_ms)[0] for terms in part.terms]
    packed = await kit.courier.ask(keys[0], ("MGET", *keys))
    return [_counter(kit, terms, string, now_ms) for terms, string in zip(part.terms, packed, strict=True)]


def _counter(kit: Kit, terms: Terms, packed: bytes | None, now_ms: int) -> Counter:
    limit = terms.limit
    window = kit.words.window_of(terms, now_ms)
    if packed is None:
        return restored(limit, kit.zone, CounterState(now_ms, 0, 0, window))
    spent, scale, stamp_ms, _, *holding = [int(number) for number in unpack(f"<{len(packed) // 8}d", packed)]
    held = 0
    if holding:
        over = now_ms // kit.timing.step_ms - holding[0]
        held = sum(holding[1 + min(max(over, 0), HOLD_STEPS) :])
    counter = restored(limit, kit.zone, CounterState(now_ms, spent, held, window))
    if isinstance(counter, Bucket):
        counter.debt, counter.stamp_ms = rescaled(spent, scale, counter.scale), stamp_ms
        counter.advance(limit, now_ms)
    return counter


def _chunks(part: Part) -> list[Part]:
    return [
        Part(part.home, part.places[at : at + _AT_ONCE], part.terms[at : at + _AT_ONCE])
        for at in range(0, len(part.places), _AT_ONCE)
    ]
