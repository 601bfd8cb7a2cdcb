"""What must hold of limits: each has one meter, can bind something, can be kept exactly, and has a name
of its own in its scope. A limit that silently does nothing is the worst kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from typing import NamedTuple

from gateway.core.limits import Meter, Per
from gateway.settings.kinds import MAX_WHOLE
from gateway.settings.known import Known
from gateway.settings.limit import LimitSettings
from gateway.settings.problems import Finding, Path
from gateway.settings.shape import Settings

_UNCERTAIN = {Meter.TOKENS, Meter.OUTPUT_TOKENS, Meter.USD}
"""Meters of quotas that one answer without a maximum can overrun."""


class _Scoped(NamedTuple):
    """The limits of one scope, and the models whose requests they can see."""

    limits: Sequence[LimitSettings]
    models: frozenset[str]


def limit_errors(settings: Settings, known: Known) -> Iterator[Finding]:
    for limits, models in _scopes(settings, known):
        titles: dict[str, LimitSettings] = {}
        for limit in limits:
            if len(limit.meters) != 1:
                yield Finding(limit.path, f"needs exactly one meter of {', '.join(Meter)}")
                continue
            yield from _window(limit)
            yield from _size(limit)
            yield from _reach(limit, models, known)
            if limit.title in titles:
                yield Finding(limit.path, f"has the same name as another one here, {limit.title}; give one a `name`")
            titles.setdefault(limit.title, limit)


def limit_warnings(settings: Settings, known: Known) -> Iterator[Finding]:
    """Models under a quota whose answers have no maximum."""
    quotas = [
        known.fitting(limit.models) & models
        for limits, models in _scopes(settings, known)
        for limit in limits
        if limit.meter in _UNCERTAIN and limit.window is not None and limit.window.rate_ms is None
    ]
    covered: frozenset[str] = frozenset().union(*quotas)
    for name, model in settings.models.items():
        if name in covered and model.max_output_tokens is None:
            yield Finding(
                ("models", name), "is under a quota but has no `max_output_tokens`: one long answer may overrun it"
            )


def idle_patterns(
    path: Path, patterns: Sequence[str] | None, models: frozenset[str], known: Known
) -> Iterator[Finding]:
    """Those of the patterns at `path` that match none of `models`."""
    for index, pattern in enumerate(patterns or ()):
        if models and models.isdisjoint(known.fitting((pattern,))):
            model = known.aliases.get(pattern)
            hint = f"it is an alias, name {model} itself" if model else f"there are {_names(models)}"
            yield Finding((*path, index), f"matches no model that can be used here; {hint}")


def _scopes(settings: Settings, known: Known) -> Iterator[_Scoped]:
    yield _Scoped(settings.limits, frozenset(known.models))
    for name, model in settings.models.items():
        yield _Scoped(model.limits, frozenset({name}))
    for team in settings.teams.values():
        allowed = known.fitting(team.models)
        yield _Scoped(team.limits, allowed)
        yield _Scoped(team.user_limits, allowed)
        for key in team.keys:
            yield _Scoped(key.limits, allowed & known.fitting(key.models))


def _window(limit: LimitSettings) -> Iterator[Finding]:
    if limit.meter is Meter.CONCURRENT and limit.per is not None:
        yield Finding((*limit.path, "per"), "has no meaning for `concurrent`, which counts requests in flight")
    if limit.meter is not Meter.CONCURRENT and limit.per is None:
        yield Finding((*limit.path, "per"), f"is missing; it must be one of {', '.join(Per)}")
    is_rate = limit.window is not None and limit.window.rate_ms is not None
    if limit.when_spent == "stop" and (is_rate or limit.window is None):
        yield Finding((*limit.path, "when_spent"), "belongs to quotas alone (per day, week, month or total)")
    if limit.burst is not None and not is_rate:
        yield Finding((*limit.path, "burst"), "belongs to rates alone (per second, minute or hour)")


def _size(limit: LimitSettings) -> Iterator[Finding]:
    """Quotas are kept in units, rates in the parts of one that flow back in a millisecond; both must stay exact."""
    if limit.burst is not None and limit.meter is not Meter.USD and limit.burst != int(limit.burst):
        yield Finding((*limit.path, "burst"), f"must be a whole number of {limit.meter}")
    period_ms = (limit.window.rate_ms if limit.window else None) or 1
    most = MAX_WHOLE // (period_ms // gcd(int(limit.amount), period_ms))
    unit = "micro-dollars" if limit.meter is Meter.USD else limit.meter.value
    for name, amount in ((limit.meter.value, limit.amount), ("burst", limit.bucket)):
        if amount > most and (name != "burst" or limit.burst is not None):
            yield Finding((*limit.path, name), f"is too large to be kept exactly; at most {most} {unit}")


def _reach(limit: LimitSettings, models: frozenset[str], known: Known) -> Iterator[Finding]:
    yield from idle_patterns((*limit.path, "models"), limit.models, models, known)
    unpriced = sorted(name for name in models & known.fitting(limit.models) if not known.models[name])
    if limit.meter is Meter.USD and unpriced:
        yield Finding(
            (*limit.path, "usd"), f"counts models without a price: {_names(unpriced)}; give them one or narrow `models`"
        )


def _names(models: frozenset[str] | list[str]) -> str:
    first = sorted(models)[:5]
    return ", ".join(first) + (f" and {len(models) - 5} more" if len(models) > 5 else "")
