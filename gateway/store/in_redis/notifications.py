"""The notifications that wait, in Redis: a sorted set in each slot that has limits, scored by when each is due.

settle.lua adds what it finds, so that nothing is lost between its reply and the outbox. The slot of the organisation
has what gateways find themselves, and the flags by which one of them adds it for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import cast

from gateway.core.calendar import DAY_MS
from gateway.core.limits import Limit
from gateway.store.contract import OUTBOX_DAYS, OUTBOX_MAX, OUTBOX_PAST, CounterOwner, OutboxReport, WaitingEntry
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import (
    ORGANISATION,
    StoreKeys,
    gathered_users,
    model_tag,
    owner_of_counter,
    tag_in,
    team_tag,
)
from gateway.store.in_redis.scripts import CLAIM_NOTIFICATIONS, GATHER_NOTIFICATIONS, POST_NOTIFICATIONS

OUTBOX_MS = OUTBOX_DAYS * DAY_MS

_ASKED_EVERY = 6
"""Claims, after which every slot is asked."""


def _not_noted(_put_in: int, _dropped: int) -> None:
    """Where nothing is delivered."""


class RedisNotificationOutbox:
    """Implements `contract.NotificationOutbox`. `by_slot`: limits are in slots of their own."""

    def __init__(self, client: Router, keys: StoreKeys, by_slot: bool) -> None:
        self._client = client
        self._keys = keys
        self._by_slot = by_slot
        self._own = keys.notifications(ORGANISATION)
        self._waiting: dict[str, int] = {self._own: 0}
        """How many each outbox had when it was asked last."""
        self._claims = 0
        self._places: dict[str, str] = {}
        """Where claimed entries are."""
        self._note: Callable[[int, int], None] = _not_noted

    def counter_name(self, limit: Limit) -> str:
        return self._keys.counter(limit)

    def counter_owner(self, counter: str) -> CounterOwner:
        return owner_of_counter(counter)

    def follow(self, teams: Iterable[str], models: Iterable[str]) -> None:
        tags = [*map(team_tag, teams), *map(model_tag, models)] if self._by_slot else []
        followed = (self._own, *map(self._keys.notifications, tags))
        self._waiting = {key: self._waiting.get(key, 0) for key in followed}

    def subscribe(self, note: Callable[[int, int], None]) -> None:
        self._note = note

    def crossed(self, tag: str, put_in: int, dropped: int) -> None:
        """A settlement has put in so many in the slot of this tag."""
        self._waiting[self._keys.notifications(tag)] = 1
        self._note(put_in, dropped)

    async def claim(self, most: int, lease_ms: int) -> list[str]:
        """Slots where nothing is known to wait are asked seldom: there is one for each team."""
        every = self._claims % _ASKED_EVERY == 0
        self._claims += 1
        asked = [key for key, waiting in self._waiting.items() if every or waiting or key == self._own]
        claimed: list[str] = []
        for key in asked:
            if len(claimed) < most:
                command = CLAIM_NOTIFICATIONS.command([key], (most - len(claimed), lease_ms))
                self._waiting[key], _, *entries = await self._client.run(CLAIM_NOTIFICATIONS, key, command)
                found = [_text(entry) for entry in cast("list[bytes]", entries)]
                self._places.update(dict.fromkeys(found, key))
                claimed += found
        return claimed

    async def done(self, entry: str) -> None:
        key = self._places.pop(entry, self._own)
        await self._client.ask(key, ("ZREM", key, _bytes(entry)))

    async def defer(self, entry: str, wait_ms: int) -> None:
        key = self._places.pop(entry, self._own)
        due_ms = self._client.clock_of(key).now_ms() + wait_ms
        await self._client.ask(key, ("ZADD", key, "XX", str(due_ms), _bytes(entry)))

    async def replace(self, entry: str, by: Sequence[str]) -> None:
        key = self._places.pop(entry, self._own)
        await self._post(key, key, ("replace", entry), by)

    async def gather(self, entry: str) -> None:
        self._places.pop(entry, None)
        _, counter, begins, percent = entry.split("\n")
        # Beside the counters, where settlements put it in.
        key = self._keys.notifications(tag_in(counter)) if self._by_slot else self._own
        command = GATHER_NOTIFICATIONS.command([key, gathered_users(counter, begins)], (entry, percent, OUTBOX_MS))
        await self._client.run(GATHER_NOTIFICATIONS, key, command)

    async def note(self, attempt: str, *, delivered: bool) -> None:
        key, ask = self._past(delivered=delivered), self._client.ask
        await asyncio.gather(
            ask(key, ("LPUSH", key, attempt)),
            ask(key, ("LTRIM", key, "0", str(OUTBOX_PAST - 1))),
            ask(key, ("PEXPIRE", key, str(OUTBOX_MS))),
        )

    async def report(self, most: int) -> OutboxReport:
        waiting: list[WaitingEntry] = []
        total, ask, last = 0, self._client.ask, str(most - 1)
        for key in self._waiting:
            found = await ask(key, ("ZRANGE", key, "0", last, "WITHSCORES"))
            waiting += [
                WaitingEntry(_text(entry), int(float(due))) for entry, due in zip(found[::2], found[1::2], strict=True)
            ]
            total += await ask(key, ("ZCARD", key))
        past = [
            [_text(attempt) for attempt in await ask(key, ("LRANGE", key, "0", last))]
            for key in (self._past(delivered=True), self._past(delivered=False))
        ]
        return OutboxReport(sorted(waiting, key=lambda each: each.due_ms)[:most], total, *past)

    async def post(self, entries: Sequence[str], flag: str, keep_ms: int) -> bool:
        return await self._post(self._own, self._keys.notification_flag(flag), ("raise", keep_ms), entries)

    async def clear(self, flag: str, entries: Sequence[str]) -> bool:
        return await self._post(self._own, self._keys.notification_flag(flag), ("clear", ""), entries)

    @property
    def waiting(self) -> int:
        return sum(self._waiting.values())

    def _past(self, *, delivered: bool) -> str:
        return self._keys.notification_past("delivered" if delivered else "problems")

    async def _post(self, key: str, flag: str, condition: tuple[str, str | int], entries: Sequence[str]) -> bool:
        arguments = list(chain(condition, (OUTBOX_MAX, OUTBOX_MS), entries))
        command = POST_NOTIFICATIONS.command([key, flag], arguments)
        outcome, _, *dropped = await self._client.run(POST_NOTIFICATIONS, key, command)
        if outcome:
            self._note(len(entries) - dropped[0], dropped[0])
        return bool(outcome)


def _text(entry: bytes) -> str:
    """What is not UTF-8 is kept as it is, so that it can be taken out."""
    return entry.decode("utf-8", "surrogateescape")


def _bytes(entry: str) -> bytes:
    return entry.encode("utf-8", "surrogateescape")
