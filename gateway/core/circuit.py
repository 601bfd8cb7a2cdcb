"""The circuit of one model of one upstream: what share of its usual requests it may get.

    closed ──failures──► open ──pause is over──► half open ──a probe succeeds──► recovering ──► closed
      all                 none ◄──the probe fails──  one at a time                 10 % growing to all

A circuit opens after FAILURES_IN_A_ROW, or if half of at least LEAST_IN_WINDOW requests failed in WINDOW_S. It then
pauses, longer each time. After the pause one request at a time passes as a probe, and an answer to it begins the
recovery. If a model has no other route, the router still sends an open circuit a trickle of requests
(`core/routing.py`). An answer to one of these begins the recovery, too; a failure of one changes nothing.

A dead server fails every caller. A server that answers with an error may do so because of the request. So an error that
an answer reports counts for the key that got it: while only one key gets errors, the circuit opens for this key only.
It opens for all keys once at least OTHERS_AT_LEAST of the failures come from other keys than the one with most of them.
A failure without an answer (refused, silent, broken) counts for all keys at once. In the same way a Retry-After
applies only to the team that got it.

The outcome of an attempt counts only in the turn in which the attempt began. Opening begins a new turn, so that slow
failures of requests that were sent before do not open the circuit again.

Pure: times are monotonic seconds of the caller's clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from gateway.core.snapshot import Caller

FAILURES_IN_A_ROW = 5
"""What opens it, also while it recovers: with fewer, a server that fails one request in five would hardly ever be
asked. Envoy's outlier detection has the same default."""
OTHERS_AT_LEAST = 2
"""One failure of another key can be by chance, while one key alone keeps failing; a second one is hardly."""
FAILURE_RATE = 0.5
WINDOW_S = 30.0
LEAST_IN_WINDOW = 20
"""The rate counts over this window, and only once so many requests have ended in it."""
FIRST_REST_S = 5.0
LONGEST_REST_S = 60.0
"""How long an open circuit rests: doubled each time that a probe fails, up to the longest."""
RECOVERY_S = 30.0
FIRST_SHARE = 0.1
"""A recovering server gets this share of what it had, growing to all of it over RECOVERY_S."""
LONGEST_COOL_DOWN_S = 300.0
"""A Retry-After beyond this is not believed: quotas are raised and servers fixed before their time."""

KEYS_IN_SLOT = 64
"""How many keys a sixth of the window distinguishes; failures of further ones count for all keys."""
TEAMS_COOLING = 256
"""Teams that a target is cooling down for, at most; the one with the shortest time left goes first."""
REASONS_KEPT = 20
"""Failures whose reason is kept, to say why a circuit opened."""

ANYONE = Caller("", "", "")
"""No key in particular: what happens counts for all keys."""
EVERYONE = ""
"""In place of a key's id: every key."""


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    RECOVERING = "recovering"


class Opening(msgspec.Struct, frozen=True):
    """Why and when a circuit opened: how many of the last failures had which reason. `key` is the id of the key that it
    is open for alone; empty: for all keys."""

    at: float
    reasons: Mapping[str, int]
    key: str = EVERYONE


class Circuit:
    """One model of one upstream. `begin` gives each attempt a turn; what one of an earlier turn says is out of date."""

    def __init__(self) -> None:
        self.is_closed = True
        """Whether it has not opened, or a request has succeeded since its recovery was over. Then nothing that succeeds
        changes it: nearly every request asks this alone."""

        self.opening: Opening | None = None
        """When it opened last."""

        self._state = CircuitState.CLOSED
        self._key = EVERYONE
        """Whom the state binds, unless it is closed: one key, or everyone."""

        self.turn = 0
        """Of the attempts that begin now."""

        self._row: Counter[str] = Counter()
        """Failures since the last success, by key; those of no key in particular under EVERYONE."""

        self._window = _FailureWindow()
        self._last: deque[_LastFailure] = deque(maxlen=REASONS_KEPT)
        self._rests = 0
        self._rested_at = 0.0
        self._recovered_at = 0.0
        self._cooling: dict[str, float] = {}
        self._is_probed = False

    def state(self, now: float) -> CircuitState:
        if self._state is CircuitState.OPEN and now >= self._rested_at:
            return CircuitState.HALF_OPEN
        if self._state is CircuitState.RECOVERING and now >= self._recovered_at:
            return CircuitState.CLOSED
        return self._state

    def key(self, now: float) -> str:
        """The only key that the state binds; EVERYONE where there is no such key."""
        return EVERYONE if self.state(now) is CircuitState.CLOSED else self._key

    def is_open_for_all(self, now: float) -> bool:
        """Whether no key may ask: also where the only key that it is open for is the only one that asked lately."""
        is_bound = self._key == EVERYONE or not self._window.has_others(self._key, now)
        return self.state(now) is CircuitState.OPEN and is_bound

    def share(self, now: float, caller: Caller = ANYONE) -> float:
        """The part of the caller's usual requests that it may get: 0 none, 1 all."""
        if self._cooling and self.is_cooling_down(now, caller):
            return 0.0
        if self.is_closed or not self._binds(caller):
            return 1.0
        match self.state(now):
            case CircuitState.OPEN:
                return 0.0
            case CircuitState.HALF_OPEN:
                return 0.0 if self._is_probed else 1.0
            case CircuitState.RECOVERING:
                return 1.0 - (1.0 - FIRST_SHARE) * (self._recovered_at - now) / RECOVERY_S
            case CircuitState.CLOSED:
                return 1.0

    def is_cooling_down(self, now: float, caller: Caller) -> bool:
        """Whether the upstream asked for time without requests of the caller's team."""
        return bool(self._cooling) and now < self._cooling.get(caller.team, 0.0)

    def cooling(self, now: float) -> dict[str, float]:
        """The teams whose requests it asked to be spared, and for how many more seconds."""
        return {team: until - now for team, until in self._cooling.items() if until > now}

    def wait_s(self, now: float, caller: Caller = ANYONE) -> float:
        """Seconds until the caller may ask, as far as that is known; 0 if it may now."""
        cooling_s = self._cooling.get(caller.team, 0.0) - now
        if not self._binds(caller):
            return max(0.0, cooling_s)
        rest = self._rested_at - now if self._state is CircuitState.OPEN else 0.0
        if self._is_probed and rest <= 0:
            rest = 1.0  # The probe's answer is awaited.
        return max(0.0, rest, cooling_s)

    def begin(self, now: float, caller: Caller = ANYONE) -> int:
        """An attempt begins; returns its turn. Where the circuit `is_closed`, that is all."""
        if not self.is_closed and self._binds(caller):
            self._is_probed = self.state(now) in {CircuitState.OPEN, CircuitState.HALF_OPEN}
        return self.turn

    def answered(self, turn: int, now: float, caller: Caller = ANYONE) -> None:
        """The first byte of an answer came that is no failure."""
        if self._is_probed and turn == self.turn and self._binds(caller):
            self.recover(now)

    def succeeded(self, turn: int, now: float, caller: Caller = ANYONE) -> None:
        if turn != self.turn:
            return
        if not self.is_closed:
            self.answered(turn, now, caller)
            if self.state(now) is CircuitState.CLOSED:
                self.is_closed, self._state = True, CircuitState.CLOSED
        if self._row:
            self._row.clear()
        self._window.ended(now, caller.key_id)

    def failed(
        self, turn: int, now: float, caller: Caller = ANYONE, reason: str = "", *, for_everyone: bool = False
    ) -> None:
        """The attempt failed: as any other would have, or, unless `for_everyone`, perhaps for what the caller asked."""
        if turn != self.turn:
            return
        state, is_bound = self.state(now), self._binds(caller)
        if state is CircuitState.OPEN and is_bound:
            self._is_probed = False
            return
        key = EVERYONE if for_everyone else caller.key_id
        self._row[key] += 1
        self._window.ended(now, key).failed += 1
        self._last.append(_LastFailure(now, caller.key_id, reason))
        if state is CircuitState.CLOSED:
            self._rests = 0
        failing = self._key if state is CircuitState.HALF_OPEN and is_bound else self._failing(now)
        if failing is not None:
            is_second = state in {CircuitState.OPEN, CircuitState.HALF_OPEN} and failing != self._key
            self._open(now, EVERYONE if is_second else failing)

    def left(self, turn: int, caller: Caller = ANYONE) -> None:
        """The attempt ended and says nothing about the upstream: its client left."""
        if turn == self.turn and self._binds(caller):
            self._is_probed = False

    def cool_down(self, seconds: float, now: float, caller: Caller = ANYONE) -> None:
        """The upstream asked to be spared the requests of the caller's team for a while."""
        until = max(self._cooling.get(caller.team, 0.0), now + min(seconds, LONGEST_COOL_DOWN_S))
        self._cooling[caller.team] = until
        if len(self._cooling) > TEAMS_COOLING:
            del self._cooling[min(self._cooling, key=self._cooling.__getitem__)]

    def recover(self, now: float) -> None:
        """It is healthy again: its share grows from here."""
        self.is_closed = False
        self._state = CircuitState.RECOVERING
        self._recovered_at = now + RECOVERY_S
        self._row.clear()
        self._window = _FailureWindow()
        self._last.clear()
        self._is_probed = False

    def _binds(self, caller: Caller) -> bool:
        return self.is_closed or self._key in (EVERYONE, caller.key_id)

    def _failing(self, now: float) -> str | None:
        """The key for which enough has failed, EVERYONE, or None where it is not enough for either."""
        total = self._row.total()
        if total >= FAILURES_IN_A_ROW:
            key, most = _most(self._row)
            if total - most >= OTHERS_AT_LEAST:
                return EVERYONE
            if most >= FAILURES_IN_A_ROW:
                return key
        return self._window.failing(now)

    def _open(self, now: float, key: str) -> None:
        if key != self._key:
            self._rests = 0
        last = [each for each in self._last if key in (EVERYONE, each.key)]
        reasons = Counter(each.reason for each in last if each.reason and each.at > now - WINDOW_S)
        self.opening = Opening(now, dict(reasons.most_common()), key)
        self.is_closed = False
        self._state = CircuitState.OPEN
        self._key = key
        self._rested_at = now + min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(self._rests, 8))
        self._rests += 1
        self.turn += 1
        self._is_probed = False
        if key == EVERYONE:
            self._row.clear()  # It is open, whichever key fails next.


class _LastFailure(NamedTuple):
    at: float
    key: str
    reason: str


class _Count(msgspec.Struct):
    ended: int = 0
    failed: int = 0


class _FailureWindow:
    """How many attempts ended in the last WINDOW_S seconds, and how many of them failed, by key."""

    def __init__(self) -> None:
        self._slots: deque[tuple[float, dict[str, _Count]]] = deque()
        self._newest: dict[str, _Count] = {}
        self._newest_until = -math.inf

    def ended(self, now: float, key: str) -> _Count:
        """Count an attempt that has ended. What it counts in takes the failure, too, if it is one."""
        if now >= self._newest_until:
            self._newest, self._newest_until = {}, now + WINDOW_S / 6
            self._slots.append((now, self._newest))
            self._forget(now)
        count = self._newest.get(key)
        if count is None:
            key = key if len(self._newest) < KEYS_IN_SLOT else EVERYONE
            count = self._newest.setdefault(key, _Count())
        count.ended += 1
        return count

    def has_others(self, key: str, now: float) -> bool:
        """Whether an attempt of another key has ended."""
        self._forget(now)
        return any(other not in (EVERYONE, key) for _, counts in self._slots for other in counts)

    def failing(self, now: float) -> str | None:
        """The key whose attempts fail at FAILURE_RATE, EVERYONE where the others do so without it, or None; also while
        there are too few to tell."""
        self._forget(now)
        ended: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for _, counts in self._slots:
            for key, count in counts.items():
                ended[key] += count.ended
                failed[key] += count.failed
        if ended.total() < LEAST_IN_WINDOW or failed.total() < FAILURE_RATE * ended.total():
            return None
        key, most = _most(failed)
        others = failed.total() - most
        others_ended = ended.total() - (ended[key] if most else 0)
        return EVERYONE if others >= max(OTHERS_AT_LEAST, FAILURE_RATE * others_ended) else key

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] <= now - WINDOW_S:
            self._slots.popleft()


def _most(failures: Counter[str]) -> tuple[str, int]:
    """The key that has most of the failures, and how many; what counts for all keys is of none."""
    ranked = ((key, number) for key, number in failures.items() if key != EVERYONE)
    return max(ranked, key=lambda each: each[1], default=(EVERYONE, 0))
