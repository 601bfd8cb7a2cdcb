"""The formats of usage exports: by which fields each is known, and what its results and rows say.

OpenAI's `input_tokens` include the cached and the written ones, as the ledger's do; Anthropic's do not, and are added.
Anthropic's API gives money in cents, its Console in dollars, rounded to cents in each row.

Sources: OpenAI's API reference (Usage, Costs), Anthropic's Admin API reference (Usage Report, Cost Report), headers of
downloaded files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

Figures = Mapping[str, Decimal]
"""By the names of the ledger's report: requests, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
usd. Counts that a format does not have are left out."""

_CENT = Decimal("0.01")
_MOST_DIGITS = 18
_YEARS = range(2020, 2200)
"""In which these APIs bill: of a day elsewhere, all days between it and the others would be compared."""


class ExportBroken(Exception):
    """The file is not a usage export. The text names the line or the element, and what is wrong with it."""


class ExportLine(NamedTuple):
    model: str
    figures: Figures


class ExportFields:
    """A result of an API, or a row of a CSV. Reading raises ExportBroken with its place."""

    def __init__(self, place: str, values: Mapping[str, Any]) -> None:
        self.place = place
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) not in (None, "")

    def text(self, name: str) -> str:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "must be text")
        return (value or "").strip()

    def number(self, name: str) -> Decimal:
        """0 if it is left out."""
        value = self._values.get(name)
        if value is None or value == "":
            return Decimal(0)
        if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
            raise self.wrong(name, "must be a number")
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise self.wrong(name, "must be a number") from None
        if not number.is_finite() or number.adjusted() > _MOST_DIGITS:
            raise self.wrong(name, "must be a number")
        return number

    def count(self, *names: str) -> Decimal:
        """The sum of these counts."""
        for name in names:
            number = self.number(name)
            if number < 0 or number % 1:
                raise self.wrong(name, "must be a whole number from 0")
        return sum((self.number(name) for name in names), Decimal(0))

    def inner(self, name: str) -> ExportFields:
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        return ExportFields(f"{self.place}.{name}", value or {})

    def dollars(self, amount: str, currency: str) -> Decimal:
        if self.text(currency).lower() not in ("", "usd"):
            raise self.wrong(currency, "must be USD; no other currency can be compared")
        return self.number(amount)

    def wrong(self, name: str, what: str) -> ExportBroken:
        return ExportBroken(f"{self.place}: {name} {what}")


class ExportFormat(NamedTuple):
    """`marks` are the fields by which a result or a header is known, `starts` the field with a row's or bucket's
    beginning, `read` takes one result or row; None for one without usage."""

    title: str
    marks: frozenset[str]
    starts: str
    read: Callable[[ExportFields], ExportLine | None]
    rounding: Decimal = Decimal(0)


def _openai_usage(fields: ExportFields) -> ExportLine | None:
    if "num_model_requests" not in fields:
        return None
    figures = {"requests": fields.count("num_model_requests")}
    # Images, speech and transcription count other units than tokens.
    for name, theirs in (
        ("input_tokens", "input_tokens"),
        ("cached_input_tokens", "input_cached_tokens"),
        ("cache_write_tokens", "input_cache_write_tokens"),
        ("output_tokens", "output_tokens"),
    ):
        if theirs in fields:
            figures[name] = fields.count(theirs)
    return ExportLine(fields.text("model"), figures)


def _openai_costs(fields: ExportFields) -> ExportLine | None:
    amount = fields.inner("amount")
    return ExportLine(_model_of_line_item(fields.text("line_item")), {"usd": amount.dollars("value", "currency")})


def _openai_costs_csv(fields: ExportFields) -> ExportLine | None:
    if "amount_value" not in fields:
        return None
    usd = fields.dollars("amount_value", "amount_currency")
    return ExportLine(_model_of_line_item(fields.text("line_item")), {"usd": usd})


def _model_of_line_item(line_item: str) -> str:
    """`gpt-5.4-mini-2026-03-17, cached input` names its model; `web search tool calls` names none."""
    model, comma, _ = line_item.rpartition(", ")
    return model if comma else ""


def _anthropic_usage(fields: ExportFields) -> ExportLine | None:
    writes = fields.inner("cache_creation").count("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    cached = fields.count("cache_read_input_tokens")
    return _anthropic_line(fields, fields.text("model"), "uncached_input_tokens", cached, writes, "output_tokens")


def _anthropic_usage_csv(fields: ExportFields) -> ExportLine | None:
    writes = fields.count("usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h")
    cached = fields.count("usage_input_tokens_cache_read")
    model = fields.text("model_version")
    return _anthropic_line(fields, model, "usage_input_tokens_no_cache", cached, writes, "usage_output_tokens")


def _anthropic_line(
    fields: ExportFields, model: str, uncached: str, cached: Decimal, writes: Decimal, output: str
) -> ExportLine:
    return ExportLine(
        model,
        {
            "input_tokens": fields.count(uncached) + cached + writes,
            "cached_input_tokens": cached,
            "cache_write_tokens": writes,
            "output_tokens": fields.count(output),
        },
    )


def _anthropic_costs(fields: ExportFields) -> ExportLine | None:
    return ExportLine(fields.text("model"), {"usd": fields.dollars("amount", "currency") * _CENT})


def _anthropic_costs_csv(fields: ExportFields) -> ExportLine | None:
    return ExportLine(fields.text("model"), {"usd": fields.number("cost_usd")})


API_FORMATS = (
    ExportFormat("OpenAI usage API", frozenset({"num_model_requests"}), "start_time", _openai_usage),
    ExportFormat("OpenAI costs API", frozenset({"amount"}), "start_time", _openai_costs),
    ExportFormat("Anthropic usage API", frozenset({"uncached_input_tokens"}), "starting_at", _anthropic_usage),
    ExportFormat("Anthropic cost API", frozenset({"amount", "currency"}), "starting_at", _anthropic_costs),
)
CSV_FORMATS = (
    ExportFormat("OpenAI cost CSV", frozenset({"start_time", "amount_value"}), "start_time", _openai_costs_csv),
    ExportFormat("OpenAI usage CSV", frozenset({"start_time", "num_model_requests"}), "start_time", _openai_usage),
    ExportFormat(
        "Anthropic Console usage CSV",
        frozenset({"usage_date_utc", "usage_input_tokens_no_cache"}),
        "usage_date_utc",
        _anthropic_usage_csv,
    ),
    ExportFormat(
        "Anthropic Console cost CSV",
        frozenset({"usage_date_utc", "cost_usd"}),
        "usage_date_utc",
        _anthropic_costs_csv,
        rounding=_CENT / 2,
    ),
)


def day_of(fields: ExportFields, name: str) -> date:
    """Seconds since 1970, or a day or time of RFC 3339; in UTC."""
    if name not in fields:
        raise fields.wrong(name, "is missing")
    try:
        day = _day_of_seconds(fields.number(name)) if name == "start_time" else _day_of_text(fields.text(name))
    except (ValueError, OverflowError, OSError):
        day = None
    if day is None or day.year not in _YEARS:
        raise fields.wrong(name, "must be a time, as the provider writes it")
    return day


def _day_of_seconds(seconds: Decimal) -> date:
    return datetime.fromtimestamp(int(seconds), UTC).date()


def _day_of_text(text: str) -> date:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        return date.fromisoformat(text)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
