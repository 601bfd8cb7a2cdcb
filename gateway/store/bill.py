"""The ledger as operators see it: rows of tokens and dollars, and their total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from gateway.core.errors import FieldInvalid
from gateway.store.contract import UsageQuery, UsageRow

GROUPS = ("day", "team", "key", "model")


def query_from(given: Mapping[str, str]) -> UsageQuery:
    """A query as written: `by` a list with commas, days as YYYY-MM-DD. Raises FieldInvalid."""
    unknown = [name for name in given if name not in ("by", "since", "until", "team", "key", "model")]
    if unknown:
        raise FieldInvalid(
            f"{unknown[0]!r} is not known here; there are by, since, until, team, key, model.", param=unknown[0]
        )
    by = tuple(part for part in given.get("by", "").split(",") if part)
    for part in by:
        if part not in GROUPS:
            raise FieldInvalid(f"'by' cannot be {part!r}; it is made of {', '.join(GROUPS)}.", param="by")
    for name in ("since", "until"):
        _check_day(name, given.get(name, ""))
    return UsageQuery(by=by, **{name: given[name] for name in given if name != "by"})


def bill(rows: Sequence[UsageRow], by: Sequence[str]) -> dict[str, Any]:
    """`{"rows": […], "total": {…}}`; a row has the fields that it is grouped by, and its sums."""
    told = [{name: getattr(row, name) for name in by} | _sums((row,)) for row in rows]
    return {"rows": told, "total": _sums(rows)}


def _sums(rows: Iterable[UsageRow]) -> dict[str, int | float]:
    every = list(rows)
    return {
        "requests": sum(row.requests for row in every),
        "input_tokens": sum(row.input for row in every),
        "cached_input_tokens": sum(row.cached_input for row in every),
        "output_tokens": sum(row.output for row in every),
        "reasoning_tokens": sum(row.reasoning for row in every),
        "estimated_tokens": sum(row.estimated for row in every),
        "usd": sum(row.cost for row in every) / 1_000_000,
    }


def _check_day(name: str, text: str) -> None:
    try:
        if text:
            date.fromisoformat(text)
    except ValueError:
        raise FieldInvalid(f"{name!r} must be a day such as 2026-11-01.", param=name) from None
