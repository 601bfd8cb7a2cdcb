"""The recorded answers: those written by hand in this folder, and those of real servers where a folder `shared` beside
the project has them. Each says what its bytes mean, from its index and not from the gateway's reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.core.usage import Usage

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"

_PATHS = {
    "chat": "/v1/chat/completions",
    "legacy": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
_CONTENT_TYPES = {".sse": "text/event-stream", ".json": "application/json", ".html": "text/html"}
_UNITS = {"images": "images", "searches": "searches", "seconds": "audio_ms"}
_PARTS = {
    "messages/anthropic-compaction.json": [{"input": 162, "output": 11}, {"input": 99_195, "output": 81}],
}
"""What each inference used of answers whose index has the sum alone."""

_NOT_LISTED = {"source", "region", "model", "parts"}
_DEFAULTS = {name: default for name, default in msgspec.structs.asdict(Usage()).items() if name not in _NOT_LISTED}


class Recording(msgspec.Struct, frozen=True):
    """One answer. `usage` has what is known of the members of `Usage`, `reported` whether the answer reports any of it
    (None: a part, or unknown), `client_status` the status that a client should get, None where that is not settled.
    `failed` says that it reports a failure, by its status or in a 200."""

    name: str
    file: Path
    endpoint: str
    status: int
    content_type: str
    usage: Mapping[str, Any]
    reported: bool | None
    client_status: int | None
    failed: bool = False
    headers: Mapping[str, str] = {}

    @property
    def body(self) -> bytes:
        return self.file.read_bytes()

    @property
    def is_stream(self) -> bool:
        return self.file.suffix == ".sse"


def recordings() -> list[Recording]:
    """Those written by hand, then those of real servers, as far as they are there."""
    found = [_written(entry) for entry in index(HERE)]
    found += [_real(entry) for entry in index(SHARED / "recorded")]
    return found + [_stream(entry) for entry in index(SHARED / "sse")]


def index(folder: Path) -> list[dict[str, Any]]:
    """The entries of a folder's index, none where there is no folder."""
    path = folder / "index.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return entries


def _written(entry: dict[str, Any]) -> Recording:
    file = HERE / "answers" / entry["file"]
    fault = entry.get("fault")
    return Recording(
        name=entry["file"],
        file=file,
        endpoint=entry["endpoint"],
        status=entry["status"],
        content_type=entry.get("content_type") or _CONTENT_TYPES[file.suffix],
        usage=_DEFAULTS | _listed(entry["usage"]) if "usage" in entry else {},
        reported=entry.get("reported", fault is None),
        client_status=502 if fault == "credentials" else entry["status"],
        failed=fault is not None,
    )


def _listed(usage: dict[str, Any]) -> dict[str, Any]:
    if "parts" not in usage:
        return usage
    return usage | {"parts": tuple([Usage(**part) for part in usage["parts"]])}


def _real(entry: dict[str, Any]) -> Recording:
    expected: dict[str, Any] = entry["expected"]
    usage = {name: expected[name] for name in _DEFAULTS if expected.get(name) is not None}
    if expected["cache_write_5m"] is not None:
        usage["cache_write"] = expected["cache_write_5m"]
    if expected["units"] is not None:
        units = {"images": 0, "searches": 0, "seconds": 0} | expected["units"]
        usage |= {ours: units[theirs] for theirs, ours in _UNITS.items() if units[theirs] is not None}
        usage["audio_ms"] = round(1000 * usage.get("audio_ms", 0))
    if entry["file"] in _PARTS:
        told = {"service_tier": usage["service_tier"], "region": "global"}
        usage = _listed(usage | {"parts": [part | told for part in _PARTS[entry["file"]]]})
    return Recording(
        name=f"recorded/{entry['file']}",
        file=SHARED / "recorded" / entry["file"],
        endpoint=entry["endpoint"],
        status=entry["status"],
        content_type=entry["content_type"],
        usage=usage | {"characters": 0},
        reported=entry["reported"],
        client_status=entry["client_status"],
        failed=entry["status"] >= 400 or entry["caller_fault"] is not None,
        headers=entry.get("headers") or {},
    )


def _stream(entry: dict[str, Any]) -> Recording:
    report = entry["usage"]
    usage: dict[str, Any] = {}
    if report is not None:
        entered = report.get("prompt_tokens", report.get("input_tokens"))
        entered += report.get("cache_read_input_tokens", 0) + report.get("cache_creation_input_tokens", 0)
        output = report.get("completion_tokens", report.get("output_tokens"))
        # What the total has above the sum of its parts is output.
        usage = {"input": entered, "output": max(output, report.get("total_tokens", 0) - entered)}
    return Recording(
        name=f"sse/{entry['file']}",
        file=SHARED / "sse" / entry["file"],
        endpoint=_PATHS[entry["api"]],
        status=200,
        content_type="text/event-stream; charset=utf-8",
        usage=usage,
        reported=report is not None,
        client_status=200,
    )
