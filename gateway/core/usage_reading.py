"""Reads what an answer used, from its body or from the events of its stream, by an API's `UsageTable`.

The last report counts. What it leaves out, or has as null, keeps the value of an earlier report: Anthropic reports in
parts, and other providers repeat only what has changed. So does an input of zero behind a report of the input alone,
since translators of other APIs end Anthropic's streams so. A total alone is read with what was reported before it. What
was cached of an input that was reported before is a part of it.

Usage is believed only at the API's places: whatever a request's text put into an answer is inside a string, or at
another path, and is never read. Bytes that are not JSON are read as far as they can be (tolerant_json.py); nothing here
raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from gateway.core.json_object import Path
from gateway.core.sound_length import TranscriptLength
from gateway.core.stored_objects import is_object_id
from gateway.core.tolerant_json import JsonScanner, Wanted, scan, wanted_members
from gateway.core.usage import Usage
from gateway.core.usage_fields import TOTALS, UNCACHED, Vocabulary
from gateway.core.usage_report import (
    COUNT_MAX,
    NAMING_MEMBERS,
    Members,
    Reading,
    milliseconds,
    read_report,
    tier_name,
    value_at,
)
from gateway.core.usage_tables import CountedItems, UsagePlace, UsageTable

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NAMING_PATHS: tuple[Path, ...] = tuple([(name,) for name in NAMING_MEMBERS])


class UsageReader:
    """Reads one answer.

    `usage` is what has been read so far, `reported` whether the answer reports any of it: units that are
    only counted (the images in `data`) are no report. `final` is false while the output is not told yet,
    as after Anthropic's `message_start`: of a stream that ends there the output is estimated. `tells_input` is
    false where no report has had the input, `tells_output` where the last one has not had the output.

    With `is_answer` what is read is an answer, whatever its `type` says: no event has its usage.
    """

    __slots__ = (
        "_believed_otherwise",
        "_brought",
        "_by_choice",
        "_counted",
        "_duration_ms",
        "_report",
        "_reported",
        "_table",
        "_tier",
        "final",
        "object_id",
        "reported",
        "tells_input",
        "tells_output",
        "transcript",
    )

    def __init__(self, table: UsageTable, *, is_answer: bool = False) -> None:
        self._table = table
        self._believed_otherwise = table.believed_in_answer if is_answer else table.believed_anywhere
        self.reported = self.final = self.tells_input = self.tells_output = False
        self.object_id = ""
        """Under which the upstream keeps the answer; empty where it names none."""
        self.transcript = TranscriptLength() if table.duration_path else None
        """Of an answer that transcribes sound: what it shows of the sound's length, for an estimate."""
        self._reported: Usage | None = None
        self._report: Members = _NOTHING
        self._tier = ""
        self._counted: Mapping[str, int] = _NOTHING
        self._brought: Mapping[str, int] = _NOTHING
        """Units that events have brought one by one. The final report, or what comes with it, has them all."""
        self._by_choice: dict[int, Usage] | None = None
        """What each choice has reported of itself last, where choices do."""
        self._duration_ms = 0

    @property
    def usage(self) -> Usage:
        usage = self._reported or Usage(audio_ms=self._duration_ms)
        counted = {**self._brought, **self._counted} if self._brought and not self.final else self._counted
        if not counted and (usage.service_tier or not self._tier):
            return usage
        changes: dict[str, Any] = {name: n for name, n in counted.items() if not getattr(usage, name)}
        if self._tier and not usage.service_tier:
            changes["service_tier"] = self._tier
        return msgspec.structs.replace(usage, **changes) if changes else usage

    def read(self, text: bytes, event: str = "") -> bool:
        """One JSON text: a body, or an event's data. `event` is the name that the event's own line gives.
        Whether it reports usage."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._read_tolerantly(text, event)
        found = False
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                found = self.read_members(each, event) or found
        return found

    def scanner(self) -> JsonScanner:
        """Reads an answer that is too long to be held: feed it piece by piece, and close it at its end."""

        def read(members: Members) -> None:
            self.read_members(members)

        return JsonScanner(wanted_of(self._table), read)

    def read_members(self, members: Members, event: str = "") -> bool:
        """One decoded object. Whether it reports usage."""
        table = self._table
        if isinstance(kind := members.get("type"), str):
            event = kind
        if table.id_paths and not self.object_id:
            self._read_id(members)
        believed = table.believed.get(event, self._believed_otherwise)
        if event in table.unit_events:
            self._count_brought(members, event)
        if not believed:
            return False
        for path in table.tier_paths:
            if path[0] in members:
                self._tier = tier_name(value_at(members, path)) or self._tier
        if table.counts_units:
            self._count_units(members, event)
        for place in believed:  # noqa: SIM110 # A generator costs as much as what it runs through.
            if self._read_place(members, place):
                return True
        return False

    def _read_id(self, members: Members) -> None:
        named = (value_at(members, path) for path in self._table.id_paths)
        self.object_id = next((name for name in named if is_object_id(name)), "")

    def _read_tolerantly(self, text: bytes, event: str) -> bool:
        return sum([self.read_members(members, event) for members in scan(text, wanted_of(self._table))]) > 0

    def _read_place(self, members: Members, place: UsagePlace) -> bool:
        report: Any = members.get(place.member) if place.member else value_at(members, place.path)
        if not isinstance(report, dict):
            return False
        table = self._table
        reading = read_report(report, place.words, has_output=table.has_output, output_medium=table.output_medium)
        if reading is None:
            reading = self._read_total(report, place)
            if reading is None:
                return False
        usage, had_output = reading.usage, self.final
        self.tells_output = reading.complete and (usage.output > 0 or not place.needs_output)
        if self.tells_output:  # A report of the input alone leaves the output as it is.
            self.final = place.final
        if self._reported is not None:
            completed = _completed(report, _without_synonyms(self._report, report, place.words))
            if completed is not report:
                report, reading = self._read_completed(place, completed, self._reported, reading)
                usage = reading.usage
            if not (usage.input or had_output):
                usage = msgspec.structs.replace(usage, **{name: getattr(self._reported, name) for name in _OF_INPUT})
        if place.of_choice:
            usage = self._with_other_choices(members, place, usage)
        self.tells_input = reading.tells_input
        self._report, self._reported, self.reported = report, usage, True
        return True

    def _read_completed(
        self, place: UsagePlace, report: Members, before: Usage, reading: Reading
    ) -> tuple[Members, Reading]:
        """A report that earlier ones complete. What of the input was cached may come later than all input, as in
        Alibaba's messages, which do not know it when they begin: then it is a part of that, and not beside it."""
        completed = _read_at(place, report, self._table) or reading
        cached = _cached(completed.usage)
        if reading.tells_input or not cached or _cached(before) or completed.usage.input != before.input + cached:
            return report, completed
        report = {**report, UNCACHED: max(0, before.input - cached)}
        return report, _read_at(place, report, self._table) or completed

    def _with_other_choices(self, members: Members, place: UsagePlace, usage: Usage) -> Usage:
        """With the output of the choices that have reported theirs, here or before."""
        found = self._by_choice = self._by_choice or {}
        choices = members.get(place.path[0])
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            reading = _read_at(place, choice.get(place.path[-1]), self._table) if isinstance(choice, dict) else None
            if reading is not None and len(found) < _CHOICES_MAX:
                index = choice.get("index")
                found[index if isinstance(index, int) else position] = reading.usage
        if len(found) < 2:
            return usage
        summed = {name: sum([getattr(one, name) for one in found.values()]) for name in _OF_OUTPUT}
        return msgspec.structs.replace(usage, **summed)

    def _read_total(self, report: Members, place: UsagePlace) -> Reading | None:
        """A total alone, which says how much came since an earlier report."""
        if not self._report or not any(report.get(name) for name in TOTALS):
            return None
        return _read_at(place, _completed(report, self._report), self._table)

    def _count_units(self, members: Members, event: str) -> None:
        counted = {**self._counted}
        if event in self._table.image_events:
            counted["images"] = counted.get("images", 0) + 1
        for items in self._table.items:
            number = _number_of(value_at(members, items.path), items)
            if number and not items.event:
                counted[items.count] = number
        for units in self._table.reported_units:
            told = value_at(members, units.path)
            if type(told) is int and 0 <= told <= COUNT_MAX:
                counted[units.count] = told
        self._counted = counted
        if self._table.duration_path:
            length = milliseconds(value_at(members, self._table.duration_path)) or 0
            self._duration_ms = -(-length // 1000) * 1000 or self._duration_ms

    def _count_brought(self, members: Members, event: str) -> None:
        for items in self._table.items:
            if items.event == event and _is_counted(value_at(members, items.path), items):
                self._brought = {**self._brought, items.count: self._brought.get(items.count, 0) + 1}


def wanted_of(table: UsageTable, also: Iterable[Path] = ()) -> Wanted:
    """The members that a `JsonScanner` must give to read usage by this table, and others beside."""
    paths: list[Path] = [("type",), *table.tier_paths, *table.id_paths, *also]
    paths += [units.path for units in table.reported_units]
    for place in table.places:
        paths += [place.path] if place.path else [*(field.path for field in place.words.fields), *_NAMING_PATHS]
        if place.of_choice:
            paths.append((*place.path[:-1], "index"))
    for items in table.items:
        if items.texts:
            paths.append(items.path)
            continue
        inner: list[Path] = [("type",), ("action", "type"), ("content", "")] if items.kind else [("",)]
        element = items.path if items.event else (*items.path, "*")
        paths += [(*element, *path) for path in inner]
    if table.duration_path:
        paths.append(table.duration_path)
    return wanted_members(paths)


def report_in(members: Members, table: UsageTable) -> Members | None:
    """The usage object that counts of one decoded object, as it is there."""
    for place in table.places:
        report = value_at(members, place.path)
        if _read_at(place, report, table) is not None:
            return dict(report)
    return None


def _read_at(place: UsagePlace, report: Any, table: UsageTable) -> Reading | None:
    if not isinstance(report, dict):
        return None
    return read_report(report, place.words, has_output=table.has_output, output_medium=table.output_medium)


def _completed(report: Members, earlier: Members) -> Members:
    """The report with what it leaves out or has as null, but its total, as an earlier one said: itself if that is
    nothing."""
    missing: dict[str, Any] = {}
    for name, before in earlier.items():
        value = report.get(name)
        if value is None and before is not None and name not in TOTALS:
            missing[name] = before
        elif isinstance(value, dict) and isinstance(before, dict):
            inner = _completed(value, before)
            if inner is not value:
                missing[name] = inner
    return {**report, **missing} if missing else report


def _without_synonyms(earlier: Members, report: Members, words: Vocabulary) -> Members:
    """The earlier report without what the later one has under another name, as where a translator of another API adds
    the last report of a stream in words of its own."""
    told = [names for names in words.synonyms if any(report.get(name) for name in names)]
    return {name: value for name, value in earlier.items() if not any(name in names for names in told)}


def _cached(usage: Usage) -> int:
    return usage.cached_input + usage.cache_writes


_CHOICES_MAX = 128
"""As many as OpenAI's API gives (`n`)."""

_OF_OUTPUT = ("output", "reasoning", "audio_output", "image_output")
_OF_INPUT = ("input", "cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input")


def _number_of(value: Any, items: CountedItems) -> int:
    if not isinstance(value, list):
        return 0
    if items.texts:
        return len({each for each in value if isinstance(each, str)} - {""})
    return sum(1 for each in value if not items.kind or _is_counted(each, items))


def _is_counted(item: Any, items: CountedItems) -> bool:
    if not isinstance(item, dict) or item.get("type") != items.kind:
        return False
    if isinstance(item.get("content"), dict):
        return False  # In place of what a search has found it is why it failed, which costs nothing.
    action = item.get("action")
    kind = action.get("type") if isinstance(action, dict) else None
    return not items.actions or kind is None or kind in items.actions  # Volcengine's searches have no type.
