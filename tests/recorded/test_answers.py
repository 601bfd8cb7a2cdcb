"""What the gateway reads in the answers of every API: usage, and whose fault a failure is.

Each answer is read as it comes, and once more byte by byte as one that is too long to be held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import pytest

from gateway.core.answer_outline import outline_of
from gateway.core.endpoints import ENDPOINTS
from gateway.core.json_object import Path
from gateway.core.refusals import Fault, fault_of
from gateway.core.sse import EventSplitter, data_of
from gateway.core.upstream_json import fault_of_body, object_of, reported_fault
from gateway.core.usage_fields import (
    ANTHROPIC_WORDS,
    AUDIO_WORDS,
    COHERE_WORDS,
    GEMINI_WORDS,
    OLLAMA_WORDS,
    OPENAI_WORDS,
)
from gateway.core.usage_reading import UsageReader
from gateway.core.usage_tables import UsageTable
from tests.recorded.recordings import HERE, SHARED, Recording, index, recordings

TABLES = {path: row.usage for path, row in ENDPOINTS.items()}


ANSWERS = [each for each in recordings() if each.usage and each.status == 200]


VOCABULARIES = (OPENAI_WORDS, AUDIO_WORDS, ANTHROPIC_WORDS, GEMINI_WORDS, COHERE_WORDS, OLLAMA_WORDS)
MEDIA_FIELDS = [field for field in OPENAI_WORDS.fields if field.count.startswith(("audio_", "image_"))]


def texts(path: FilePath) -> Iterator[bytes]:
    """The JSON texts of an answer: its body, or the data of its events."""
    body = path.read_bytes()
    if path.suffix != ".sse":
        yield body
        return
    splitter = EventSplitter()
    for event in [*splitter.feed(body), splitter.rest]:
        data = data_of(event)
        if data:
            yield data


def readers(table: UsageTable, path: FilePath) -> tuple[UsageReader, UsageReader]:
    """The answer's reader, and one that had it byte by byte."""
    is_answer = path.suffix != ".sse"
    whole, scanned = UsageReader(table, is_answer=is_answer), UsageReader(table, is_answer=is_answer)
    for text in texts(path):
        whole.read(text)
        scanner = scanned.scanner()
        for begin in range(len(text)):
            scanner.feed(text[begin : begin + 1])
        scanner.close()
    return whole, scanned


def fault_in(status: int, path: FilePath) -> Fault | None:
    faults = [fault_of(status, decoded(text)) for text in texts(path)]
    return next((fault for fault in faults if fault is not None), None)


def fault_as_relayed(status: int, path: FilePath) -> Fault | None:
    """As the gateway reads it while it passes the answer on."""
    if status >= 400:
        return fault_of_body(status, path.read_bytes())
    faults = [reported_fault(object_of(text) or {}) for text in texts(path)]
    return next((fault for fault in faults if fault is not None), None)


def decoded(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    value = value[-1] if isinstance(value, list) else value
    return value if isinstance(value, dict) else None


@pytest.mark.parametrize("recording", ANSWERS, ids=lambda each: each.name)
def test_an_answer_is_read(recording: Recording) -> None:
    for reader in readers(TABLES[recording.endpoint], recording.file):
        assert {name: getattr(reader.usage, name) for name in recording.usage} == recording.usage
        assert recording.reported in (None, reader.reported)


@pytest.mark.parametrize("recording", recordings(), ids=lambda each: each.name)
def test_the_outline_of_an_answer_says_what_the_answer_says(recording: Recording) -> None:
    table = TABLES[recording.endpoint]
    whole, outlined = UsageReader(table, is_answer=True), UsageReader(table, is_answer=True)
    for text in texts(recording.file):
        outline, answer = outline_of(table.name, text), decoded(text)
        if outline is not None and answer is not None:
            assert (fault_of(200, outline) is None) == (fault_of(200, answer) is None)
            assert outlined.read_members(outline) == whole.read_members(answer)
    for name in ("usage", "reported", "final", "tells_input", "tells_output", "object_id"):
        assert getattr(outlined, name) == getattr(whole, name)


def test_every_name_of_a_count_is_in_an_answer_written_by_hand() -> None:
    """But for those of a medium that no API is known to count under this name."""
    seen = {path for each in index(HERE) for text in texts(HERE / "answers" / each["file"]) for path in paths_in(text)}
    named = {field for words in VOCABULARIES for field in words.fields}
    unseen = {".".join(field.path) for field in named if field.path not in seen and field not in MEDIA_FIELDS}
    assert unseen == set()


def paths_in(text: bytes) -> set[Path]:
    """Every path in a JSON text, from wherever it begins; of Gemini's lists by modality, with that as a name."""
    found: set[Path] = set()

    def walk(value: Any, path: Path) -> None:
        found.update(path[begin:] for begin in range(len(path)))
        if isinstance(value, list):
            for each in value:
                modality = each.get("modality") if isinstance(each, dict) else None
                walk(each, (*path, modality) if isinstance(modality, str) else path)
        elif isinstance(value, dict):
            for name, each in value.items():
                walk(each, (*path, name))

    walk(decoded(text), ())
    return found


@pytest.mark.parametrize("entry", index(HERE), ids=lambda entry: entry["file"])
def test_whose_fault_a_failure_is(entry: dict[str, Any]) -> None:
    path = HERE / "answers" / entry["file"]
    assert fault_in(entry["status"], path) == fault_as_relayed(entry["status"], path) == entry.get("fault")


@pytest.mark.parametrize("entry", index(SHARED / "recorded"), ids=lambda entry: entry["file"])
def test_whose_fault_a_recorded_failure_is(entry: dict[str, Any]) -> None:
    fault = fault_in(entry["status"], SHARED / "recorded" / entry["file"])
    if entry["caller_fault"] is not None:
        assert (fault is Fault.CALLER) is entry["caller_fault"]
        assert fault not in (None, Fault.UNKNOWN)
    elif entry["status"] == 200:
        assert fault is None
    if entry["client_status"] is not None and entry["client_status"] != entry["status"]:
        assert (fault, entry["client_status"]) == (Fault.CREDENTIALS, 502)
