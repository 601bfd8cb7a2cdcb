"""What an upstream says in a piece of JSON: an error, the end of a choice.

Bytes that are no JSON say nothing; nothing here raises. Usage is read by usage_reading.py.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gateway.core.sse import BOM
from gateway.core.usage_report import Members


def reports_error(chunk: Members) -> bool:
    """Whether an event reports a failure, in the form of any of the APIs served."""
    return chunk.get("error") is not None or chunk.get("type") in ("error", "response.failed")


def error_message(body: bytes) -> str:
    """The message of an error body, as far as it has one of the usual forms."""
    chunk = object_of(body) or {}
    inner = chunk.get("error")
    message = (inner if isinstance(inner, dict) else chunk).get("message")
    return message if isinstance(message, str) else "it gave no reason."


class Nullable:
    """Looks in JSON text, without decoding it, whether a member is there with a value."""

    def __init__(self, name: str) -> None:
        self._name = b'"%b"' % name.encode()
        self._null = b'"%b":null' % name.encode()
        self._null_spaced = b'"%b": null' % name.encode()

    def is_null(self, text: bytes) -> bool:
        """Whether every member of this name, if there is any, is null."""
        seen = text.count(self._name)
        return not seen or seen == text.count(self._null) or seen == text.count(self._null_spaced)


def has_choice(chunk: Members) -> bool:
    return bool(chunk.get("choices"))


def ends_choice(chunk: Members) -> bool:
    """Whether a choice says why it ends; some servers say in each chunk that there is no reason yet, with ""."""
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return False
    return any(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices)


def object_of(text: bytes) -> dict[str, Any] | None:
    value = decoded(text)
    return value if isinstance(value, dict) else None


def decoded(text: bytes | msgspec.Raw) -> Any:
    """A JSON value, None for what is none. Lone surrogates, control characters in strings, NaN and infinities, which
    servers send, are read."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return json.loads(bytes(text).removeprefix(BOM).decode(errors="replace"), strict=False)
    except (ValueError, RecursionError):
        return None
