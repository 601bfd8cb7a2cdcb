"""How healthy the upstreams are, as far as requests and checks have shown.

Each model of each upstream has a `Circuit`, which says what share of its usual requests it may get:

    closed ──failures──► open ──rest is over──► half open ──a probe is answered──► recovering ──► closed
      all                 none ◄──the probe fails──  one at a time                  10 % growing to all

A circuit opens after FAILURES_IN_A_ROW, or where half of LEAST_IN_WINDOW requests or more failed in WINDOW_S. It
rests, each time longer. Then one request at a time is let through as a probe; an answer begins the recovery. Where
a model has no other route, the router still sends an open circuit a trickle of requests (`core/routing.py`); one of
these that is answered begins the recovery as a probe does, and one that fails changes nothing.

An `Attempt` is one request to one target, from before it is sent until its answer has ended. What it says of its
circuit counts only while the circuit is in the same turn: opening begins a new turn, so that slow failures of
requests sent before do not open it again.

Beside the circuits, a configured check can find a whole upstream down; then none of its models has a share.

Pure: times are monotonic seconds of the caller's clock, and each change of a state is reported to a callback.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from gateway.core.errors import UpstreamError
from gateway.core.snapshot import Target, Upstream

FAILURES_IN_A_ROW = 5
"""What opens it, also while it recovers: with fewer, a server that fails one request in five would hardly ever be
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
"""A Retry-After beyond this is not believed: quotas are raised and servers fixed before their time."""

DOWN_AFTER_CHECKS = 3
UP_AFTER_CHECKS = 2
"""So many checks in a row must agree before they are believed."""


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    RECOVERING = "recovering"


class Circuit:
    """One model of one upstream. `begin` gives each attempt a turn; what one of an earlier turn says is out of date."""

    def __init__(self) -> None:
        self._state = CircuitState.CLOSED
        self._turn = 0
        self._failures = 0
        self._window = _FailureWindow()
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
        if self.is_cooling_down(now):
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

    def is_cooling_down(self, now: float) -> bool:
        """Whether the upstream asked for time without requests."""
        return now < self._cool_at

    def wait_s(self, now: float) -> float:
        """Seconds until it may be asked, as far as that is known; 0 if it may now."""
        rest = self._rested_at - now if self._state is CircuitState.OPEN else 0.0
        if self._is_probed and rest <= 0:
            rest = 1.0  # The probe's answer is awaited.
        return max(0.0, rest, self._cool_at - now)

    def begin(self, now: float) -> int:
        """An attempt begins; returns its turn."""
        self._is_probed = self.state(now) in {CircuitState.OPEN, CircuitState.HALF_OPEN}
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
        state = self.state(now)
        if state is CircuitState.OPEN:
            self._is_probed = False
            return
        self._failures += 1
        self._window.add(now, failed=True)
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
        """It is healthy again: its share grows from here."""
        self._state = CircuitState.RECOVERING
        self._recovered_at = now + RECOVERY_S
        self._failures = 0
        self._window = _FailureWindow()
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


class _FailureWindow:
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


class Outcome(StrEnum):
    """What an attempt says of its upstream. SUCCEEDED includes that it refused a caller's mistake; BUSY is too many
    requests for now; NEUTRAL says nothing, as when the client left."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BUSY = "busy"
    NEUTRAL = "neutral"


def outcome_of_status(status: int) -> Outcome:
    if status == 429:
        return Outcome.BUSY
    # 401 and 403 reject the gateway's own credentials: every request there would fail.
    return Outcome.FAILED if status >= 500 or status in {401, 403} else Outcome.SUCCEEDED


def outcome_of_error(error: UpstreamError) -> Outcome:
    """A request that found no connection free was never sent, and one abandoned was left by us."""
    return Outcome.NEUTRAL if error.outcome in {"no_connection_free", "abandoned"} else Outcome.FAILED


class Change(msgspec.Struct, frozen=True):
    """A step from one state to another. `model` is empty where checks found the whole upstream `up` or `down`."""

    upstream: str
    model: str
    before: str
    after: str


class Candidate(NamedTuple):
    """A target, the share of its usual requests that it may get, and what its upstream has in flight."""

    target: Target
    share: float
    in_flight: int


class ModelStatus(msgspec.Struct, frozen=True):
    model: str
    state: CircuitState
    share: float
    wait_s: float


class UpstreamStatus(msgspec.Struct, frozen=True):
    """`up` unless checks say otherwise or none of its models may be asked."""

    name: str
    up: bool
    in_flight: int
    models: tuple[ModelStatus, ...]


class Attempt:
    """Whoever began it ends it, whatever happens; only the first end counts."""

    __slots__ = ("_has_ended", "_model", "_turn")

    def __init__(self, model_health: _ModelHealth, turn: int) -> None:
        self._model = model_health
        self._turn = turn
        self._has_ended = False

    def answered(self, now: float) -> None:
        """The first byte of an answer came that is no failure: a probe has succeeded as soon as this."""
        self._model.circuit.answered(self._turn, now)
        self._model.report(now)

    def ended(self, outcome: Outcome, now: float, cool_down_s: float = 0.0) -> None:
        """`cool_down_s` is for how long the upstream asked to be left alone, 0 if it did not."""
        if self._has_ended:
            return
        self._has_ended = True
        self._model.upstream_health.in_flight -= 1
        circuit, turn = self._model.circuit, self._turn
        match outcome:
            case Outcome.SUCCEEDED:
                circuit.succeeded(turn, now)
            case Outcome.FAILED:
                circuit.failed(turn, now)
            case Outcome.BUSY:
                circuit.answered(turn, now)
            case Outcome.NEUTRAL:
                circuit.left(turn)
        if cool_down_s > 0:
            circuit.cool_down(cool_down_s, now)
        self._model.report(now)


class Health:
    """Every upstream by its settings, so that one whose settings change starts again as healthy. `notice` gets each
    change."""

    def __init__(self, notice: Callable[[Change], None]) -> None:
        self._notice = notice
        self._upstreams: dict[Upstream, _UpstreamHealth] = {}

    def candidate(self, target: Target, now: float) -> Candidate:
        return Candidate(target, self.share(target, now), self.in_flight(target.upstream))

    def share(self, target: Target, now: float) -> float:
        """The part of its usual requests that the target may get: 0 none, 1 all."""
        upstream_health = self._upstreams.get(target.upstream)
        if upstream_health is None:
            return 1.0
        model_health = upstream_health.models.get(target.model)
        return 0.0 if upstream_health.is_down else model_health.circuit.share(now) if model_health is not None else 1.0

    def in_flight(self, upstream: Upstream) -> int:
        upstream_health = self._upstreams.get(upstream)
        return upstream_health.in_flight if upstream_health is not None else 0

    def begin(self, target: Target, now: float) -> Attempt:
        upstream_health = self._health_of(target.upstream)
        model_health = upstream_health.models.get(target.model)
        if model_health is None:
            model_health = upstream_health.models[target.model] = _ModelHealth(
                upstream_health, target.model, self._notice
            )
        upstream_health.in_flight += 1
        attempt = Attempt(model_health, model_health.circuit.begin(now))
        model_health.report(now)
        return attempt

    def wait_s(self, targets: Iterable[Target], now: float) -> float:
        """Seconds until the first of these may be asked, as far as that is known."""
        return min((self._wait_s(target, now) for target in targets), default=0.0)

    def least_bad(self, targets: Iterable[Target], now: float) -> Target | None:
        """Of targets without a share the one that may be asked soonest; None where every one asked for time."""
        waiting = [target for target in targets if not self._is_cooling_down(target, now)]
        return min(waiting, key=lambda target: (self._wait_s(target, now), target.priority), default=None)

    def checked(self, upstream: Upstream, is_healthy: bool, now: float) -> None:
        """What a check found. The circuits of an upstream that is up again recover as slowly as after a probe."""
        upstream_health = self._health_of(upstream)
        if not upstream_health.check(is_healthy):
            return
        before, after = ("down", "up") if is_healthy else ("up", "down")
        self._notice(Change(upstream.name, "", before, after))
        for model_health in upstream_health.models.values():
            if is_healthy:
                model_health.circuit.recover(now)
                model_health.report(now)

    def unchecked(self, upstream: Upstream) -> None:
        """No more checks come: what the last ones found is forgotten."""
        upstream_health = self._upstreams.get(upstream)
        if upstream_health is not None:
            upstream_health.is_down = False

    def keep(self, upstreams: Iterable[Upstream]) -> None:
        """Forget every other upstream, but for those that still have attempts."""
        kept = set(upstreams)
        self._upstreams = {
            key: upstream_health
            for key, upstream_health in self._upstreams.items()
            if key in kept or upstream_health.in_flight
        }

    def view(self, upstreams: Iterable[Upstream], now: float) -> list[UpstreamStatus]:
        known = self._upstreams
        return [
            known[each].view(now) if each in known else UpstreamStatus(each.name, up=True, in_flight=0, models=())
            for each in upstreams
        ]

    def _health_of(self, upstream: Upstream) -> _UpstreamHealth:
        upstream_health = self._upstreams.get(upstream)
        if upstream_health is None:
            upstream_health = self._upstreams[upstream] = _UpstreamHealth(upstream.name)
        return upstream_health

    def _wait_s(self, target: Target, now: float) -> float:
        circuit = self._circuit(target)
        wait_s = circuit.wait_s(now) if circuit is not None else 0.0
        upstream_health = self._upstreams.get(target.upstream)
        return max(wait_s, 1.0) if upstream_health is not None and upstream_health.is_down else wait_s

    def _is_cooling_down(self, target: Target, now: float) -> bool:
        circuit = self._circuit(target)
        return circuit is not None and circuit.is_cooling_down(now)

    def _circuit(self, target: Target) -> Circuit | None:
        upstream_health = self._upstreams.get(target.upstream)
        model_health = upstream_health.models.get(target.model) if upstream_health is not None else None
        return model_health.circuit if model_health is not None else None


class _UpstreamHealth:
    """One upstream: its models, its checks, and how many attempts it has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.models: dict[str, _ModelHealth] = {}
        self.in_flight = 0
        self.is_down = False
        self._against = 0

    def check(self, is_healthy: bool) -> bool:
        """Whether this check changes what is believed: enough in a row say so."""
        if is_healthy != self.is_down:
            self._against = 0
            return False
        self._against += 1
        if self._against < (UP_AFTER_CHECKS if is_healthy else DOWN_AFTER_CHECKS):
            return False
        self._against = 0
        self.is_down = not is_healthy
        return True

    def view(self, now: float) -> UpstreamStatus:
        models = tuple([model_health.view(now) for model_health in self.models.values()])
        asked = not models or any(each.state is not CircuitState.OPEN for each in models)
        return UpstreamStatus(self.name, asked and not self.is_down, self.in_flight, models)


class _ModelHealth:
    """One model of one upstream: its circuit, and the state of it that was reported last."""

    def __init__(self, upstream_health: _UpstreamHealth, model: str, notice: Callable[[Change], None]) -> None:
        self.upstream_health = upstream_health
        self.circuit = Circuit()
        self._model = model
        self._notice = notice
        self._reported = CircuitState.CLOSED

    def report(self, now: float) -> None:
        state = self.circuit.state(now)
        if state is not self._reported:
            change = Change(self.upstream_health.name, self._model, self._reported, state)
            self._reported = state
            self._notice(change)

    def view(self, now: float) -> ModelStatus:
        circuit = self.circuit
        return ModelStatus(self._model, circuit.state(now), circuit.share(now), circuit.wait_s(now))
