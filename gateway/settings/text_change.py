"""One difference between two texts of a configuration, and how it is said."""

from __future__ import annotations

from typing import Any

import msgspec


class TextChange(msgspec.Struct, frozen=True):
    """`change` is added, removed, changed or renamed; `note` says what else follows from it."""

    path: str
    change: str
    before: Any = None
    after: Any = None
    note: str = ""

    def in_words(self) -> str:
        """As `gateway diff` and the log say it."""
        before, after = _as_yaml(self.before), _as_yaml(self.after)
        what = {
            "added": f"added: {after}",
            "removed": f"removed, was {before}",
            "renamed": f"renamed from {before} to {after}",
        }.get(self.change, f"changed from {before} to {after}")
        return f"{self.path} {what}" + (f" ({self.note})" if self.note else "")


def _as_yaml(value: Any) -> str:
    """In one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_as_yaml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    return "nothing" if value is None else str(value)
