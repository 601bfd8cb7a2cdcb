"""Streams recorded from real servers, and parsing vectors, where a folder beside the project holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.recorded.recordings import SHARED, index

ROOT = SHARED / "sse"

needs_recordings = pytest.mark.skipif(not ROOT.is_dir(), reason=f"the recorded streams are not in {ROOT}")


def recordings(*apis: str) -> list[Any]:
    """(bytes, the usage they report last or None) of each recording of these APIs, as parameters."""
    found = [
        pytest.param((ROOT / entry["file"]).read_bytes(), entry["usage"], id=Path(entry["file"]).stem)
        for entry in index(ROOT)
        if entry["api"] in apis
    ]
    return found or [pytest.param(b"", None, id="none")]


def vectors() -> list[Any]:
    """(bytes, the data that a parser must give where that is written down) of each vector."""
    found = [
        pytest.param(path.read_bytes(), _expected(path), id=f"{path.parent.name}-{path.stem}")
        for path in sorted((ROOT / "vectors").glob("*/*.sse"))
    ]
    return found or [pytest.param(b"", None, id="none")]


def _expected(path: Path) -> list[str] | None:
    told = path.with_suffix(".expect.json")
    return json.loads(told.read_text(encoding="utf-8"))["expected_data"] if told.exists() else None
