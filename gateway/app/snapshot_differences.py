"""What differs between two configurations, for the audit: teams, keys, models and limits by their names, never a
secret."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from gateway.core.limits import Limit, Scope
from gateway.core.snapshot import Caller, ConfigSnapshot, Model, TeamTerms
from gateway.identity.key_objects import config_key_object, limit_terms

SHOWN_MAX = 100
"""Of each kind; of more only the number is given."""


Compared = TypeVar("Compared")


class _Kind(NamedTuple, Generic[Compared]):
    name: str
    is_same: Callable[[Compared, Compared], bool]
    show: Callable[[Compared], dict[str, Any]]


class Differences(NamedTuple):
    """By kind and name; what there was not is left out."""

    before: dict[str, Any]
    after: dict[str, Any]


def differences(before: ConfigSnapshot, after: ConfigSnapshot) -> Differences:
    """For a thread of its own: to compare 10,000 keys takes a while, and snapshots do not change."""
    found = Differences({}, {})
    _compare(_Kind("keys", _is_same_key, _key), _keys(before), _keys(after), found)
    _compare(_Kind("teams", operator.eq, _team), before.teams, after.teams, found)
    _compare(_Kind("models", operator.eq, _model), _models(before), _models(after), found)
    return found


def _compare(
    kind: _Kind[Compared], before: Mapping[str, Compared], after: Mapping[str, Compared], found: Differences
) -> None:
    names = [name for name in before if name not in after or not kind.is_same(before[name], after[name])]
    names += [name for name in after if name not in before]
    shown = names[:SHOWN_MAX]
    for side, all_of_it in zip(found, (before, after), strict=True):
        if part := {name: kind.show(all_of_it[name]) for name in shown if name in all_of_it}:
            side[kind.name] = part
    if len(names) > SHOWN_MAX:
        found.after[f"more_{kind.name}"] = len(names) - SHOWN_MAX


def _keys(snapshot: ConfigSnapshot) -> dict[str, Caller]:
    return {caller.key_id: caller for caller in snapshot.callers.values()}


def _is_same_key(one: Caller, other: Caller) -> bool:
    """Except for what they have of their teams, which is shown there."""
    return (
        (one.key_name, one.team, one.models, one.expires_ms, one.disabled, one.networks)
        == (other.key_name, other.team, other.models, other.expires_ms, other.disabled, other.networks)
    ) and _own(one) == _own(other)


def _own(caller: Caller) -> list[Limit]:
    return [limit for limit in caller.limits if limit.scope is Scope.KEY]


def _key(caller: Caller) -> dict[str, Any]:
    return config_key_object(caller, 0)


def _team(terms: TeamTerms) -> dict[str, Any]:
    return {
        "models": [list(globs) for globs in terms.caller.models],
        "limits": _limits(terms.caller.limits),
        "key_limits": _limits(terms.key_limits),
        "user_limits": _limits(terms.caller.user_limits),
        "cost_center": terms.caller.cost_center,
    }


def _models(snapshot: ConfigSnapshot) -> dict[str, Model]:
    """Without the time of their load. Upstreams are compared by what requests notice, and shown by their names."""
    return {model.name: msgspec.structs.replace(model, created=0) for model in snapshot.models.values()}


def _model(model: Model) -> dict[str, Any]:
    routes = [
        {
            "upstream": target.upstream.name,
            "base_url": target.upstream.base_url.partition("?")[0],
            "model": target.model,
            "weight": target.weight,
            "priority": target.priority,
        }
        for target in model.targets
    ]
    return {"aliases": list(model.aliases), "routes": routes, "limits": _limits(model.limits)}


def _limits(limits: tuple[Limit, ...]) -> list[dict[str, Any]]:
    return [limit_terms(limit) for limit in limits]
