"""How well the upstreams are, as far as requests and checks have shown: what `pick` looks at and `forward` feeds.

An attempt is one request to one target, from before it is sent until its answer has ended. Pure: times
are monotonic seconds of the caller's clock, and what changes is told to whoever wants to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from gateway.core.circuit import Circuit, CircuitState
from gateway.core.errors import UpstreamError
from gateway.core.target import Target, Upstream

DOWN_AFTER_CHECKS = 3
UP_AFTER_CHECKS = 2
"""So many checks in a row must agree before they are believed."""


class Outcome(StrEnum):
    """What an attempt says of its upstream. WELL includes that it refused a caller's mistake; BUSY is
    too many requests for now; UNTOLD says nothing, as when the client left."""

    SUCCEEDED = "well"
    FAILED = "failed"
    BUSY = "busy"
    NEUTRAL = "untold"


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
        """The first byte of an answer came that is no failure: a probe is well as soon as this."""
        self._model.circuit.answered(self._turn, now)
        self._model.tell(now)

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
        self._model.tell(now)


class Health:
    """Every upstream by its settings, so that one whose settings change begins anew. `notice` is told of
    each change."""

    def __init__(self, notice: Callable[[Change], None]) -> None:
        self._notice = notice
        self._upstreams: dict[Upstream, _UpstreamHealth] = {}

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
        """To be called only while the target has a share."""
        upstream_health = self._health_of(target.upstream)
        model_health = upstream_health.models.get(target.model)
        if model_health is None:
            model_health = upstream_health.models[target.model] = _ModelHealth(
                upstream_health, target.model, self._notice
            )
        upstream_health.in_flight += 1
        attempt = Attempt(model_health, model_health.circuit.begin(now))
        model_health.tell(now)
        return attempt

    def wait_s(self, targets: Iterable[Target], now: float) -> float:
        """Seconds until the first of these may be asked, as far as that is known."""
        return min((self._wait_s(target, now) for target in targets), default=0.0)

    def checked(self, upstream: Upstream, is_well: bool, now: float) -> None:
        """What a check found. Its circuits recover as slowly as after a probe."""
        upstream_health = self._health_of(upstream)
        if not upstream_health.check(is_well):
            return
        before, after = ("down", "up") if is_well else ("up", "down")
        self._notice(Change(upstream.name, "", before, after))
        for model_health in upstream_health.models.values():
            if is_well:
                model_health.circuit.recover(now)
                model_health.tell(now)

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
        return [self._health_of(upstream).view(now) for upstream in upstreams]

    def _health_of(self, upstream: Upstream) -> _UpstreamHealth:
        upstream_health = self._upstreams.get(upstream)
        if upstream_health is None:
            upstream_health = self._upstreams[upstream] = _UpstreamHealth(upstream.name)
        return upstream_health

    def _wait_s(self, target: Target, now: float) -> float:
        upstream_health = self._upstreams.get(target.upstream)
        model_health = upstream_health.models.get(target.model) if upstream_health is not None else None
        wait_s = model_health.circuit.wait_s(now) if model_health is not None else 0.0
        return max(wait_s, 1.0) if upstream_health is not None and upstream_health.is_down else wait_s


class _UpstreamHealth:
    """One upstream: its models, its checks, and how many attempts it has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.models: dict[str, _ModelHealth] = {}
        self.in_flight = 0
        self.is_down = False
        self._against = 0

    def check(self, is_well: bool) -> bool:
        """Whether this check changes what is believed: enough in a row say so."""
        if is_well != self.is_down:
            self._against = 0
            return False
        self._against += 1
        if self._against < (UP_AFTER_CHECKS if is_well else DOWN_AFTER_CHECKS):
            return False
        self._against = 0
        self.is_down = not is_well
        return True

    def view(self, now: float) -> UpstreamStatus:
        models = tuple([model_health.view(now) for model_health in self.models.values()])
        asked = not models or any(each.state is not CircuitState.OPEN for each in models)
        return UpstreamStatus(self.name, asked and not self.is_down, self.in_flight, models)


class _ModelHealth:
    """One model of one upstream: its circuit, and what was told of it last."""

    def __init__(self, upstream_health: _UpstreamHealth, model: str, notice: Callable[[Change], None]) -> None:
        self.upstream_health = upstream_health
        self.circuit = Circuit()
        self._model = model
        self._notice = notice
        self._told = CircuitState.CLOSED

    def tell(self, now: float) -> None:
        state = self.circuit.state(now)
        if state is not self._told:
            change = Change(self.upstream_health.name, self._model, self._told, state)
            self._told = state
            self._notice(change)

    def view(self, now: float) -> ModelStatus:
        circuit = self.circuit
        return ModelStatus(self._model, circuit.state(now), circuit.share(now), circuit.wait_s(now))
