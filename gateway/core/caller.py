"""Who asks: a key, its team, what it may use and the limits that bind it."""

from __future__ import annotations

import msgspec

from gateway.core.limits import Limit
from gateway.core.target import Model, matches


class Caller(msgspec.Struct, frozen=True, gc=False):
    """A key as the journey sees it. `limits` are those of organisation, team and key;
    `user_limits` bind each end user of the team by itself. `models` None: every model."""

    key_id: str
    key_name: str
    team: str
    models: tuple[tuple[str, ...], ...] = ()
    """Each entry is a list of globs that must admit the model: the team's, then the key's own."""
    limits: tuple[Limit, ...] = ()
    user_limits: tuple[Limit, ...] = ()
    expires_ms: int | None = None
    disabled: bool = False

    def may_use(self, model: str) -> bool:
        return all(matches(model, patterns) for patterns in self.models)

    def limits_on(self, model: Model, user: str) -> tuple[Limit, ...]:
        """Every limit that binds a request of this caller: organisation, model, team, key, user."""
        named = tuple(limit.for_user(user) for limit in self.user_limits) if user else ()
        every = (*self.limits, *model.limits, *named)
        return tuple(limit for limit in every if not limit.models or matches(model.name, limit.models))
