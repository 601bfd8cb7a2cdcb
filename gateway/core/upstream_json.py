"""Reads what an upstream reports in a piece of JSON: a failure, the end of a choice.

Bytes that are not JSON report nothing; nothing here raises. Usage is read by usage_reading.py.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gateway.core.endpoints import Dialect
from gateway.core.refusals import FAULT_PATHS, Fault, fault_of
from gateway.core.sse import BOM
from gateway.core.tolerant_json import scan, wanted_members
from gateway.core.usage_report import Members

SCANNED_MAX = 8 * 1024
"""Bytes of an error that are looked through where it is no JSON, as one that is cut: this is slow."""

_WANTED_OF_FAILURE = wanted_members(FAULT_PATHS)


def fault_of_body(status: int, body: bytes) -> Fault | None:
    """Whose fault the failure is that an answer reports by its status and its body, whole or not; None where nothing
    failed."""
    answer = decoded(body)
    if isinstance(answer, list) and answer:
        answer = answer[-1]  # Google's servers put it into an array where a stream was asked for.
    if isinstance(answer, dict):
        return fault_of(status, answer)
    objects = scan(body[:SCANNED_MAX], _WANTED_OF_FAILURE)
    return fault_of(status, objects[-1] if objects else None)


def reported_fault(chunk: Members) -> Fault | None:
    """Whose fault the failure is that an event reports, or an answer with status 200; None where nothing failed."""
    return fault_of(200, chunk)


def error_message(body: bytes) -> str:
    """The message of an error body, as far as it has one of the usual forms."""
    chunk = object_of(body) or {}
    inner = chunk.get("error")
    message = (inner if isinstance(inner, dict) else chunk).get("message")
    return message if isinstance(message, str) else "it gave no reason."


def is_error_of(dialect: Dialect, body: bytes) -> bool:
    """Whether a body is an error as this API writes them."""
    answer = object_of(body) or {}
    error = answer.get("error")
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return False
    return dialect is not Dialect.ANTHROPIC or answer.get("type") == "error"


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
