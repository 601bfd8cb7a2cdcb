"""Reads a provider's usage export, and sums it by day and model.

Eight formats, recognised by their content:

- OpenAI's usage API (`/v1/organization/usage/completions`, `embeddings` …) and costs API (`/v1/organization/costs`),
  and the CSV of its usage and cost dashboards, which have the same fields as columns;
- Anthropic's usage API (`/v1/organizations/usage_report/messages`) and cost API (`/v1/organizations/cost_report`),
  and the CSV of its Console's usage and cost pages.

A JSON file holds one page of the API or several, in a list or one after the other, in any order; a single bucket is
accepted, too. Buckets of minutes and hours are added up. Days are the provider's: both count them in UTC.

export_formats.py says what each format has.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

from gateway.finance.export_formats import (
    API_FORMATS,
    CSV_FORMATS,
    ExportBroken,
    ExportFields,
    ExportLine,
    Figures,
    day_of,
)

_BLANK = re.compile(r"\s*")


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

    def add(self, day: date, line: ExportLine, rounding: Decimal) -> None:
        self.days.add(day)
        self.cells.setdefault((day, line.model), ExportCell()).add(line.figures, rounding)

    @property
    def span(self) -> list[date]:
        """Every day from the first to the last."""
        first, last = min(self.days), max(self.days)
        return [first + timedelta(days=index) for index in range((last - first).days + 1)]


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
    is_list = len(documents) == 1 and isinstance(documents[0], list)
    is_single = len(documents) == 1 and not is_list
    for number, document in enumerate(documents[0] if is_list else documents):
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
    day = day_of(ExportFields(place, bucket), starts)
    export.days.add(day)
    for index, result in enumerate(results):
        names = frozenset(result) if isinstance(result, dict) else frozenset()
        fields = ExportFields(f"{place}.results[{index}]", result if names else {})
        api = next((api for api in API_FORMATS if api.starts == starts and api.marks <= names), None)
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
    kind = next((kind for kind in CSV_FORMATS if kind.marks <= columns), None)
    if kind is None:
        raise ExportBroken(
            "line 1: it is neither JSON nor a CSV with the columns of OpenAI's usage and cost exports or of Anthropic's"
        )
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ExportBroken(f"line 1: the column {twice} is there twice")
    export = UsageExport(kind.title)
    for place, row in _csv_rows(rows):
        fields = ExportFields(place, row)
        day = day_of(fields, kind.starts)
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


def _no_number(text: str) -> Decimal:
    raise ValueError(text)
