"""What is known of the ways to the models: how well they are, whose turn it is, how much may be tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.core.affinity import favourite
from gateway.core.balance import Balance, Candidate
from gateway.core.health import Change, Health
from gateway.core.retries import RetryBudget
from gateway.core.target import Model, Target


class RoutingState:
    """`notice` is told of each change of an upstream's health. Times are monotonic seconds."""

    def __init__(self, notice: Callable[[Change], None]) -> None:
        self.health = Health(notice)
        self._balances: dict[tuple[Target, ...], Balance] = {}
        self._budgets: dict[str, RetryBudget] = {}

    def order(self, model: Model, key: bytes, now: float) -> list[Target]:
        """The targets that may be asked, best first: the key's favourite, then by turns; none where none is well."""
        health = self.health
        if len(model.targets) == 1:
            return [target for target in model.targets if health.share(target, now) > 0]
        candidates = [
            Candidate(target, health.share(target, now), health.in_flight(target.upstream)) for target in model.targets
        ]
        balance = self._balances.get(model.targets)
        if balance is None:
            balance = self._balances[model.targets] = Balance(len(model.targets))
        targets = balance.order(candidates)
        first = favourite(key, candidates) if key else None
        if first is not None:
            targets.remove(first)
            targets.insert(0, first)
        return targets

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
        routes = {model.targets for model in kept}
        self._balances = {targets: balance for targets, balance in self._balances.items() if targets in routes}
        names = {model.name for model in kept}
        self._budgets = {name: budget for name, budget in self._budgets.items() if name in names}
