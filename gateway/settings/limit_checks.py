"""Checks of limits: each has one meter, can bind something, can be counted exactly, and has its own name in its scope.
A limit that silently does nothing is the worst kind of error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from gateway.core.limits import Meter
from gateway.core.pricing import FAST
from gateway.core.reservation import OUTPUT_SHARE_FLOOR, output_share
from gateway.settings.diagnostics import Diagnostic
from gateway.settings.limit_settings import LimitSettings
from gateway.settings.models import ModelSettings, Settings
from gateway.settings.name_index import NameIndex, idle_patterns, some_of
from gateway.settings.written_limit import limit_faults

_UNCERTAIN = {Meter.TOKENS, Meter.OUTPUT_TOKENS, Meter.USD}
"""Meters of quotas that one answer without a maximum can overrun."""

_OUTPUT_PRICES = ("output", "audio_output", "image_output")

_CROWD = 32
"""A quota that fewer requests at one time hold whole is worth a warning: a few coding agents send as many."""


class ScopedLimits(NamedTuple):
    """The limits of one scope, and the models whose requests they can see."""

    limits: Sequence[LimitSettings]
    models: frozenset[str]


def limit_errors(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    for limits, models in scopes(settings, index):
        titles: dict[str, LimitSettings] = {}
        for limit in limits:
            if len(limit.meters) != 1:
                yield Diagnostic(limit.path, f"needs exactly one meter of {', '.join(Meter)}")
                continue
            yield from limit_faults(limit)
            yield from _reach(limit, models, index)
            if limit.title in titles:
                yield Diagnostic(limit.path, f"has the same name as another one here, {limit.title}; give one a `name`")
            titles.setdefault(limit.title, limit)


class _OutputCap(NamedTuple):
    """What decides how much of a quota one answer of a model can reserve; `price` is that of its output."""

    max_output_tokens: int
    price: Decimal


def limit_warnings(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """Models under a quota whose answers have no maximum, and quotas that few requests hold whole."""
    covered: dict[frozenset[str], dict[_OutputCap, str]] = {}
    for limits, models in scopes(settings, index):
        for limit in limits:
            if limit.meter in _UNCERTAIN and limit.window is not None and limit.window.rate_ms is None:
                reach = index.fitting_of(models, limit.models)
                if reach not in covered:
                    covered[reach] = _output_caps(settings, reach)
                yield from _crowded(limit, covered[reach])
    names = frozenset().union(*covered)
    for name, model in settings.models.items():
        if name in names and model.max_output_tokens is None:
            yield Diagnostic(
                ("models", name), "is under a quota but has no `max_output_tokens`: one long answer may overrun it"
            )


def _output_caps(settings: Settings, names: Iterable[str]) -> dict[_OutputCap, str]:
    """The first of the models with each maximum and price. A model without a maximum has a warning of its own."""
    caps: dict[_OutputCap, str] = {}
    for name in sorted(names):
        model = settings.models[name]
        if model.max_output_tokens:
            caps.setdefault(_OutputCap(model.max_output_tokens, _highest_output_price(model)), name)
    return caps


def _highest_output_price(model: ModelSettings) -> Decimal:
    """The price by which a limit in dollars reserves output (`ceiling` of core/pricing.py): the highest of all routes
    for a short input, at the tiers that need not be asked for."""
    found = [Decimal(0)]
    for price in (route.price or model.price for route in model.routes):
        if price is not None:
            lists = [price, *(tier for name, tier in price.tiers.items() if name != FAST)]
            amounts = [getattr(each, name) for each in lists for name in _OUTPUT_PRICES]
            factor = max([Decimal(1), *price.regions.values()])
            found += [amount * factor for amount in amounts if amount is not None]
    return max(found)


def _crowded(limit: LimitSettings, caps: Mapping[_OutputCap, str]) -> Iterator[Diagnostic]:
    held, name = min(((_requests_held(limit, cap), name) for cap, name in caps.items()), default=(_CROWD, ""))
    if held < _CROWD:
        yield Diagnostic(
            (*limit.path, limit.meter.value),
            f"would be exhausted by {held} parallel requests without `max_tokens` to {name}: each reserves up to"
            f" an eighth of what is left, or {OUTPUT_SHARE_FLOOR:,} tokens; raise it, or send `max_tokens`",
        )


def _requests_held(limit: LimitSettings, cap: _OutputCap) -> int:
    """How many requests, of little input, hold the whole quota; at most _CROWD."""
    left = limit.amount
    if limit.meter is Meter.USD:
        if not cap.price:
            return _CROWD
        # Dollars for a million tokens are micro-dollars for one.
        left = int(limit.amount / cap.price)
    for count in range(_CROWD):
        if left <= 0:
            return count
        left -= min(cap.max_output_tokens, output_share(left, OUTPUT_SHARE_FLOOR))
    return _CROWD


def scopes(settings: Settings, index: NameIndex) -> Iterator[ScopedLimits]:
    yield ScopedLimits(settings.limits, frozenset(index.models))
    for name, model in settings.models.items():
        yield ScopedLimits(model.limits, frozenset({name}))
    for team in settings.teams.values():
        allowed = index.fitting(team.models)
        yield ScopedLimits(team.limits, allowed)
        yield ScopedLimits(team.key_limits, allowed)
        yield ScopedLimits(team.user_limits, allowed)
        for key in team.keys:
            yield ScopedLimits(key.limits, index.fitting_of(allowed, key.models))


def _reach(limit: LimitSettings, models: frozenset[str], index: NameIndex) -> Iterator[Diagnostic]:
    yield from idle_patterns((*limit.path, "models"), limit.models, models, index)
    if limit.meter is not Meter.USD:
        return
    if unpriced := index.unpriced(index.fitting_of(models, limit.models)):
        yield Diagnostic(
            (*limit.path, "usd"),
            f"counts models without a price: {some_of(unpriced)}; give them one or narrow `models`",
        )
