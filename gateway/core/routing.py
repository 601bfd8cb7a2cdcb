"""The order in which a model's routes are tried.

Three questions decide, in this order:

1. May the route be asked now? `core/health.py` gives each a share of its usual requests. A recovering route is due once
   its shares add up to a request. A route whose connections are all in use comes behind those that have free ones.
2. Does the request belong to a route? With `affinity`, requests with the same beginning go where the beginning of their
   prompt is in the cache (`core/affinity.py`).
3. Whose turn is it? By priority, then by smooth weighted round robin, as in nginx, with weights that shrink with the
   load: a slow server accumulates requests in flight and so gets fewer new ones; idle routes take turns exactly by
   weight.

If no route is due (every circuit is open, or those that recover have had their share), the least bad one still gets a
trickle, one request in each TRICKLE_S, and the others are refused. So a model with few users does not wait for a
recovery that only requests can start, and a server that has just come back does not get all waiting requests at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gateway.core.affinity import favourite
from gateway.core.circuit import ANYONE
from gateway.core.health import Candidate, Change, Health
from gateway.core.retry import RetryBudget
from gateway.core.snapshot import Caller, Model, Target

TRICKLE_S = 1.0
"""Seconds between two requests of a model in this process to a route that is not due, where none is."""


class RoutingState:
    """`notice` gets each change of an upstream's health. Times are monotonic seconds."""

    def __init__(self, notice: Callable[[Change], None]) -> None:
        self.health = Health(notice)
        self._balances: dict[tuple[Target, ...], Balance] = {}
        self._budgets: dict[str, RetryBudget] = {}

    def order(self, targets: tuple[Target, ...], key: bytes, now: float, caller: Caller = ANYONE) -> Sequence[Target]:
        """Those of a model's targets that the caller may ask, best first: the key's favourite, then by turns; none
        where the request is to be refused. The first one may be asked now without asking `health` again."""
        health = self.health
        if len(targets) == 1 and health.share(targets[0], now, caller) >= 1.0:
            return targets
        candidates = [health.candidate(target, now, caller) for target in targets]
        balance = self._balances.get(targets)
        if balance is None:
            balance = self._balances[targets] = Balance(len(targets))
        ordered = balance.order(candidates)
        if not ordered:
            least_bad = health.least_bad(targets, now, caller)
            return [least_bad] if least_bad is not None and balance.may_trickle(now) else []
        first = favourite(key, candidates) if key else None
        if first is not None:
            ordered.remove(first)
            ordered.insert(0, first)
        return ordered

    def retries(self, model: Model, now: float) -> RetryBudget:
        """What a model's requests may try again."""
        budget = self._budgets.get(model.name)
        if budget is None:
            budget = self._budgets[model.name] = RetryBudget(now)
        return budget

    def keep(self, models: Iterable[Model]) -> None:
        """Forget what belongs to none of these models and their routes."""
        kept = list(models)
        self.health.keep(target.upstream for model in kept for target in model.targets)
        routes = {targets for model in kept for targets in (model.targets, *model.served_by.values())}
        self._balances = {targets: balance for targets, balance in self._balances.items() if targets in routes}
        names = {model.name for model in kept}
        self._budgets = {name: budget for name, budget in self._budgets.items() if name in names}


class Balance:
    """The turns of one model's routes. Each of its places is a route's: another list, another Balance."""

    def __init__(self, routes: int) -> None:
        self._turns = [0.0] * routes
        self._saved = [0.0] * routes
        self._trickled_at = -TRICKLE_S

    def order(self, candidates: Sequence[Candidate]) -> list[Target]:
        """The routes that have a share, best first, or none where nothing but a part of some share is left. Behind
        those that are due come those that are full, then those that have had their share: better than nothing, when
        the first has failed."""
        able = [place for place, candidate in enumerate(candidates) if candidate.share > 0]
        full = {place for place in able if _is_full(candidates[place])}
        due = {place for place in able if place not in full and self._is_due(place, candidates[place].share)}
        if not due and not any(candidates[place].share >= 1.0 for place in full):
            return []
        gains = self._gains(candidates, due)
        for place, weight in gains.items():
            self._turns[place] += weight

        def rank(place: int) -> tuple[bool, bool, int, float, int]:
            target = candidates[place].target
            return place not in due, place not in full, target.priority, -self._turns[place], -target.weight

        able.sort(key=rank)
        if gains:
            self._turns[able[0]] -= sum(gains.values())
        return [candidates[place].target for place in able]

    def may_trickle(self, now: float) -> bool:
        """Whether one more request may go to a route that is not due; if so, it is the last one for a while."""
        if now < self._trickled_at + TRICKLE_S:
            return False
        self._trickled_at = now
        return True

    def _is_due(self, place: int, share: float) -> bool:
        if share >= 1.0:
            return True
        self._saved[place] += share
        if self._saved[place] < 1.0:
            return False
        self._saved[place] -= 1.0
        return True

    def _gains(self, candidates: Sequence[Candidate], due: set[int]) -> dict[int, float]:
        """What is added to the turns of those between whom the choice is: the first priority's."""
        first = min((candidates[place].target.priority for place in due), default=0)
        group = [place for place in due if candidates[place].target.priority == first]
        return {place: _weight(candidates[place]) for place in group}


def _is_full(candidate: Candidate) -> bool:
    return candidate.in_flight >= candidate.target.upstream.max_connections


def _weight(candidate: Candidate) -> float:
    """The weight, less the more is in flight for each unit of it: under load, what is in flight has the
    proportion of the weights where servers are equally fast."""
    weight = candidate.target.weight
    return weight / (1 + candidate.in_flight / weight)
