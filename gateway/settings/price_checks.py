"""Checks of prices: those that say nothing or say it twice, and what is free, probably by mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.core.limits import Meter
from gateway.core.pricing import SERVICE_TIERS
from gateway.settings.diagnostics import Diagnostic, Path
from gateway.settings.limit_checks import scopes
from gateway.settings.models import RouteSettings, Settings
from gateway.settings.name_index import NameIndex
from gateway.settings.price_settings import PriceSettings, PriceStepSettings

_EMPTY = "is empty; name at least one price, or leave it out"

_SEARCHING_PRESETS = {"openai", "azure", "anthropic", "openrouter", "gemini", "vertex"}
"""The endpoints whose answers report searches, which are charged separately from tokens."""


class _WrittenPrice(NamedTuple):
    """A price of a model or of a route, and the routes that it prices."""

    path: Path
    price: PriceSettings
    model: str
    routes: Sequence[RouteSettings]


def _written_prices(settings: Settings) -> Iterator[_WrittenPrice]:
    for name, model in settings.models.items():
        if model.price is not None:
            routes = [route for route in model.routes if route.price is None]
            yield _WrittenPrice(("models", name, "price"), model.price, name, routes)
        for place, route in enumerate(model.routes):
            if route.price is not None:
                yield _WrittenPrice(("models", name, "routes", place, "price"), route.price, name, [route])


def price_errors(settings: Settings) -> Iterator[Diagnostic]:
    """Prices that say nothing, or say something twice."""
    for path, price, _, _ in _written_prices(settings):
        if not price.prices and not price.above and not price.tiers:
            yield Diagnostic(path, _EMPTY)
        yield from _steps((*path, "above"), price.above)
        for name, tier in price.tiers.items():
            if not tier.prices and not tier.above:
                yield Diagnostic((*path, "tiers", name), _EMPTY)
            yield from _steps((*path, "tiers", name, "above"), tier.above)


def _steps(path: Path, steps: Sequence[PriceStepSettings]) -> Iterator[Diagnostic]:
    seen: set[int] = set()
    for place, step in enumerate(steps):
        if not step.prices:
            yield Diagnostic((*path, place), _EMPTY)
        if step.tokens in seen:
            yield Diagnostic((*path, place, "tokens"), "is the same as of another step; put their prices into one")
        seen.add(step.tokens)


def price_warnings(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """For settings without errors."""
    yield from _free_parts(settings)
    yield from _free_searches(settings, index)


def _free_parts(settings: Settings) -> Iterator[Diagnostic]:
    for path, price, name, _ in _written_prices(settings):
        if "input" in price.prices and "output" not in price.prices and settings.models[name].max_output_tokens:
            yield Diagnostic(path, "has no `output`, so that the output is free; write `output: 0` if it is")
        for tier in sorted(price.tiers.keys() - SERVICE_TIERS):
            known = ", ".join(sorted(SERVICE_TIERS))
            yield Diagnostic((*path, "tiers", tier), f"is not a service tier of a known API: {known}")
    for name, model in settings.models.items():
        free = [place for place, route in enumerate(model.routes) if route.price is None and model.price is None]
        for place in free if len(free) < len(model.routes) else ():
            yield Diagnostic(("models", name, "routes", place), "has no price, so that what it serves is free")


def _free_searches(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """Models under a `usd` limit whose provider searches the web for them, and whose searches have no price."""
    reached: set[frozenset[str]] = set()
    for limits, models in scopes(settings, index):
        reached |= {index.fitting_of(models, limit.models) for limit in limits if limit.meter is Meter.USD}
    counted = frozenset().union(*reached)
    for path, price, name, routes in _written_prices(settings):
        searching = any(settings.upstreams[route.upstream].preset in _SEARCHING_PRESETS for route in routes)
        if name in counted and searching and price.output and price.search is None:
            yield Diagnostic(path, "has no `search`, so that web searches are free; name their price, or `search: 0`")
