"""Whether one model of one upstream may be asked: failures open its circuit, probes close it again.

closed → open (it failed) → half-open (it has rested: one probe at a time) → recovering (the probe was
answered: a growing share) → closed. A pure machine; times are monotonic seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

FAILURES_IN_A_ROW = 5
"""What opens it, also anew while it recovers: with fewer, a server that fails one request in five would hardly ever be
asked. Envoy's outlier detection has the same default."""
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
"""A Retry-After beyond this is not believed: quotas are raised and servers mended before their time."""


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    RECOVERING = "recovering"


class Circuit:
    """`begin` gives each attempt a turn; what an attempt of an earlier turn says is out of date."""

    def __init__(self) -> None:
        self._state = CircuitState.CLOSED
        self._turn = 0
        self._failures = 0
        self._window = _Window()
        self._rests = 0
        self._rested_at = 0.0
        self._recovered_at = 0.0
        self._cool_at = 0.0
        self._is_probed = False

    def state(self, now: float) -> CircuitState:
        if self._state is CircuitState.OPEN and now >= self._rested_at:
            return CircuitState.HALF_OPEN
        if self._state is CircuitState.RECOVERING and now >= self._recovered_at:
            return CircuitState.CLOSED
        return self._state

    def share(self, now: float) -> float:
        """The part of its usual requests that it may get: 0 none, 1 all."""
        if now < self._cool_at:
            return 0.0
        match self.state(now):
            case CircuitState.OPEN:
                return 0.0
            case CircuitState.HALF_OPEN:
                return 0.0 if self._is_probed else 1.0
            case CircuitState.RECOVERING:
                return 1.0 - (1.0 - FIRST_SHARE) * (self._recovered_at - now) / RECOVERY_S
            case CircuitState.CLOSED:
                return 1.0

    def wait_s(self, now: float) -> float:
        """Seconds until it may be asked, as far as that is known; 0 if it may now."""
        rest = self._rested_at - now if self._state is CircuitState.OPEN else 0.0
        if self._is_probed and rest <= 0:
            rest = 1.0  # The probe's answer is awaited.
        return max(0.0, rest, self._cool_at - now)

    def begin(self, now: float) -> int:
        """An attempt begins; returns its turn. To be called only where there is a share."""
        self._is_probed = self.state(now) is CircuitState.HALF_OPEN
        return self._turn

    def answered(self, turn: int, now: float) -> None:
        """The first byte of an answer came that is no failure."""
        if turn == self._turn and self._is_probed:
            self.recover(now)

    def succeeded(self, turn: int, now: float) -> None:
        if turn != self._turn:
            return
        self.answered(turn, now)
        self._failures = 0
        self._window.add(now, failed=False)

    def failed(self, turn: int, now: float) -> None:
        if turn != self._turn:
            return
        self._failures += 1
        self._window.add(now, failed=True)
        state = self.state(now)
        if state is CircuitState.CLOSED:
            self._rests = 0
        if self._has_enough(state, now):
            self._open(now)

    def left(self, turn: int) -> None:
        """The attempt ended and says nothing about the upstream: its client left."""
        if turn == self._turn:
            self._is_probed = False

    def cool_down(self, seconds: float, now: float) -> None:
        """The upstream asked to be left alone for a while."""
        self._cool_at = max(self._cool_at, now + min(seconds, LONGEST_COOL_DOWN_S))

    def recover(self, now: float) -> None:
        """It is well again: its share grows from here."""
        self._state = CircuitState.RECOVERING
        self._recovered_at = now + RECOVERY_S
        self._failures = 0
        self._window = _Window()
        self._is_probed = False

    def _has_enough(self, state: CircuitState, now: float) -> bool:
        if state is CircuitState.HALF_OPEN:
            return True
        return self._failures >= FAILURES_IN_A_ROW or self._window.rate(now) >= FAILURE_RATE

    def _open(self, now: float) -> None:
        self._state = CircuitState.OPEN
        self._rested_at = now + min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(self._rests, 8))
        self._rests += 1
        self._turn += 1
        self._is_probed = False


class _Window:
    """How many attempts ended in the last WINDOW_S seconds, and how many of them failed."""

    def __init__(self) -> None:
        self._slots: deque[list[float]] = deque()

    def add(self, now: float, *, failed: bool) -> None:
        if not self._slots or now >= self._slots[-1][0] + WINDOW_S / 6:
            self._slots.append([now, 0, 0])
        slot = self._slots[-1]
        slot[1] += 1
        slot[2] += failed

    def rate(self, now: float) -> float:
        """The part that failed; 0 while there are too few to tell."""
        while self._slots and self._slots[0][0] <= now - WINDOW_S:
            self._slots.popleft()
        ended = sum(slot[1] for slot in self._slots)
        return sum(slot[2] for slot in self._slots) / ended if ended >= LEAST_IN_WINDOW else 0.0
