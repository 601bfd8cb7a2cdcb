"""What the gateway reads in the answers of every API: usage, and whose fault a failure is.

Each answer is read as it comes, and once more byte by byte as one that is too long to be held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.refusals import Fault, fault_of
from gateway.core.sse import EventSplitter, data_of
from gateway.core.upstream_json import fault_of_body, object_of, reported_fault
from gateway.core.usage import Usage
from gateway.core.usage_reading import UsageReader
from gateway.core.usage_tables import (
    CHAT_USAGE,
    EMBEDDINGS_USAGE,
    GEMINI_EMBEDDINGS_USAGE,
    GEMINI_USAGE,
    IMAGES_USAGE,
    MESSAGES_USAGE,
    MODERATIONS_USAGE,
    NO_USAGE,
    RERANK_USAGE,
    RESPONSES_USAGE,
    SPEECH_USAGE,
    TRANSCRIPTIONS_USAGE,
    UsageTable,
)

HERE = Path(__file__).resolve().parent
REAL = HERE.parents[2] / "shared" / "recorded"
STREAMS = HERE.parents[2] / "shared" / "sse"

TABLES = {
    "/v1/chat/completions": CHAT_USAGE,
    "/v1/completions": CHAT_USAGE,
    "/v1/responses": RESPONSES_USAGE,
    "/v1/responses/compact": RESPONSES_USAGE,
    "/v1/responses/input_tokens": NO_USAGE,
    "/v1/messages": MESSAGES_USAGE,
    "/v1/messages/count_tokens": NO_USAGE,
    "/v1/embeddings": EMBEDDINGS_USAGE,
    "/v1/rerank": RERANK_USAGE,
    "/v2/rerank": RERANK_USAGE,
    "/v1/score": RERANK_USAGE,
    "/v1/moderations": MODERATIONS_USAGE,
    "/v1/images/generations": IMAGES_USAGE,
    "/v1/images/edits": IMAGES_USAGE,
    "/v1/audio/transcriptions": TRANSCRIPTIONS_USAGE,
    "/v1/audio/translations": TRANSCRIPTIONS_USAGE,
    "/v1/audio/speech": SPEECH_USAGE,
    "/v1beta/models/{model}:generateContent": GEMINI_USAGE,
    "/v1beta/models/{model}:streamGenerateContent": GEMINI_USAGE,
    "/v1beta/models/{model}:embedContent": GEMINI_EMBEDDINGS_USAGE,
    "/v1beta/models/{model}:countTokens": NO_USAGE,
}
APIS = {"chat": CHAT_USAGE, "legacy": CHAT_USAGE, "responses": RESPONSES_USAGE, "messages": MESSAGES_USAGE}


def entries(folder: Path) -> list[Any]:
    """The entries of a folder's index, as parameters; none where there is no folder."""
    if not folder.is_dir():
        return [
            pytest.param({}, id="none", marks=pytest.mark.skip(reason=f"there is no {folder.name} beside the project"))
        ]
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return [pytest.param(entry, id=entry["file"]) for entry in index]


def texts(path: Path) -> Iterator[bytes]:
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


def readers(table: UsageTable, path: Path) -> tuple[UsageReader, UsageReader]:
    """The answer's reader, and one that had it byte by byte."""
    whole, scanned = UsageReader(table), UsageReader(table)
    for text in texts(path):
        whole.read(text)
        scanner = scanned.scanner()
        for begin in range(len(text)):
            scanner.feed(text[begin : begin + 1])
        scanner.close()
    return whole, scanned


def fault_in(status: int, path: Path) -> Fault | None:
    faults = [fault_of(status, decoded(text)) for text in texts(path)]
    return next((fault for fault in faults if fault is not None), None)


def fault_as_relayed(status: int, path: Path) -> Fault | None:
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


@pytest.mark.parametrize("entry", entries(HERE))
def test_an_answer_is_read(entry: dict[str, Any]) -> None:
    path = HERE / "answers" / entry["file"]
    assert fault_in(entry["status"], path) == fault_as_relayed(entry["status"], path) == entry.get("fault")
    if "usage" in entry:
        for reader in readers(TABLES[entry["endpoint"]], path):
            assert reader.usage == Usage(**entry["usage"])
            assert reader.reported is entry.get("reported", True)


@pytest.mark.parametrize("entry", entries(REAL))
def test_a_recorded_answer_is_read(entry: dict[str, Any]) -> None:
    if entry["status"] != 200:
        return
    expected = entry["expected"]
    for reader in readers(TABLES[entry["endpoint"]], REAL / entry["file"]):
        usage = reader.usage
        read = {
            **{name: getattr(usage, name) for name in expected if hasattr(usage, name)},
            "cache_write_5m": usage.cache_write,
            "units": {
                name: count
                for name, count in (
                    ("images", usage.images),
                    ("searches", usage.searches),
                    ("seconds", usage.audio_ms / 1000),
                )
                if count
            },
        }
        assert {name: read[name] for name, value in expected.items() if value is not None} == {
            name: value for name, value in expected.items() if value is not None
        }
        assert entry["reported"] in (None, reader.reported)


@pytest.mark.parametrize("entry", entries(REAL))
def test_whose_fault_a_recorded_failure_is(entry: dict[str, Any]) -> None:
    fault = fault_in(entry["status"], REAL / entry["file"])
    if entry["caller_fault"] is not None:
        assert (fault is Fault.CALLER) is entry["caller_fault"]
        assert fault not in (None, Fault.UNKNOWN)
    elif entry["status"] == 200:
        assert fault is None
    if entry["client_status"] is not None and entry["client_status"] != entry["status"]:
        assert (fault, entry["client_status"]) == (Fault.CREDENTIALS, 502)


@pytest.mark.parametrize("entry", entries(STREAMS))
def test_the_usage_of_a_recorded_stream_is_all_read(entry: dict[str, Any]) -> None:
    report = entry["usage"]
    for reader in readers(APIS[entry["api"]], STREAMS / entry["file"]):
        assert reader.reported is (report is not None)
        if report is None:
            continue
        entered = report.get("prompt_tokens", report.get("input_tokens"))
        entered += report.get("cache_read_input_tokens", 0) + report.get("cache_creation_input_tokens", 0)
        output = report.get("completion_tokens", report.get("output_tokens"))
        assert reader.usage.input == entered
        assert reader.usage.total == report.get("total_tokens", entered + output)
        assert reader.usage.output >= output
