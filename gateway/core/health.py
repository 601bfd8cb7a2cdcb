"""How well the upstreams are, as far as requests and checks have shown: what `pick` looks at and `forward` feeds.

An attempt is one request to one target, from before it is sent until its answer has ended. Pure: times
are monotonic seconds of the caller's clock, and what changes is told to whoever wants to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from gateway.core.circuit import Circuit, State
from gateway.core.errors import UpstreamError
from gateway.core.target import Target, Upstream

DOWN_AFTER_CHECKS = 3
UP_AFTER_CHECKS = 2
"""So many checks in a row must agree before they are believed."""


class Outcome(StrEnum):
    """What an attempt says of its upstream. WELL includes that it refused a caller's mistake; BUSY is
    too many requests for now; UNTOLD says nothing, as when the client left."""

    WELL = "well"
    FAILED = "failed"
    BUSY = "busy"
    UNTOLD = "untold"


def outcome_of_status(status: int) -> Outcome:
    if status == 429:
        return Outcome.BUSY
    # 401 and 403 reject the gateway's own credentials: every request there would fail.
    return Outcome.FAILED if status >= 500 or status in {401, 403} else Outcome.WELL


def outcome_of_error(error: UpstreamError) -> Outcome:
    """A request that found no connection free was never sent, and one abandoned was left by us."""
    return Outcome.UNTOLD if error.outcome in {"no_connection_free", "abandoned"} else Outcome.FAILED


class Change(msgspec.Struct, frozen=True):
    """A step from one state to another. `model` is empty where checks found the whole upstream `up` or `down`."""

    upstream: str
    model: str
    before: str
    after: str


class ModelHealth(msgspec.Struct, frozen=True):
    model: str
    state: State
    share: float
    wait_s: float


class UpstreamHealth(msgspec.Struct, frozen=True):
    """`up` unless checks say otherwise or none of its models may be asked."""

    name: str
    up: bool
    in_flight: int
    models: tuple[ModelHealth, ...]


class Attempt:
    """Whoever began it ends it, whatever happens; only the first end counts."""

    __slots__ = ("_case", "_has_ended", "_turn")

    def __init__(self, case: _Case, turn: int) -> None:
        self._case = case
        self._turn = turn
        self._has_ended = False

    def answered(self, now: float) -> None:
        """The first byte of an answer came that is no failure: a probe is well as soon as this."""
        self._case.circuit.answered(self._turn, now)
        self._case.tell(now)

    def ended(self, outcome: Outcome, now: float, cool_down_s: float = 0.0) -> None:
        """`cool_down_s` is for how long the upstream asked to be left alone, 0 if it did not."""
        if self._has_ended:
            return
        self._has_ended = True
        self._case.ward.in_flight -= 1
        circuit, turn = self._case.circuit, self._turn
        match outcome:
            case Outcome.WELL:
                circuit.succeeded(turn, now)
            case Outcome.FAILED:
                circuit.failed(turn, now)
            case Outcome.BUSY:
                circuit.answered(turn, now)
            case Outcome.UNTOLD:
                circuit.left(turn)
        if cool_down_s > 0:
            circuit.cool_down(cool_down_s, now)
        self._case.tell(now)


class Health:
    """Every upstream by its settings, so that one whose settings change begins anew. `notice` is told of
    each change."""

    def __init__(self, notice: Callable[[Change], None]) -> None:
        self._notice = notice
        self._wards: dict[Upstream, _Ward] = {}

    def share(self, target: Target, now: float) -> float:
        """The part of its usual requests that the target may get: 0 none, 1 all."""
        ward = self._wards.get(target.upstream)
        if ward is None:
            return 1.0
        case = ward.cases.get(target.model)
        return 0.0 if ward.is_down else case.circuit.share(now) if case is not None else 1.0

    def in_flight(self, upstream: Upstream) -> int:
        ward = self._wards.get(upstream)
        return ward.in_flight if ward is not None else 0

    def begin(self, target: Target, now: float) -> Attempt:
        """To be called only while the target has a share."""
        ward = self._ward(target.upstream)
        case = ward.cases.get(target.model)
        if case is None:
            case = ward.cases[target.model] = _Case(ward, target.model, self._notice)
        ward.in_flight += 1
        attempt = Attempt(case, case.circuit.begin(now))
        case.tell(now)
        return attempt

    def wait_s(self, targets: Iterable[Target], now: float) -> float:
        """Seconds until the first of these may be asked, as far as that is known."""
        return min((self._wait_s(target, now) for target in targets), default=0.0)

    def checked(self, upstream: Upstream, is_well: bool, now: float) -> None:
        """What a check found. Its circuits recover as slowly as after a probe."""
        ward = self._ward(upstream)
        if not ward.check(is_well):
            return
        before, after = ("down", "up") if is_well else ("up", "down")
        self._notice(Change(upstream.name, "", before, after))
        for case in ward.cases.values():
            if is_well:
                case.circuit.recover(now)
                case.tell(now)

    def unchecked(self, upstream: Upstream) -> None:
        """No more checks come: what the last ones found is forgotten."""
        ward = self._wards.get(upstream)
        if ward is not None:
            ward.is_down = False

    def keep(self, upstreams: Iterable[Upstream]) -> None:
        """Forget every other upstream, but for those that still have attempts."""
        kept = set(upstreams)
        self._wards = {key: ward for key, ward in self._wards.items() if key in kept or ward.in_flight}

    def view(self, upstreams: Iterable[Upstream], now: float) -> list[UpstreamHealth]:
        return [self._ward(upstream).view(now) for upstream in upstreams]

    def _ward(self, upstream: Upstream) -> _Ward:
        ward = self._wards.get(upstream)
        if ward is None:
            ward = self._wards[upstream] = _Ward(upstream.name)
        return ward

    def _wait_s(self, target: Target, now: float) -> float:
        ward = self._wards.get(target.upstream)
        case = ward.cases.get(target.model) if ward is not None else None
        wait_s = case.circuit.wait_s(now) if case is not None else 0.0
        return max(wait_s, 1.0) if ward is not None and ward.is_down else wait_s


class _Ward:
    """One upstream: its models, its checks, and how many attempts it has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: dict[str, _Case] = {}
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

    def view(self, now: float) -> UpstreamHealth:
        models = tuple([case.view(now) for case in self.cases.values()])
        asked = not models or any(each.state is not State.OPEN for each in models)
        return UpstreamHealth(self.name, asked and not self.is_down, self.in_flight, models)


class _Case:
    """One model of one upstream: its circuit, and what was told of it last."""

    def __init__(self, ward: _Ward, model: str, notice: Callable[[Change], None]) -> None:
        self.ward = ward
        self.circuit = Circuit()
        self._model = model
        self._notice = notice
        self._told = State.CLOSED

    def tell(self, now: float) -> None:
        state = self.circuit.state(now)
        if state is not self._told:
            change = Change(self.ward.name, self._model, self._told, state)
            self._told = state
            self._notice(change)

    def view(self, now: float) -> ModelHealth:
        circuit = self.circuit
        return ModelHealth(self._model, circuit.state(now), circuit.share(now), circuit.wait_s(now))
