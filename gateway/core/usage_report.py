"""Reads one usage object, whose fields usage_fields.py names.

The rules, for every API: an explicit zero is zero, a null is absent. A number may be written as a text,
as protocol buffers write those of 64 bits (https://protobuf.dev/programming-guides/json/). An impossible count (a word,
NaN, a negative or infinite number) is absent. Parts are never more than their whole. What the total has above the sum
of input and output belongs to the part that it equals; otherwise it is output without a name: reasoning. Nothing here
raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import msgspec

from gateway.core.json_object import Path
from gateway.core.usage import Usage
from gateway.core.usage_fields import (
    FALLBACK_ITERATION,
    IN_SECONDS,
    LIFETIMES,
    MODALITIES,
    OPENAI_WORDS,
    TOP_LEVEL_ITERATIONS,
    TRAFFIC_TYPES,
    WHOLES,
    Branch,
    RankedField,
    UsageField,
    Vocabulary,
)

COUNT_MAX = 10**12
"""No answer has as many tokens: a greater count is a defect of who reports it, and is absent."""

MODEL_MAX = 256
"""Characters of the name of a model, as in the configuration."""

Members = Mapping[str, Any]
"""A decoded JSON object."""

_TIER = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,24})?\Z", re.ASCII)
_ENOUGH = frozenset({"input", "output", "audio_seconds", "characters"})
_ENOUGH_WITHOUT_OUTPUT = _ENOUGH | {"total", "searches"}
_COMPLETE = (_ENOUGH | {"total"}) - {"input"}
_WITH_INPUT = (_ENOUGH | {"total"}) - {"output"}
NAMING_MEMBERS = frozenset({"service_tier", "serviceTier", "speed", "trafficType", "traffic_type", "inference_geo"})
"""Members that name a tier or a region."""
_WRITES = "cache_writes"


class _Placement(Enum):
    """Where a part is counted: inside its whole, beside it, or beside it unless the total says otherwise."""

    INSIDE = 1
    BESIDE = 2
    UNLESS_TOTAL = 3


class Reading(msgspec.Struct, frozen=True):
    """What one usage object says. `complete` is false where it tells of the input alone, `tells_input` where it tells
    of the output alone."""

    usage: Usage
    complete: bool
    tells_input: bool


def read_usage(report: Members, words: Vocabulary = OPENAI_WORDS) -> Usage | None:
    """Usage from one usage object of an answer with output; None if it has no count that can be believed."""
    reading = read_report(report, words)
    return reading.usage if reading else None


def read_report(
    report: Members, words: Vocabulary, *, has_output: bool = True, output_medium: str = ""
) -> Reading | None:
    """What one usage object says; None if it has no count that can be believed. `has_output` and
    `output_medium` are the API's, as in `UsageTable`."""
    counts = _Counts(report, words)
    of = counts.of
    has_both = "input" in of and "output" in of  # As nearly every report.
    if not has_both and _ENOUGH.isdisjoint(of) and (has_output or not counts.suffice_without_output()):
        return None
    entered, output = of.get("input", 0), of.get("output", 0)
    if counts.has_parts or of.get("total") != entered + output:
        entered, output = _wholes(counts, entered, output, has_output=has_output)
    tier = region = ""
    if not NAMING_MEMBERS.isdisjoint(report):
        tier, region = _tier_in(report), tier_name(report.get("inference_geo"))
    if counts.has_parts or output_medium:
        usage = _bounded(counts, entered, output, output_medium, tier, region)
    else:
        usage = Usage(entered, output, service_tier=tier, region=region)
    if "iterations" in report:
        usage = _with_iterations(usage, report["iterations"], words)
    complete = has_both or not has_output or not _COMPLETE.isdisjoint(of)
    return Reading(usage, complete, has_both or not _WITH_INPUT.isdisjoint(of) or counts.have_images_beside())


def value_at(value: Any, path: Path) -> Any:
    """The value at a path; of an array's elements the last that has one."""
    if len(path) == 1 and type(value) is dict:
        return value.get(path[0])
    for position, name in enumerate(path):
        if isinstance(value, dict):
            value = value.get(name)
            if value is None:
                return None
        elif isinstance(value, list) and name == "*":
            found = (value_at(each, path[position + 1 :]) for each in reversed(value))
            return next((each for each in found if each is not None), None)
        else:
            return None
    return value


def milliseconds(seconds: Any) -> int | None:
    """A number of seconds as it is reported, None for what is none."""
    number = _number(seconds)
    return round(number * 1000) if number is not None and number >= 0 else None


def tier_name(value: Any) -> str:
    """A service tier that is reported, in small letters as prices name it; empty for what is none."""
    return value.lower() if isinstance(value, str) and _TIER.match(value) else ""


class _Counts:
    """The counts of one report, by the names of the vocabulary. What is zero or absent costs a look-up and no more:
    of the details of a common report nearly everything is."""

    __slots__ = ("_added", "_taken", "_writes", "has_parts", "of", "report")

    def __init__(self, report: Members, words: Vocabulary) -> None:
        self.report = report
        self.of: dict[str, int] = {}
        self._taken: dict[str, RankedField] = {}
        self._writes: UsageField | None = None
        """That of the writes to a cache that were taken last: all of them are counted where it is."""
        self._added: dict[str, int] = {}
        self._walk(report, words.tree)
        if self._added:
            for name, count in self._added.items():
                self.of[name] = self.get(name) + count
        self.has_parts = not self.of.keys() <= WHOLES
        if self.has_parts and not LIFETIMES.isdisjoint(self.of):
            # Cache writes are reported as a sum, by their lifetime, or both.
            by_lifetime = self.get("cache_write") + self.get("cache_write_1h")
            self.of["cache_writes"] = max(self.get("cache_writes"), by_lifetime)

    def get(self, name: str) -> int:
        return self.of.get(name, 0)

    def set_part(self, name: str, count: int) -> None:
        self.of[name] = count
        self.has_parts = True

    def suffice_without_output(self) -> bool:
        """Whether they are a report of what an answer without output was given: a part beside the input is enough."""
        return not _ENOUGH_WITHOUT_OUTPUT.isdisjoint(self.of) or self.have_images_beside()

    def have_images_beside(self) -> bool:
        return "image_input" in self.of and self.parts(_Placement.BESIDE, "image_input") > 0

    def parts(self, placement: _Placement, *names: str) -> int:
        """The sum of those of these parts that have this placement."""
        found = 0
        for name in names:
            if name in self.of:
                field = self._field(name)
                if field is not None and self._placement(field) is placement:
                    found += self.of[name]
        return found

    def _walk(self, members: Members, tree: Mapping[str, Branch]) -> None:
        of, taken, branch_of = self.of, self._taken, tree.get
        for name, value in members.items():
            branch = branch_of(name)
            if branch is None:
                continue
            ranked = branch.plain
            if (
                ranked is not None
                and type(value) is int
                and 0 < value <= COUNT_MAX
                and (count := ranked.count) not in of
            ):
                of[count] = value
                taken[count] = ranked
            elif value or branch.keeps_zero:
                self._take_all(branch, value)

    def _take_all(self, branch: Branch, value: Any) -> None:
        """Take what a name is that is more than one plain count, or has another value than most."""
        for ranked in branch.fields:
            if value or ranked.keeps_zero:
                self._take(ranked, value)
        if branch.below:
            if isinstance(value, dict):
                self._walk(value, branch.below)
            elif isinstance(value, list):
                self._walk(_by_modality(value), branch.below)

    def _take(self, ranked: RankedField, value: Any) -> None:
        """Take a count that is not the first of its name, or is written or counted otherwise than most are."""
        field, name = ranked.field, ranked.count
        count = milliseconds(value) if name in IN_SECONDS else _count(value)
        if count is None or (not count and not ranked.keeps_zero):
            return
        before = self.of.get(name)
        if field.added:
            self._added[name] = self._added.get(name, 0) + count
        elif name in WHOLES:
            # A server that writes every name has zero where a name is not its own.
            if before is None or (
                (count or not before) and (ranked.rank < self._taken[name].rank or (count and not before))
            ):
                self.of[name], self._taken[name] = count, ranked
        elif before is None or count > before or (count == before and ranked.rank < self._taken[name].rank):
            self.of[name], self._taken[name] = count, ranked
            if name == _WRITES or name in LIFETIMES:
                self._writes = field

    def _field(self, name: str) -> UsageField | None:
        if name == _WRITES:
            return self._writes
        ranked = self._taken.get(name)
        return ranked.field if ranked is not None else None

    def _placement(self, field: UsageField) -> _Placement:
        if field.beside == "*" or (field.beside_with and _count(self.report.get(field.beside_with)) is not None):
            return _Placement.BESIDE
        whole = self._taken.get("input")
        beside = bool(field.beside) and whole is not None and field.beside == whole.field.path[-1]
        return _Placement.UNLESS_TOTAL if beside else _Placement.INSIDE


def _wholes(counts: _Counts, entered: int, output: int, *, has_output: bool) -> tuple[int, int]:
    """All input and all output; the counts of parts that are known from the total alone are completed."""
    total = counts.of.get("total")
    if counts.has_parts:
        entered += counts.parts(_Placement.BESIDE, "cached_input", "cache_writes", "image_input")
        output += counts.parts(_Placement.BESIDE, "reasoning")
    if total == entered + output:
        return entered, output
    if counts.has_parts:
        entered += counts.parts(_Placement.UNLESS_TOTAL, "cached_input", "cache_writes")
    if total is None:
        return _without_total(counts, entered, output)
    surplus = total - entered - output
    if surplus <= 0:
        if surplus < 0:
            del counts.of["total"]  # It is no sum of them, and so says nothing of a side that is missing.
        return entered, output
    if _is_input(counts, surplus, has_output=has_output):
        return entered + surplus, output
    reasoning = counts.get("reasoning")
    if reasoning and (beside := surplus - reasoning) in (counts.get("audio_input"), _cached(counts)):
        return entered + beside, output + reasoning
    counts.set_part("reasoning", max(reasoning, surplus))
    return entered, output + surplus


def _is_input(counts: _Counts, surplus: int, *, has_output: bool) -> bool:
    """Whether what the total has above the sum is input that the report counts beside its input, or not at all."""
    if not has_output or ("input" not in counts.of and "output" in counts.of):
        return True
    if surplus == counts.get("reasoning"):
        return False
    if counts.get("sound_seconds") and not counts.get("audio_input"):
        counts.set_part("audio_input", surplus)
        return True
    return surplus in (counts.get("audio_input"), _cached(counts))


def _cached(counts: _Counts) -> int:
    return counts.get("cached_input") + counts.get("cache_writes")


def _without_total(counts: _Counts, entered: int, output: int) -> tuple[int, int]:
    # A part that is more than its whole is counted beside it.
    audio, reasoning = counts.get("audio_input"), counts.get("reasoning")
    cached = counts.parts(_Placement.INSIDE, "cached_input", "cache_writes")
    entered += (audio if audio > entered else 0) + (cached if cached > entered > 0 else 0)
    return entered, output + (reasoning if reasoning > output else 0)


def _bounded(counts: _Counts, entered: int, output: int, output_medium: str, tier: str, region: str) -> Usage:
    """The usage, no part of which is more than what the others leave of its whole."""
    get = counts.of.get
    cached = n if (n := get("cached_input", 0)) < entered else entered
    uncached = entered - cached
    writes = n if (n := get("cache_writes", 0)) < uncached else uncached
    for_an_hour = n if (n := get("cache_write_1h", 0)) < writes else writes
    audio_input = n if (n := get("audio_input", 0)) < entered else entered
    other_input = entered - audio_input
    audio_output = output if output_medium == "audio" or (n := get("audio_output", 0)) > output else n
    other_output = output - audio_output
    image_output = get("image_output", other_output if output_medium == "image" else 0)
    return Usage(
        input=entered,
        output=output,
        cached_input=cached,
        reasoning=n if (n := get("reasoning", 0)) < output else output,
        cache_write=writes - for_an_hour,
        cache_write_1h=for_an_hour,
        audio_input=audio_input,
        image_input=n if (n := get("image_input", 0)) < other_input else other_input,
        audio_output=audio_output,
        image_output=image_output if image_output < other_output else other_output,
        images=get("images", 0),
        searches=get("searches", 0),
        audio_ms=get("audio_seconds", 0),
        characters=get("characters", 0),
        service_tier=tier,
        region=region,
    )


def _with_iterations(usage: Usage, iterations: Any, words: Vocabulary) -> Usage:
    """The usage with those of Anthropic's iterations that its counts leave out, and what each used.

    The counts leave out compactions and advisors, and the input of every message behind an advisor, though each is
    billed (https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool). Where the messages have fewer
    tokens than the counts, or one was refused, the counts are what is billed of them.
    """
    if not isinstance(iterations, list) or not iterations:
        return usage
    own, beside = [], []
    for iteration in iterations:
        read = read_usage({**iteration, "iterations": None}, words) if isinstance(iteration, dict) else None
        if read is None:
            continue
        if iteration.get("type", "message") in TOP_LEVEL_ITERATIONS:
            own.append(msgspec.structs.replace(read, service_tier=usage.service_tier, region=usage.region))
        else:
            beside.append(_beside(read, iteration.get("model"), usage))
    is_refused = any(isinstance(each, dict) and each.get("type") == FALLBACK_ITERATION for each in iterations)
    if is_refused or _sum_of("input", own) < usage.input or _sum_of("output", own) < usage.output:
        own = [usage]
    parts = (*own, *beside)
    if len(parts) == 1:
        return usage
    summed = {name: _sum_of(name, parts) for name in _SUMMED}
    summed["reasoning"] = max(summed["reasoning"], usage.reasoning)
    return msgspec.structs.replace(usage, **summed, parts=parts)


def _beside(read: Usage, model: Any, usage: Usage) -> Usage:
    """An inference that the counts leave out: of the model that was asked for, or of another, whose tier is its own."""
    if isinstance(model, str) and 0 < len(model) <= MODEL_MAX:
        return msgspec.structs.replace(read, region=usage.region, model=model)
    return msgspec.structs.replace(read, service_tier=usage.service_tier, region=usage.region)


_SUMMED = (
    "input",
    "output",
    "cached_input",
    "reasoning",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "image_input",
)


def _sum_of(name: str, parts: Iterable[Usage]) -> int:
    return sum([getattr(part, name) for part in parts])


def _by_modality(details: list[Any]) -> dict[str, int]:
    """Gemini's details, which are a list, as members: the tokens of each modality."""
    found: dict[str, int] = {}
    for each in details:
        modality = each.get("modality") if isinstance(each, dict) else None
        name = MODALITIES.get(modality, modality) if isinstance(modality, str | int) else None
        if isinstance(name, str):
            found[name] = found.get(name, 0) + (_count(each.get("tokenCount", each.get("token_count"))) or 0)
    return found


def _number(value: Any) -> int | float | None:
    if isinstance(value, str) and _DECIMAL.match(value):
        value = float(value) if "." in value else int(value)
    # NaN compares with nothing, and so is out of every range.
    if isinstance(value, int | float) and not isinstance(value, bool) and -COUNT_MAX <= value <= COUNT_MAX:
        return value
    return None


def _count(value: Any) -> int | None:
    if type(value) is int and 0 <= value <= COUNT_MAX:
        return value
    number = _number(value)
    return int(number) if number is not None and number >= 0 else None


def _tier_in(report: Members) -> str:
    # Anthropic prices its fast mode apart from the tiers, and names it beside them.
    if tier_name(report.get("speed")) == "fast":
        return "fast"
    traffic = report.get("trafficType", report.get("traffic_type"))
    named = TRAFFIC_TYPES.get(traffic, "") if isinstance(traffic, str) else ""
    return tier_name(report.get("service_tier")) or tier_name(report.get("serviceTier")) or named
