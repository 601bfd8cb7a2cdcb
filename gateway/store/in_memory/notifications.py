"""The notifications that wait, in memory: for a single gateway, and lost with it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gateway.core.buckets import Window
from gateway.core.calendar import DAY_MS
from gateway.core.clock import Clock
from gateway.core.end_users import OTHER_USERS
from gateway.core.limits import Limit, Scope
from gateway.store.contract import (
    OUTBOX_DAYS,
    OUTBOX_MAX,
    OUTBOX_PAST,
    USERS_NAMED,
    USERS_PACE_MS,
    USERS_WAIT_MS,
    CounterOwner,
    OutboxReport,
    WaitingEntry,
)

_OUTBOX_MS = OUTBOX_DAYS * DAY_MS


def _not_noted(_put_in: int, _dropped: int) -> None:
    """For a process that delivers nothing."""


class _Threshold(NamedTuple):
    """Of the end users that one limit binds, in one window."""

    counter: str
    begins_ms: int
    percent: int

    @property
    def entry(self) -> str:
        return "\n".join(("users", self.counter, str(self.begins_ms), str(self.percent)))


class _Gathered:
    """The end users that have crossed a threshold since they were gathered last."""

    def __init__(self) -> None:
        self.users = 0
        self.named: list[str] = []
        self.gathered_ms = -USERS_PACE_MS


class InMemoryNotificationOutbox:
    """Implements `contract.NotificationOutbox`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, int] = {}
        """When each entry is due."""
        self._flags: dict[str, int] = {}
        """The end of each flag."""
        self._gathered: dict[_Threshold, _Gathered] = {}
        self._delivered: deque[str] = deque(maxlen=OUTBOX_PAST)
        self._problems: deque[str] = deque(maxlen=OUTBOX_PAST)
        self._note: Callable[[int, int], None] = _not_noted

    def counter_name(self, limit: Limit) -> str:
        return json.dumps(limit.identity)

    def counter_owner(self, counter: str) -> CounterOwner:
        try:
            _, scope, _, subject, *_ = json.loads(counter)
        except (ValueError, TypeError):
            return CounterOwner("", "")
        return CounterOwner(scope, subject)

    def follow(self, teams: Iterable[str], models: Iterable[str]) -> None:
        """There is one slot."""

    def subscribe(self, note: Callable[[int, int], None]) -> None:
        self._note = note

    def note_crossings(self, limit: Limit, counter: Window, now_ms: int) -> None:
        """Add an entry for the thresholds that this quota, with its grants, has crossed now and not before."""
        for percent in limit.notify_at:
            if percent > counter.noted_percent and counter.used * 100 >= counter.capacity * percent:
                counter.noted_percent = percent
                if limit.scope is Scope.USER:
                    self._note_user(limit, _Threshold(self.counter_name(limit.for_user("")), counter.start_ms, percent))
                else:
                    figures = (counter.start_ms, percent, counter.used, now_ms)
                    self._put_in(["\n".join(("quota", self.counter_name(limit), *map(str, figures)))])

    def _note_user(self, limit: Limit, threshold: _Threshold) -> None:
        if limit.subject == OTHER_USERS:
            return
        gathered = self._gathered.setdefault(threshold, _Gathered())
        if not gathered.users:
            now_ms = self._clock.now_ms()
            self._put_in([threshold.entry], max(now_ms + USERS_WAIT_MS, gathered.gathered_ms + USERS_PACE_MS))
            if threshold.entry not in self._due:
                return
        gathered.users += 1
        if len(gathered.named) < USERS_NAMED:
            gathered.named.append(" ".join(limit.subject.splitlines()))

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

    async def gather(self, entry: str) -> None:
        if self._due.pop(entry, None) is None:
            return
        _, counter, begins, percent = entry.split("\n")
        now_ms, threshold = self._clock.now_ms(), _Threshold(counter, int(begins), int(percent))
        kept = {each: one for each, one in self._gathered.items() if one.users or one.gathered_ms > now_ms - _OUTBOX_MS}
        found, self._gathered = self._gathered[threshold], kept
        kept[threshold] = emptied = _Gathered()
        emptied.gathered_ms = now_ms
        figures = (counter, begins, percent, str(now_ms), str(found.users))
        self._put_in(["\n".join(("crossed", *figures, *found.named))])

    async def note(self, attempt: str, *, delivered: bool) -> None:
        (self._delivered if delivered else self._problems).appendleft(attempt)

    async def report(self, most: int) -> OutboxReport:
        waiting = sorted([WaitingEntry(*each) for each in self._due.items()], key=lambda each: each.due_ms)
        return OutboxReport(waiting[:most], len(waiting), list(self._delivered)[:most], list(self._problems)[:most])

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

    def _put_in(self, entries: Sequence[str], due_ms: int | None = None) -> None:
        taken = entries[: max(0, OUTBOX_MAX - len(self._due))]
        self._due.update(dict.fromkeys(taken, self._clock.now_ms() if due_ms is None else due_ms))
        self._note(len(taken), len(entries) - len(taken))
