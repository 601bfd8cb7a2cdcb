"""Reads a provider's usage export, and sums it by day and model.

Eight formats, recognised by their content:

- OpenAI's usage API (`/v1/organization/usage/completions`, `embeddings` …) and costs API (`/v1/organization/costs`),
  and the CSV of its usage and cost dashboards, which have the same fields as columns;
- Anthropic's usage API (`/v1/organizations/usage_report/messages`) and cost API (`/v1/organizations/cost_report`),
  and the CSV of its Console's usage and cost pages.

A JSON file holds one page of the API or several, in a list or one after the other, in any order; a single bucket is
accepted, too. Buckets of minutes and hours are added up. Days are the provider's: both count them in UTC.

OpenAI's `input_tokens` include the cached and the written ones, as the ledger's do; Anthropic's do not, and are added.
Anthropic's API gives money in cents, its Console in dollars, rounded to cents in each row.

Sources: OpenAI's API reference (Usage, Costs), Anthropic's Admin API reference (Usage Report, Cost Report), headers of
downloaded files.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from io import StringIO
from typing import Any, NamedTuple

Figures = Mapping[str, Decimal]
"""By the names of the ledger's report: requests, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
usd. Counts that a format does not have are left out."""

_CENT = Decimal("0.01")
_MOST_DIGITS = 18
_YEARS = range(2020, 2200)
"""In which these APIs bill: of a day elsewhere, all days between it and the others would be compared."""

_BLANK = re.compile(r"\s*")


class ExportBroken(Exception):
    """The file is not a usage export. The text names the line or the element, and what is wrong with it."""


@dataclass
class ExportCell:
    """One day of one model. `rounding` is by how many dollars the file's rounding may have changed the money."""

    figures: dict[str, Decimal] = field(default_factory=dict)
    rounding: Decimal = Decimal(0)

    def add(self, figures: Figures, rounding: Decimal) -> None:
        for name, amount in figures.items():
            self.figures[name] = self.figures.get(name, Decimal(0)) + amount
        self.rounding += rounding


@dataclass
class UsageExport:
    """`cells` by day and by the provider's name of the model, empty where the file names none. `days` are all that
    the file covers, those without usage, too. `is_complete`: the API says that there are no more pages."""

    title: str
    cells: dict[tuple[date, str], ExportCell] = field(default_factory=dict)
    days: set[date] = field(default_factory=set)
    is_complete: bool = True

    @property
    def names_models(self) -> bool:
        return any(model for _, model in self.cells)

    @property
    def figures(self) -> frozenset[str]:
        """The names of the counts that the file has."""
        return frozenset(name for cell in self.cells.values() for name in cell.figures)

    def add(self, day: date, line: _ExportLine, rounding: Decimal) -> None:
        self.days.add(day)
        self.cells.setdefault((day, line.model), ExportCell()).add(line.figures, rounding)

    @property
    def span(self) -> list[date]:
        """Every day from the first to the last."""
        first, last = min(self.days), max(self.days)
        return [first + timedelta(days=index) for index in range((last - first).days + 1)]


class _ExportLine(NamedTuple):
    model: str
    figures: Figures


class _ExportFields:
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

    def inner(self, name: str) -> _ExportFields:
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        return _ExportFields(f"{self.place}.{name}", value or {})

    def dollars(self, amount: str, currency: str) -> Decimal:
        if self.text(currency).lower() not in ("", "usd"):
            raise self.wrong(currency, "must be USD; no other currency can be compared")
        return self.number(amount)

    def wrong(self, name: str, what: str) -> ExportBroken:
        return ExportBroken(f"{self.place}: {name} {what}")


class _Format(NamedTuple):
    """`marks` are the fields by which a result or a header is known, `starts` the field with a row's or bucket's
    beginning, `read` takes one result or row; None for one without usage."""

    title: str
    marks: frozenset[str]
    starts: str
    read: Callable[[_ExportFields], _ExportLine | None]
    rounding: Decimal = Decimal(0)


def _openai_usage(fields: _ExportFields) -> _ExportLine | None:
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
    return _ExportLine(fields.text("model"), figures)


def _openai_costs(fields: _ExportFields) -> _ExportLine | None:
    amount = fields.inner("amount")
    return _ExportLine(_model_of_line_item(fields.text("line_item")), {"usd": amount.dollars("value", "currency")})


def _openai_costs_csv(fields: _ExportFields) -> _ExportLine | None:
    if "amount_value" not in fields:
        return None
    usd = fields.dollars("amount_value", "amount_currency")
    return _ExportLine(_model_of_line_item(fields.text("line_item")), {"usd": usd})


def _model_of_line_item(line_item: str) -> str:
    """`gpt-5.4-mini-2026-03-17, cached input` names its model; `web search tool calls` names none."""
    model, comma, _ = line_item.rpartition(", ")
    return model if comma else ""


def _anthropic_usage(fields: _ExportFields) -> _ExportLine | None:
    writes = fields.inner("cache_creation").count("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    cached = fields.count("cache_read_input_tokens")
    return _anthropic_line(fields, fields.text("model"), "uncached_input_tokens", cached, writes, "output_tokens")


def _anthropic_usage_csv(fields: _ExportFields) -> _ExportLine | None:
    writes = fields.count("usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h")
    cached = fields.count("usage_input_tokens_cache_read")
    model = fields.text("model_version")
    return _anthropic_line(fields, model, "usage_input_tokens_no_cache", cached, writes, "usage_output_tokens")


def _anthropic_line(
    fields: _ExportFields, model: str, uncached: str, cached: Decimal, writes: Decimal, output: str
) -> _ExportLine:
    return _ExportLine(
        model,
        {
            "input_tokens": fields.count(uncached) + cached + writes,
            "cached_input_tokens": cached,
            "cache_write_tokens": writes,
            "output_tokens": fields.count(output),
        },
    )


def _anthropic_costs(fields: _ExportFields) -> _ExportLine | None:
    return _ExportLine(fields.text("model"), {"usd": fields.dollars("amount", "currency") * _CENT})


def _anthropic_costs_csv(fields: _ExportFields) -> _ExportLine | None:
    return _ExportLine(fields.text("model"), {"usd": fields.number("cost_usd")})


_APIS = (
    _Format("OpenAI usage API", frozenset({"num_model_requests"}), "start_time", _openai_usage),
    _Format("OpenAI costs API", frozenset({"amount"}), "start_time", _openai_costs),
    _Format("Anthropic usage API", frozenset({"uncached_input_tokens"}), "starting_at", _anthropic_usage),
    _Format("Anthropic cost API", frozenset({"amount", "currency"}), "starting_at", _anthropic_costs),
)
_CSVS = (
    _Format("OpenAI cost CSV", frozenset({"start_time", "amount_value"}), "start_time", _openai_costs_csv),
    _Format("OpenAI usage CSV", frozenset({"start_time", "num_model_requests"}), "start_time", _openai_usage),
    _Format(
        "Anthropic Console usage CSV",
        frozenset({"usage_date_utc", "usage_input_tokens_no_cache"}),
        "usage_date_utc",
        _anthropic_usage_csv,
    ),
    _Format(
        "Anthropic Console cost CSV",
        frozenset({"usage_date_utc", "cost_usd"}),
        "usage_date_utc",
        _anthropic_costs_csv,
        rounding=_CENT / 2,
    ),
)


def read_export(text: str) -> UsageExport:
    """Raises ExportBroken."""
    body = text.removeprefix("\ufeff")
    if not body.strip():
        raise ExportBroken("it is empty")
    export = _read_json(body) if body.lstrip()[:1] in ("{", "[") else _read_csv(body)
    if not export.cells:
        raise ExportBroken("it has no usage at all; export days on which the key was used")
    return export


def _read_json(text: str) -> UsageExport:
    export = UsageExport("")  # The first result tells of which API the file is.
    pages = list(_pages(text))
    seen: dict[str, str] = {}
    for place, page in pages:
        for number, bucket in enumerate(page["data"]):
            where = f"{place}data[{number}]"
            _add_bucket(export, where, bucket)
            same = seen.setdefault(json.dumps(bucket, default=str, sort_keys=True), where)
            if same is not where and bucket["results"]:
                raise ExportBroken(f"{where} is the same as {same}: a page is in the file twice")
    export.is_complete = any(not page.get("has_more") for _, page in pages)
    return export


def _pages(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each page and, if there are several, its place."""
    documents = _documents(text)
    is_single = len(documents) == 1 and not isinstance(documents[0], list)
    for number, document in enumerate(documents[0] if len(documents) == 1 and not is_single else documents):
        place = "" if is_single else f"[{number}]."
        page = {"data": [document]} if isinstance(document, dict) and "results" in document else document
        if isinstance(page, dict) and "error" in page:
            raise ExportBroken(f"{place}error: the API has answered an error instead of usage: {_message(page)}")
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise ExportBroken(f"{place}data must be a list of buckets, as the usage APIs give it")
        yield place, page


def _documents(text: str) -> list[Any]:
    """The JSON values of a text, one after the other."""
    decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_number)
    documents, at = [], 0
    try:
        while (at := _BLANK.match(text, at).end()) < len(text):  # type: ignore[union-attr]  # It matches nothing, too.
            document, at = decoder.raw_decode(text, at)
            documents.append(document)
    except json.JSONDecodeError as error:
        raise ExportBroken(f"line {error.lineno}: it is not JSON: {error.msg}") from None
    except (RecursionError, ValueError):
        raise ExportBroken("it is not JSON: a number or its nesting has no sensible size") from None
    return documents


def _message(page: Mapping[str, Any]) -> str:
    error = page["error"]
    message = error.get("message") if isinstance(error, dict) else error
    return "".join(character for character in str(message) if character.isprintable())[:200].rstrip(".")


def _add_bucket(export: UsageExport, place: str, bucket: Any) -> None:
    results = bucket.get("results") if isinstance(bucket, dict) else None
    if not isinstance(results, list):
        raise ExportBroken(f"{place} must be a bucket with `results`")
    starts = "start_time" if "start_time" in bucket else "starting_at"
    day = _day(_ExportFields(place, bucket), starts)
    export.days.add(day)
    for index, result in enumerate(results):
        names = frozenset(result) if isinstance(result, dict) else frozenset()
        fields = _ExportFields(f"{place}.results[{index}]", result if names else {})
        api = next((api for api in _APIS if api.starts == starts and api.marks <= names), None)
        if api is None:
            raise ExportBroken(f"{fields.place} is neither usage nor cost, as OpenAI's or Anthropic's APIs give them")
        if export.title and export.title != api.title:
            raise ExportBroken(f"{fields.place} is of the {api.title}, what precedes it of the {export.title}")
        export.title = api.title
        line = api.read(fields)
        if line is not None:
            export.add(day, line, api.rounding)


def _read_csv(text: str) -> UsageExport:
    header, _, _ = text.partition("\n")
    delimiter = next((mark for mark in ("\t", ",", ";") if mark in header), ",")
    rows = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in rows.fieldnames or ()]
    except csv.Error as error:
        raise ExportBroken(f"line 1: it is not CSV: {error}") from None
    columns = frozenset(names)
    kind = next((kind for kind in _CSVS if kind.marks <= columns), None)
    if kind is None:
        raise ExportBroken(
            "line 1: it is neither JSON nor a CSV with the columns of OpenAI's usage and cost exports or of Anthropic's"
        )
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ExportBroken(f"line 1: the column {twice} is there twice")
    export = UsageExport(kind.title)
    for place, row in _csv_rows(rows):
        fields = _ExportFields(place, row)
        day = _day(fields, kind.starts)
        export.days.add(day)
        line = kind.read(fields)
        if line is not None:
            export.add(day, line, kind.rounding)
    return export


def _csv_rows(rows: csv.DictReader[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        for row in rows:
            place = f"line {rows.line_num}"
            if None in row or None in row.values():
                raise ExportBroken(f"{place}: it has {'more' if None in row else 'fewer'} columns than the header")
            yield place, {name.strip(): value for name, value in row.items()}
    except csv.Error as error:
        raise ExportBroken(f"line {rows.line_num}: it is not CSV: {error}") from None


def _day(fields: _ExportFields, name: str) -> date:
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


def _no_number(text: str) -> Decimal:
    raise ValueError(text)
