"""What JSON is in Python: an object, and the place of a value in one."""

from __future__ import annotations

from typing import Any

JsonObject = dict[str, Any]
"""Its members by their names, of whatever kinds JSON has: text, numbers, lists, objects, null."""

Path = tuple[str, ...]
"""Names from member to member. Where a table lists the places of an answer, `*` is any element of an array."""
