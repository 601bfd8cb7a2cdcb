"""How healthy the upstreams are, as far as requests and checks have shown.

Each model of each upstream has a `Circuit`, which says what share of its usual requests it may get:

    closed ──failures──► open ──rest is over──► half open ──a probe is answered──► recovering ──► closed
      all                 none ◄──the probe fails──  one at a time                  10 % growing to all

A circuit opens after FAILURES_IN_A_ROW, or where half of LEAST_IN_WINDOW requests or more failed in WINDOW_S. It
rests, each time longer. Then one request at a time is let through as a probe; an answer begins the recovery. Where
a model has no other route, the router still sends an open circuit a trickle of requests (`core/routing.py`); one of
these that is answered begins the recovery as a probe does, and one that fails changes nothing.

A server that is dead fails everyone; one that answers a request with an error may have failed because of that request
alone. So an error that an answer reports counts for the key that got it: while only one key gets errors, the circuit
opens for this key alone, and the others do not notice. It opens for everyone once OTHERS_AT_LEAST of the failures do
not come from the key that has most of them. What is no answer (refused, silent, broken) counts for everyone at once.
In the same way a Retry-After cools the target down for the team that got it, and for no other.

An `Attempt` is one request to one target, from before it is sent until its answer has ended. What it says of its
circuit counts only while the circuit is in the same turn: opening begins a new turn, so that slow failures of
requests sent before do not open it again.

Beside the circuits, a configured check can find a whole upstream down; then none of its models has a share.

Pure: times are monotonic seconds of the caller's clock, and each change of a state is reported to a callback.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from gateway.core.errors import UpstreamError
from gateway.core.refusals import Fault
from gateway.core.snapshot import Caller, Target, Upstream

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
"""Keys that a sixth of the window tells apart; those of further ones count for everyone."""
TEAMS_COOLING = 256
"""Teams that a target is cooling down for, at most; the one with the shortest time left goes first."""
REASONS_KEPT = 20
"""Failures whose reason is kept, to say why a circuit opened."""

DOWN_AFTER_CHECKS = 3
UP_AFTER_CHECKS = 2
"""So many checks in a row must agree before they are believed."""

ANYONE = Caller("", "", "")
"""Nobody in particular. What happens to it counts for everyone."""
EVERYONE = ""
"""In place of a key's id: every key."""


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    RECOVERING = "recovering"


class Opening(msgspec.Struct, frozen=True):
    """Why and when a circuit opened: how many of the last failures had which reason. `key` is the id of the key that it
    is open for alone; empty: for everyone."""

    at: float
    reasons: Mapping[str, int]
    key: str = EVERYONE


class Circuit:
    """One model of one upstream. `begin` gives each attempt a turn; what one of an earlier turn says is out of date."""

    def __init__(self) -> None:
        self.opening: Opening | None = None
        """When it opened last."""

        self._state = CircuitState.CLOSED
        self._key = EVERYONE
        """Whom the state binds, unless it is closed: one key, or everyone."""

        self._turn = 0
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
        """Whether nobody may ask: also where the only key that it is open for is the only one that asked lately."""
        is_bound = self._key == EVERYONE or not self._window.has_others(self._key, now)
        return self.state(now) is CircuitState.OPEN and is_bound

    def share(self, now: float, caller: Caller = ANYONE) -> float:
        """The part of the caller's usual requests that it may get: 0 none, 1 all."""
        if self.is_cooling_down(now, caller):
            return 0.0
        if not self._binds(caller):
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

    def is_cooling_down(self, now: float, caller: Caller = ANYONE) -> bool:
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
        """An attempt begins; returns its turn."""
        if self._binds(caller):
            self._is_probed = self.state(now) in {CircuitState.OPEN, CircuitState.HALF_OPEN}
        return self._turn

    def answered(self, turn: int, now: float, caller: Caller = ANYONE) -> None:
        """The first byte of an answer came that is no failure."""
        if turn == self._turn and self._is_probed and self._binds(caller):
            self.recover(now)

    def succeeded(self, turn: int, now: float, caller: Caller = ANYONE) -> None:
        if turn != self._turn:
            return
        self.answered(turn, now, caller)
        self._row.clear()
        self._window.add(now, caller.key_id, failed=False)

    def failed(
        self, turn: int, now: float, caller: Caller = ANYONE, reason: str = "", *, for_everyone: bool = False
    ) -> None:
        """The attempt failed: as any other would have, or, unless `for_everyone`, perhaps for what the caller asked."""
        if turn != self._turn:
            return
        state, is_bound = self.state(now), self._binds(caller)
        if state is CircuitState.OPEN and is_bound:
            self._is_probed = False
            return
        key = EVERYONE if for_everyone else caller.key_id
        self._row[key] += 1
        self._window.add(now, key, failed=True)
        self._last.append(_LastFailure(now, caller.key_id, reason))
        if state is CircuitState.CLOSED:
            self._rests = 0
        failing = self._key if state is CircuitState.HALF_OPEN and is_bound else self._failing(now)
        if failing is not None:
            is_second = state in {CircuitState.OPEN, CircuitState.HALF_OPEN} and failing != self._key
            self._open(now, EVERYONE if is_second else failing)

    def left(self, turn: int, caller: Caller = ANYONE) -> None:
        """The attempt ended and says nothing about the upstream: its client left."""
        if turn == self._turn and self._binds(caller):
            self._is_probed = False

    def cool_down(self, seconds: float, now: float, caller: Caller = ANYONE) -> None:
        """The upstream asked to be spared the requests of the caller's team for a while."""
        until = max(self._cooling.get(caller.team, 0.0), now + min(seconds, LONGEST_COOL_DOWN_S))
        self._cooling[caller.team] = until
        if len(self._cooling) > TEAMS_COOLING:
            del self._cooling[min(self._cooling, key=self._cooling.__getitem__)]

    def recover(self, now: float) -> None:
        """It is healthy again: its share grows from here."""
        self._state = CircuitState.RECOVERING
        self._recovered_at = now + RECOVERY_S
        self._row.clear()
        self._window = _FailureWindow()
        self._last.clear()
        self._is_probed = False

    def _binds(self, caller: Caller) -> bool:
        return self._state is CircuitState.CLOSED or self._key in (EVERYONE, caller.key_id)

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
        self._state = CircuitState.OPEN
        self._key = key
        self._rested_at = now + min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(self._rests, 8))
        self._rests += 1
        self._turn += 1
        self._is_probed = False
        if key == EVERYONE:
            self._row.clear()  # It is open whoever fails next.


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

    def add(self, now: float, key: str, *, failed: bool) -> None:
        if not self._slots or now >= self._slots[-1][0] + WINDOW_S / 6:
            self._slots.append((now, {}))
            self._forget(now)
        counts = self._slots[-1][1]
        count = counts.get(key)
        if count is None:
            key = key if len(counts) < KEYS_IN_SLOT else EVERYONE
            count = counts.setdefault(key, _Count())
        count.ended += 1
        count.failed += failed

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
    """The key that has most of the failures, and how many; what counts for everyone is of no key."""
    ranked = ((key, number) for key, number in failures.items() if key != EVERYONE)
    return max(ranked, key=lambda each: each[1], default=(EVERYONE, 0))


class Outcome(StrEnum):
    """What an attempt says of its upstream. SUCCEEDED includes that it refused what the caller must not ask; FAILED
    that no whole answer came; ERROR that the answer was an error, by its status or an event; BUSY is too many requests
    for now; NEUTRAL says nothing, as when the client left."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERROR = "error"
    BUSY = "busy"
    NEUTRAL = "neutral"


def outcome_of_answer(status: int, fault: Fault | None) -> Outcome:
    """`fault` is that of the answer's failure, None if it has none."""
    if fault is None or fault is Fault.CALLER:
        return Outcome.SUCCEEDED
    if status == 429:
        return Outcome.BUSY
    # A status that says little, as 408, is no reason to leave the upstream; an error inside a 200 is.
    return Outcome.SUCCEEDED if fault is Fault.UNKNOWN and status >= 400 else Outcome.ERROR


def outcome_of_error(error: UpstreamError) -> Outcome:
    """A request that found no connection free was never sent, and one abandoned was left by us."""
    return Outcome.NEUTRAL if error.outcome in {"no_connection_free", "abandoned"} else Outcome.FAILED


class Change(msgspec.Struct, frozen=True):
    """A step from one state to another. `model` is empty where checks found the whole upstream `up` or `down`;
    `opening` says why a circuit opened."""

    upstream: str
    model: str
    before: str
    after: str
    opening: Opening | None = None


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
    """`up` unless checks say otherwise or none of its models may be asked."""

    name: str
    up: bool
    in_flight: int
    models: tuple[ModelStatus, ...]


class Attempt:
    """Whoever began it ends it, whatever happens; only the first end counts."""

    __slots__ = ("_caller", "_has_ended", "_model", "_turn")

    def __init__(self, model_health: _ModelHealth, caller: Caller, turn: int) -> None:
        self._model = model_health
        self._caller = caller
        self._turn = turn
        self._has_ended = False

    def answered(self, now: float) -> None:
        """The first byte of an answer came that is no failure: a probe has succeeded as soon as this."""
        self._model.circuit.answered(self._turn, now, self._caller)
        self._model.report(now)

    def ended(self, outcome: Outcome, now: float, cool_down_s: float = 0.0, reason: str = "") -> None:
        """`cool_down_s` is for how long the upstream asked to be left alone, 0 if it did not; `reason` is one of a
        closed list that says how it failed."""
        if self._has_ended:
            return
        self._has_ended = True
        self._model.upstream_health.in_flight -= 1
        circuit, caller, turn = self._model.circuit, self._caller, self._turn
        match outcome:
            case Outcome.SUCCEEDED:
                circuit.succeeded(turn, now, caller)
            case Outcome.FAILED:
                circuit.failed(turn, now, caller, reason, for_everyone=True)
            case Outcome.ERROR:
                circuit.failed(turn, now, caller, reason)
            case Outcome.BUSY:
                circuit.answered(turn, now, caller)
            case Outcome.NEUTRAL:
                circuit.left(turn, caller)
        if cool_down_s > 0:
            circuit.cool_down(cool_down_s, now, caller)
        self._model.report(now)


class Health:
    """Every upstream by its settings, so that one whose settings change starts again as healthy. `notice` gets each
    change."""

    def __init__(self, notice: Callable[[Change], None]) -> None:
        self._notice = notice
        self._upstreams: dict[Upstream, _UpstreamHealth] = {}

    def candidate(self, target: Target, now: float, caller: Caller = ANYONE) -> Candidate:
        return Candidate(target, self.share(target, now, caller), self.in_flight(target.upstream))

    def share(self, target: Target, now: float, caller: Caller = ANYONE) -> float:
        """The part of the caller's usual requests that the target may get: 0 none, 1 all."""
        upstream_health = self._upstreams.get(target.upstream)
        if upstream_health is None:
            return 1.0
        if upstream_health.is_down:
            return 0.0
        model_health = upstream_health.models.get(target.model)
        return model_health.circuit.share(now, caller) if model_health is not None else 1.0

    def in_flight(self, upstream: Upstream) -> int:
        upstream_health = self._upstreams.get(upstream)
        return upstream_health.in_flight if upstream_health is not None else 0

    def begin(self, target: Target, now: float, caller: Caller = ANYONE) -> Attempt:
        upstream_health = self._health_of(target.upstream)
        model_health = upstream_health.models.get(target.model)
        if model_health is None:
            model_health = upstream_health.models[target.model] = _ModelHealth(
                upstream_health, target.model, self._notice
            )
        upstream_health.in_flight += 1
        attempt = Attempt(model_health, caller, model_health.circuit.begin(now, caller))
        model_health.report(now)
        return attempt

    def wait_s(self, targets: Iterable[Target], now: float, caller: Caller = ANYONE) -> float:
        """Seconds until the caller may ask the first of these, as far as that is known."""
        return min((self._wait_s(target, now, caller) for target in targets), default=0.0)

    def least_bad(self, targets: Iterable[Target], now: float, caller: Caller = ANYONE) -> Target | None:
        """Of targets without a share the one that may be asked soonest; None where every one asked for time."""
        waiting = [target for target in targets if not self._is_cooling_down(target, now, caller)]
        return min(waiting, key=lambda target: (self._wait_s(target, now, caller), target.priority), default=None)

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

    def _wait_s(self, target: Target, now: float, caller: Caller) -> float:
        circuit = self._circuit(target)
        wait_s = circuit.wait_s(now, caller) if circuit is not None else 0.0
        upstream_health = self._upstreams.get(target.upstream)
        return max(wait_s, 1.0) if upstream_health is not None and upstream_health.is_down else wait_s

    def _is_cooling_down(self, target: Target, now: float, caller: Caller) -> bool:
        circuit = self._circuit(target)
        return circuit is not None and circuit.is_cooling_down(now, caller)

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
        circuits = [model_health.circuit for model_health in self.models.values()]
        asked = not circuits or any(not circuit.is_open_for_all(now) for circuit in circuits)
        models = tuple([model_health.view(now) for model_health in self.models.values()])
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
            opening = self.circuit.opening if state is CircuitState.OPEN else None
            change = Change(self.upstream_health.name, self._model, self._reported, state, opening)
            self._reported = state
            self._notice(change)

    def view(self, now: float) -> ModelStatus:
        circuit, key = self.circuit, self.circuit.key(now)
        whose = msgspec.structs.replace(ANYONE, key_id=key)
        share, wait_s = circuit.share(now, whose), circuit.wait_s(now, whose)
        return ModelStatus(self._model, circuit.state(now), share, wait_s, key, circuit.opening, circuit.cooling(now))
