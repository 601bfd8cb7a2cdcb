"""Compares the configured prices with the catalogue's, and writes the catalogue's as text for the configuration.

A row is one field of a model's price on one of its routes. What is compared is what a request is charged: a field that
is left out falls back to another one, by the same rule on both sides. A field that is written can differ (`differs`);
one that is left out is `left out` if its fallback has another price.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple

from gateway.finance.price_catalogue import CatalogueEntry, NotFound, PriceCatalogue, PriceFields, charged, flat, nested
from gateway.settings.models import Settings
from gateway.settings.price_settings import PriceSettings, TierPriceSettings

TOLERANCE = Decimal("0.01")
"""The part of the catalogue's price up to which two prices count as the same."""

FILE_HEADER = "# Prices from the catalogue "
"""How a prices file begins."""


class PriceStatus(StrEnum):
    SAME = "same"
    DIFFERS = "differs"
    LEFT_OUT = "left out"
    NOT_CONFIGURED = "not configured"
    NOT_IN_CATALOGUE = "not in the catalogue"
    UNKNOWN = "unknown"


DIFFERENT = frozenset({PriceStatus.DIFFERS, PriceStatus.LEFT_OUT, PriceStatus.NOT_CONFIGURED})
"""What `gateway prices diff` lists: the ledger's money is not the provider's."""


class PriceRow(NamedTuple):
    """Prices are in USD, `difference` is in percent of the catalogue's price. `written` says whether the configuration
    has this field, `entry` is the catalogue's model, `reason` says why there is none."""

    model: str
    upstream: str
    route_model: str
    entry: str
    field: str
    status: PriceStatus
    configured: Decimal | None = None
    catalogue: Decimal | None = None
    written: bool = False
    reason: str = ""

    @property
    def difference(self) -> Decimal | None:
        if self.configured is None or not self.catalogue:
            return None
        return (self.configured - self.catalogue) / self.catalogue * 100

    def as_json(self) -> dict[str, Any]:
        row = self._asdict() | {"difference_percent": self.difference}
        return {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()}


class PriceWarning(NamedTuple):
    """Something about the setting at `path`."""

    path: tuple[str | int, ...]
    message: str


class _Route(NamedTuple):
    """`price_path` is where the price of its requests is set: the route's own, or the model's."""

    model: str
    upstream: str
    route_model: str
    found: CatalogueEntry | NotFound
    price: PriceSettings | None
    price_path: tuple[str | int, ...]

    @property
    def configured(self) -> PriceFields | None:
        return None if self.price is None else flat(self.price.model_dump(exclude_none=True))

    def path_of(self, field: str) -> tuple[str | int, ...]:
        """The place in the configuration of a field that is written down."""
        assert self.price is not None, "only fields that are written down have a path"
        *kinds, name = field.split(".")
        place: TierPriceSettings = self.price
        steps: list[str | int] = []
        for kind, group in zip(kinds[::2], kinds[1::2], strict=True):
            if kind == "tiers":
                place = self.price.tiers[group]
                steps += [kind, group]
            else:
                steps += [kind, [step.tokens for step in place.above].index(int(group))]
        return (*self.price_path, *steps, name)


def compare(settings: Settings, catalogue: PriceCatalogue) -> list[PriceRow]:
    """A row for each field of either side, in the configuration's order."""
    return [row for route in _routes(settings, catalogue) for row in _rows(route)]


def warnings(settings: Settings, catalogue: PriceCatalogue) -> list[PriceWarning]:
    """A warning for each price of the configuration that is not the catalogue's."""
    found: dict[PriceWarning, None] = {}
    for route in _routes(settings, catalogue):
        for row in _rows(route):
            if row.status is PriceStatus.DIFFERS and row.catalogue is not None:
                message = (
                    f"is {_signed(row)} than the {usd(row.catalogue)} USD of the price catalogue"
                    f" ({row.entry}, {catalogue.title}); see `gateway prices diff`"
                )
                found[PriceWarning(route.path_of(row.field), message)] = None
    return list(found)


def prices_file(settings: Settings, catalogue: PriceCatalogue) -> str:
    """The catalogue's prices as YAML: each `price` goes into its model of the configuration."""
    lines = [
        f"{FILE_HEADER}{catalogue.title}, in USD per million tokens, or per unit.",
        "# Nothing reads this file: paste each `price` into its model, after a look at the provider's own page.",
        "models:",
    ]
    for name, routes in groupby(_routes(settings, catalogue), key=lambda route: route.model):
        lines += _lines(name, list(routes))
    return "\n".join(lines) + "\n"


def usd(amount: Decimal) -> str:
    """In decimals, without trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _routes(settings: Settings, catalogue: PriceCatalogue) -> Iterator[_Route]:
    """Each target of a model's requests, once."""
    for name, model in settings.models.items():
        places: dict[tuple[str, str], _Route] = {}
        for index, route in enumerate(model.routes):
            place = (route.upstream, route.model or name)
            path = () if route.price is None else ("routes", index)
            found = catalogue.look_up(settings, *place)
            price = route.price or model.price
            places.setdefault(place, _Route(name, *place, found, price, ("models", name, *path, "price")))
        yield from places.values()


def _rows(route: _Route) -> Iterator[PriceRow]:
    if isinstance(route.found, NotFound):
        yield PriceRow(*route[:3], "", "", PriceStatus.UNKNOWN, reason=route.found.reason)
        return
    entry, price = route.found.name, route.found.price
    configuration = route.configured
    written = configuration or {}
    for field in dict.fromkeys((*price, *written)):
        configured, known = charged(written, field), charged(price, field)
        status = _status(configuration, field, configured, known)
        yield PriceRow(*route[:3], entry, field, status, configured, known, field in written)


def _status(
    written: PriceFields | None, field: str, configured: Decimal | None, catalogue: Decimal | None
) -> PriceStatus:
    if written is None:
        return PriceStatus.NOT_CONFIGURED
    if catalogue is None:
        return PriceStatus.NOT_IN_CATALOGUE
    if abs((configured or 0) - catalogue) <= TOLERANCE * catalogue:
        return PriceStatus.SAME
    return PriceStatus.DIFFERS if field in written else PriceStatus.LEFT_OUT


def _signed(row: PriceRow) -> str:
    difference = row.difference
    if difference is None:
        return "higher"
    return f"{abs(difference):.1f} % {'higher' if difference > 0 else 'lower'}"


def _lines(name: str, routes: list[_Route]) -> Iterator[str]:
    """A model's price is that of its first route that the catalogue knows; those of the others are comments."""
    known = [route for route in routes if isinstance(route.found, CatalogueEntry)]
    yield f"  {_scalar(name)}:" if known else f"  # {_scalar(name)}:"
    first: PriceFields | None = None
    for route in routes:
        place = f"{route.upstream}: {route.route_model}"
        if isinstance(route.found, NotFound):
            yield f"    # {place}: {route.found.reason}"
            continue
        lead = "    price:" if first is None else "    # the price of this route:"
        yield f"    # {place}: {_origin(route.found)}"
        if first is None or route.found.price != first:
            yield f"{lead} {_flow(nested(route.found.price))}"
        first = first or route.found.price


def _origin(entry: CatalogueEntry) -> str:
    left_out = f"; it also has {', '.join(entry.unsupported)}" if entry.unsupported else ""
    return f"{entry.name}{left_out}"


def _flow(value: Any) -> str:
    """YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    return usd(value) if isinstance(value, Decimal) else str(value)


def _scalar(text: str) -> str:
    """In single quotes, in which only a quote has a meaning; a model's name has no control character."""
    return "'" + text.replace("'", "''") + "'"
