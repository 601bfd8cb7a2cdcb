"""The health of the upstreams, from the outcomes of requests and of checks.

Each model of each upstream has a `Circuit` (`core/circuit.py`), which says what share of its usual requests it may get.
An `Attempt` is one request to one target, from before it is sent until its answer has ended; its `Outcome` feeds the
circuit. A configured health check can also find a whole upstream down: then none of its models has a share.

Pure: times are monotonic seconds of the caller's clock, and each change of a state is reported to a callback.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from gateway.core.circuit import ANYONE, EVERYONE, Circuit, CircuitState, Opening
from gateway.core.errors import UpstreamAuthFailed, UpstreamError
from gateway.core.refusals import Fault
from gateway.core.snapshot import Caller, Target, Upstream

DOWN_AFTER_CHECKS = 3
UP_AFTER_CHECKS = 2
"""This many checks in a row must agree before the state changes."""


class Outcome(StrEnum):
    """What an attempt says about its upstream. SUCCEEDED includes a refusal of what the caller may not ask; FAILED: no
    complete answer came; ERROR: the answer was an error, by its status or an event; BUSY: too many requests for now;
    NEUTRAL: nothing, for example because the client left."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERROR = "error"
    BUSY = "busy"
    NEUTRAL = "neutral"


# Slow to reach through their classes in Python 3.11.
_SUCCEEDED, _FAILED, _ERROR, _BUSY, _NEUTRAL = Outcome
_CALLER = Fault.CALLER


def outcome_of_answer(status: int, fault: Fault | None) -> Outcome:
    """`fault` is that of the answer's failure, None if it has none."""
    if fault is None or fault is _CALLER:
        return _SUCCEEDED
    if status == 429:
        return _BUSY
    # A status that says little, as 408, is no reason to leave the upstream; an error inside a 200 is.
    return _SUCCEEDED if fault is Fault.UNKNOWN and status >= 400 else _ERROR


def outcome_of_error(error: UpstreamError) -> Outcome:
    """A request that found no free connection was never sent, and an abandoned one was ended by the gateway."""
    return _NEUTRAL if error.outcome in {"no_connection_free", "abandoned"} else _FAILED


class Change(msgspec.Struct, frozen=True):
    """A step from one state to another. `model` is empty where checks found the whole upstream `up` or `down`;
    `opening` says why a circuit opened, `failed_checks` how often each reason failed a check."""

    upstream: str
    model: str
    before: str
    after: str
    opening: Opening | None = None
    failed_checks: Mapping[str, int] = {}


class Candidate(NamedTuple):
    """A target, the share of its usual requests that it may get, and what its upstream has in flight."""

    target: Target
    share: float
    in_flight: int


class ModelStatus(msgspec.Struct, frozen=True):
    model: str
    state: CircuitState
    share: float
    """Of the usual requests; of those of `key`, where there is one."""
    wait_s: float
    key: str = EVERYONE
    """The id of the only key that the state binds."""
    opening: Opening | None = None
    """When it opened last."""
    cooling: Mapping[str, float] = {}
    """The teams that are to send nothing, and for how many seconds."""


class UpstreamStatus(msgspec.Struct, frozen=True):
    """`up` unless checks say otherwise or none of its models may be asked. `failed_checks` are the last reasons, each
    with its number, while checks say so."""

    name: str
    up: bool
    in_flight: int
    models: tuple[ModelStatus, ...]
    failed_checks: Mapping[str, int] = {}


class Attempt(msgspec.Struct, eq=False):
    """The caller that began it ends it in every case; only the first end counts."""

    _model: _ModelHealth
    _caller: Caller
    _turn: int
    _has_ended: bool = False

    def answered(self, now: float) -> None:
        """The first byte of an answer came that is no failure: a probe has succeeded as soon as this."""
        if not self._model.circuit.is_closed:
            self._model.circuit.answered(self._turn, now, self._caller)
            self._model.report(now)

    def ended(self, outcome: Outcome, now: float, cool_down_s: float = 0.0, reason: str = "") -> None:
        """`cool_down_s` is for how long the upstream asked to be left alone, 0 if it did not; `reason` is one of a
        closed list that says how it failed."""
        if self._has_ended:
            return
        self._has_ended = True
        model, caller, turn = self._model, self._caller, self._turn
        model.upstream_health.in_flight -= 1
        circuit = model.circuit
        was_closed = circuit.is_closed
        if was_closed and outcome is _SUCCEEDED and not cool_down_s:
            circuit.succeeded(turn, now, caller)  # As nearly every attempt: the circuit stays closed.
            return
        if outcome is _SUCCEEDED:
            circuit.succeeded(turn, now, caller)
        elif outcome is _NEUTRAL:
            circuit.left(turn, caller)
        elif outcome is _BUSY:
            circuit.answered(turn, now, caller)
        else:
            circuit.failed(turn, now, caller, reason, for_everyone=outcome is _FAILED)
        if cool_down_s > 0:
            circuit.cool_down(cool_down_s, now, caller)
        if not (was_closed and circuit.is_closed):
            model.report(now)


class Health:
    """Every upstream by its settings, so that one whose settings change starts again as healthy. `notice` gets each
    change."""

    def __init__(self, notice: Callable[[Change], None]) -> None:
        self._notice = notice
        self._upstreams: dict[Upstream, _UpstreamHealth] = {}
        self._by_target: dict[Target, _ModelHealth] = {}
        """The same, by the targets that were asked: one look-up for each."""

    def candidate(self, target: Target, now: float, caller: Caller = ANYONE) -> Candidate:
        return Candidate(target, self.share(target, now, caller), self.in_flight(target.upstream))

    def share(self, target: Target, now: float, caller: Caller = ANYONE) -> float:
        """The part of the caller's usual requests that the target may get: 0 none, 1 all."""
        model_health = self._by_target.get(target) or self._model_of(target)
        if model_health is not None:
            return 0.0 if model_health.upstream_health.is_down else model_health.circuit.share(now, caller)
        upstream_health = self._upstreams.get(target.upstream)
        return 0.0 if upstream_health is not None and upstream_health.is_down else 1.0

    def in_flight(self, upstream: Upstream) -> int:
        upstream_health = self._upstreams.get(upstream)
        return upstream_health.in_flight if upstream_health is not None else 0

    def begin(self, target: Target, now: float, caller: Caller = ANYONE) -> Attempt:
        model_health = self._by_target.get(target) or self._model_of(target) or self._new_model(target)
        model_health.upstream_health.in_flight += 1
        circuit = model_health.circuit
        if circuit.is_closed:
            return Attempt(model_health, caller, circuit.turn)
        turn = circuit.begin(now, caller)
        model_health.report(now)
        return Attempt(model_health, caller, turn)

    def wait_s(self, targets: Iterable[Target], now: float, caller: Caller = ANYONE) -> float:
        """Seconds until the caller may ask the first of these, as far as that is known."""
        return min((self._wait_s(target, now, caller) for target in targets), default=0.0)

    def least_bad(self, targets: Iterable[Target], now: float, caller: Caller) -> Target | None:
        """Of targets without a share the one that may be asked soonest; None where every one asked for time."""
        waiting = [target for target in targets if not self._is_cooling_down(target, now, caller)]
        return min(waiting, key=lambda target: (self._wait_s(target, now, caller), target.priority), default=None)

    def reject_credentials(self, targets: Iterable[Target], now: float) -> bool:
        """Whether the circuits of all of these are open for no other reason than that the gateway's own credentials
        were rejected."""
        circuits = [self._circuit(target) for target in targets]
        return bool(circuits) and all(
            circuit is not None
            and circuit.opening is not None
            and circuit.state(now) in {CircuitState.OPEN, CircuitState.HALF_OPEN}
            and circuit.opening.reasons.keys() == {UpstreamAuthFailed.code}
            for circuit in circuits
        )

    def checked(self, upstream: Upstream, problem: str, now: float) -> None:
        """Record the result of a check: how it failed, or nothing. The circuits of an upstream that is up again recover
        as slowly as after a probe."""
        upstream_health = self._upstreams.get(upstream) or self._new(upstream)
        if not upstream_health.check(problem):
            return
        is_healthy = not problem
        before, after = ("down", "up") if is_healthy else ("up", "down")
        self._notice(Change(upstream.name, "", before, after, failed_checks=upstream_health.failed_checks()))
        for model_health in upstream_health.models.values():
            if is_healthy:
                model_health.circuit.recover(now)
                model_health.report(now)

    def unchecked(self, upstream: Upstream) -> None:
        """There are no more checks: forget the result of the last ones."""
        upstream_health = self._upstreams.get(upstream)
        if upstream_health is not None:
            upstream_health.is_down = False

    def keep(self, upstreams: Iterable[Upstream]) -> None:
        """Forget every other upstream, except for those that still have attempts."""
        kept = set(upstreams)
        self._by_target = {}
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

    def _new(self, upstream: Upstream) -> _UpstreamHealth:
        upstream_health = self._upstreams[upstream] = _UpstreamHealth(upstream.name)
        return upstream_health

    def _new_model(self, target: Target) -> _ModelHealth:
        upstream = target.upstream
        upstream_health = self._upstreams.get(upstream) or self._new(upstream)
        made = _ModelHealth(upstream_health, target.model, self._notice)
        upstream_health.models[target.model] = self._by_target[target] = made
        return made

    def _model_of(self, target: Target) -> _ModelHealth | None:
        """That of a target's model, if it was asked, or another target with the same model."""
        upstream_health = self._upstreams.get(target.upstream)
        found = upstream_health.models.get(target.model) if upstream_health is not None else None
        if found is not None:
            self._by_target[target] = found
        return found

    def _wait_s(self, target: Target, now: float, caller: Caller) -> float:
        circuit = self._circuit(target)
        wait_s = circuit.wait_s(now, caller) if circuit is not None else 0.0
        upstream_health = self._upstreams.get(target.upstream)
        return max(wait_s, 1.0) if upstream_health is not None and upstream_health.is_down else wait_s

    def _is_cooling_down(self, target: Target, now: float, caller: Caller) -> bool:
        circuit = self._circuit(target)
        return circuit is not None and circuit.is_cooling_down(now, caller)

    def _circuit(self, target: Target) -> Circuit | None:
        model_health = self._model_of(target)
        return model_health.circuit if model_health is not None else None


class _UpstreamHealth:
    """One upstream: its models, its checks, and how many attempts it has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.models: dict[str, _ModelHealth] = {}
        self.in_flight = 0
        self.is_down = False
        self._against = 0
        self._problems: deque[str] = deque(maxlen=DOWN_AFTER_CHECKS)
        """Those of the last checks that failed."""

    def check(self, problem: str) -> bool:
        """Whether this check changes the state: enough in a row agree."""
        is_healthy = not problem
        if problem:
            self._problems.append(problem)
        if is_healthy != self.is_down:
            self._against = 0
            return False
        self._against += 1
        if self._against < (UP_AFTER_CHECKS if is_healthy else DOWN_AFTER_CHECKS):
            return False
        self._against = 0
        self.is_down = not is_healthy
        return True

    def failed_checks(self) -> dict[str, int]:
        return dict(Counter(self._problems)) if self.is_down else {}

    def view(self, now: float) -> UpstreamStatus:
        circuits = [model_health.circuit for model_health in self.models.values()]
        asked = not circuits or any(not circuit.is_open_for_all(now) for circuit in circuits)
        models = tuple([model_health.view(now) for model_health in self.models.values()])
        up = asked and not self.is_down
        return UpstreamStatus(self.name, up, self.in_flight, models, self.failed_checks())


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
            opening = self.circuit.opening if state is CircuitState.OPEN else None
            change = Change(self.upstream_health.name, self._model, self._reported, state, opening)
            self._reported = state
            self._notice(change)

    def view(self, now: float) -> ModelStatus:
        circuit, key = self.circuit, self.circuit.key(now)
        whose = msgspec.structs.replace(ANYONE, key_id=key)
        share, wait_s = circuit.share(now, whose), circuit.wait_s(now, whose)
        return ModelStatus(self._model, circuit.state(now), share, wait_s, key, circuit.opening, circuit.cooling(now))
