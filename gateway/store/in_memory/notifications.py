"""The notifications that wait, in memory: for one gateway, and lost with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from gateway.core.buckets import Window
from gateway.core.clock import Clock
from gateway.core.limits import Limit
from gateway.store.contract import OUTBOX_MAX


def _not_noted(_put_in: int, _dropped: int) -> None:
    """Where nothing is delivered."""


class InMemoryNotificationOutbox:
    """Implements `contract.NotificationOutbox`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, int] = {}
        """When each entry is due."""
        self._flags: dict[str, int] = {}
        """Until when each is raised."""
        self._note: Callable[[int, int], None] = _not_noted

    def counter_name(self, limit: Limit) -> str:
        return json.dumps(limit.identity)

    def follow(self, teams: Iterable[str], models: Iterable[str]) -> None:
        """There is one slot."""

    def subscribe(self, note: Callable[[int, int], None]) -> None:
        self._note = note

    def note_crossings(self, limit: Limit, counter: Window, now_ms: int) -> None:
        """Put in which thresholds this quota, with what grants add to it, has crossed and had not crossed before."""
        for percent in limit.notify_at:
            if percent > counter.noted_percent and counter.used * 100 >= counter.capacity * percent:
                counter.noted_percent = percent
                figures = (counter.start_ms, percent, counter.used, now_ms)
                self._put_in(["\n".join(("quota", self.counter_name(limit), *map(str, figures)))])

    async def claim(self, most: int, lease_ms: int) -> list[str]:
        now_ms = self._clock.now_ms()
        claimed = [entry for entry, due_ms in self._due.items() if due_ms <= now_ms][:most]
        self._due.update(dict.fromkeys(claimed, now_ms + lease_ms))
        return claimed

    async def done(self, entry: str) -> None:
        self._due.pop(entry, None)

    async def defer(self, entry: str, wait_ms: int) -> None:
        if entry in self._due:
            self._due[entry] = self._clock.now_ms() + wait_ms

    async def replace(self, entry: str, by: Sequence[str]) -> None:
        if self._due.pop(entry, None) is not None:
            self._put_in(by)

    async def post(self, entries: Sequence[str], flag: str, keep_ms: int) -> bool:
        is_raised = self._is_raised(flag)
        self._flags[flag] = self._clock.now_ms() + keep_ms
        if not is_raised:
            self._put_in(entries)
        return not is_raised

    async def clear(self, flag: str, entries: Sequence[str]) -> bool:
        is_raised = self._is_raised(flag)
        self._flags.pop(flag, None)
        if is_raised:
            self._put_in(entries)
        return is_raised

    @property
    def waiting(self) -> int:
        return len(self._due)

    def _is_raised(self, flag: str) -> bool:
        now_ms = self._clock.now_ms()
        self._flags = {name: until_ms for name, until_ms in self._flags.items() if until_ms > now_ms}
        return flag in self._flags

    def _put_in(self, entries: Sequence[str]) -> None:
        taken = entries[: max(0, OUTBOX_MAX - len(self._due))]
        self._due.update(dict.fromkeys(taken, self._clock.now_ms()))
        self._note(len(taken), len(entries) - len(taken))
