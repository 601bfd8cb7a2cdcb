"""One immutable picture of the configuration, as requests see it: keys and models.

A reload builds a new one and swaps the reference; a request keeps the one that it began with.
"""

from __future__ import annotations

import msgspec

from gateway.core.caller import Caller
from gateway.core.limits import Limit
from gateway.core.target import Model, Upstream


class ConfigSnapshot(msgspec.Struct, frozen=True, weakref=True):
    """`callers` by the hexadecimal SHA-256 of their key, `models` by name and by alias."""

    callers: dict[str, Caller]
    models: dict[str, Model]

    def upstreams(self) -> list[Upstream]:
        """Every upstream that a route leads to, each once."""
        found = {target.upstream: None for model in self.models.values() for target in model.targets}
        return list(found)

    def models_of(self, caller: Caller) -> list[Model]:
        """What this caller may use, each model once, in the order of the configuration."""
        named = {model.name: model for model in self.models.values()}
        return [model for model in named.values() if caller.may_use(model.name)]

    def model_for(self, caller: Caller, asked: str) -> Model | None:
        """The model behind a name or alias, None where it is unknown or not allowed."""
        model = self.models.get(asked)
        return model if model is not None and caller.may_use(model.name) else None

    @property
    def teams(self) -> set[str]:
        """The teams that have a key."""
        return {caller.team for caller in self.callers.values()}

    def limits_of(self, team: str = "") -> list[Limit]:
        """Every limit with one subject, of one team or of all: those on each end user are left out."""
        found: dict[tuple[object, ...], Limit] = {}
        for caller in self.callers.values():
            if team in ("", caller.team):
                found |= {limit.identity: limit for limit in caller.limits}
        for model in self.models.values():
            found |= {limit.identity: limit for limit in model.limits}
        return list(found.values())
