"""What differs between two snapshots, for audit and log: teams, keys, models, limits and receivers by their names,
never a secret.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from gateway.core.limit_status import whose_limit
from gateway.core.limits import Limit, Scope
from gateway.core.notifications import NotificationChannel
from gateway.core.snapshot import Caller, ConfigSnapshot, Model, TeamTerms
from gateway.identity.key_objects import config_key_object, limit_terms

SHOWN_MAX = 100
"""So many of each kind are listed; of more only the number."""


Compared = TypeVar("Compared")


class _Kind(NamedTuple, Generic[Compared]):
    name: str
    is_same: Callable[[Compared, Compared], bool]
    show: Callable[[Compared], dict[str, Any]]


class Differences(NamedTuple):
    """By kind and name; a side that did not exist is left out."""

    before: dict[str, Any]
    after: dict[str, Any]


class SnapshotChanges(NamedTuple):
    """What a reload has changed. `restarted` are the limits that count from zero again."""

    differences: Differences = Differences({}, {})
    restarted: tuple[str, ...] = ()


def changes_of(before: ConfigSnapshot, after: ConfigSnapshot) -> SnapshotChanges:
    """For a process that serves nothing: to compare 10,000 keys takes hundreds of milliseconds."""
    return SnapshotChanges(differences(before, after), tuple(restarted_counters(before, after)))


def differences(before: ConfigSnapshot, after: ConfigSnapshot) -> Differences:
    found = Differences({}, {})
    _compare(_Kind("keys", _is_same_key, _key), _keys(before), _keys(after), found)
    _compare(_Kind("teams", operator.eq, _team), _teams(before), _teams(after), found)
    _compare(_Kind("models", operator.eq, _model), _models(before), _models(after), found)
    _compare(_Kind("receivers", operator.eq, _receiver), _receivers(before), _receivers(after), found)
    return found


def in_words(found: Differences) -> list[str]:
    """For the log: which teams, keys, models and receivers of notifications were added, removed or changed."""
    lines: list[str] = []
    for kind in ("teams", "keys", "models", "receivers"):
        before, after = found.before.get(kind, {}), found.after.get(kind, {})
        for name in {**before, **after}:
            what = "changed" if name in before and name in after else "added" if name in after else "removed"
            lines.append(f"{kind.removesuffix('s')} {name} {what}")
        if more := found.after.get(f"more_{kind}"):
            lines.append(f"and {more} {kind} more")
    return lines


def restarted_counters(before: ConfigSnapshot, after: ConfigSnapshot) -> list[str]:
    """The limits that begin again from zero: a limit of the same name counted something else, or the same was counted
    under another name."""
    old, new = _limits_by_identity(before), _limits_by_identity(after)
    gone = [limit for identity, limit in old.items() if identity not in new]
    names = {(*_place(limit), limit.name) for limit in gone}
    counts = {_place(limit) + _counted(limit) for limit in gone}
    return [
        f"limit {limit.name} of {_whose(limit)}"
        for identity, limit in new.items()
        if identity not in old and ((*_place(limit), limit.name) in names or _place(limit) + _counted(limit) in counts)
    ][:SHOWN_MAX]


def _limits_by_identity(snapshot: ConfigSnapshot) -> dict[tuple[object, ...], Limit]:
    """What binds each key or each user of a team is listed once, without a subject."""
    found: dict[tuple[object, ...], Limit] = {}
    for terms in snapshot.teams.values():
        for limit in (*terms.key_limits, *terms.caller.user_limits):
            found[limit.identity] = limit
    for limit in snapshot.limits_of():
        if limit.scope is not Scope.KEY or msgspec.structs.replace(limit, subject="").identity not in found:
            found[limit.identity] = limit
    return found


def _whose(limit: Limit) -> str:
    return whose_limit(limit) if limit.subject or not limit.team else f"each {limit.scope} of team {limit.team!r}"


def _place(limit: Limit) -> tuple[object, ...]:
    return limit.scope, limit.team, limit.subject


def _counted(limit: Limit) -> tuple[object, ...]:
    return limit.meter, limit.per, limit.models


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
    """Without what they have from their teams, which is shown there."""
    return (
        (one.key_name, one.team, one.models, one.expires_ms, one.disabled, one.networks)
        == (other.key_name, other.team, other.models, other.expires_ms, other.disabled, other.networks)
    ) and _own(one) == _own(other)


def _own(caller: Caller) -> list[Limit]:
    return _without_parts([limit for limit in caller.limits if limit.scope is Scope.KEY])


def _key(caller: Caller) -> dict[str, Any]:
    return config_key_object(caller, 0)


def _team(terms: TeamTerms) -> dict[str, Any]:
    return {
        "models": [list(globs) for globs in terms.caller.models],
        "limits": _limits(terms.caller.limits),
        "key_limits": _limits(terms.key_limits),
        "user_limits": _limits(terms.caller.user_limits),
        "cost_center": terms.caller.cost_center,
        "owner": terms.owner,
    }


def _teams(snapshot: ConfigSnapshot) -> dict[str, TeamTerms]:
    found = {}
    for name, terms in snapshot.teams.items():
        of_team, of_users = (tuple(_without_parts(each)) for each in (terms.caller.limits, terms.caller.user_limits))
        caller = msgspec.structs.replace(terms.caller, limits=of_team, user_limits=of_users)
        found[name] = msgspec.structs.replace(terms, caller=caller, notify_at=())
    return found


def _without_parts(limits: Iterable[Limit]) -> list[Limit]:
    """The limits without the thresholds of receivers, which are shown there."""
    return [msgspec.structs.replace(limit, notify_at=()) if limit.notify_at else limit for limit in limits]


def _receivers(snapshot: ConfigSnapshot) -> dict[str, NotificationChannel]:
    return {channel.name: channel for channel in snapshot.channels}


def _receiver(channel: NotificationChannel) -> dict[str, Any]:
    """Without its URL and its secret."""
    shown = {"format": channel.format, "at": list(channel.at), "teams": list(channel.teams)}
    return {**shown, "events": list(channel.events)}


def _models(snapshot: ConfigSnapshot) -> dict[str, Model]:
    """Without the time of their load. Upstreams are compared by what requests notice, and shown by their names."""
    return {
        model.name: msgspec.structs.replace(model, created=0, limits=tuple(_without_parts(model.limits)))
        for model in snapshot.models.values()
    }


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
