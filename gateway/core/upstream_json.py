"""What an upstream reports in a piece of JSON: usage, a failure, the end of a choice.

Bytes that are no JSON report nothing; nothing here raises.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.endpoints import UsagePath
from gateway.core.refusals import FAULT_PATHS, Fault, fault_of
from gateway.core.sse import BOM
from gateway.core.tolerant_json import JsonScanner, wanted_members

JsonMembers = dict[str, msgspec.Raw]
_DECODER = msgspec.json.Decoder(JsonMembers)


SCANNED_MAX = 8 * 1024
"""Bytes of an error that are looked through where it is not strict JSON, as one that is cut: this is slow."""

_WANTED_OF_FAILURE = wanted_members(FAULT_PATHS)
_FAILED_TYPES = (b'"error"', b'"response.failed"')


def fault_of_body(status: int, body: bytes) -> Fault | None:
    """Whose fault the failure is that an answer reports by its status and its body, whole or not; None where nothing
    failed."""
    answer = decoded(body.removeprefix(BOM))
    if isinstance(answer, list) and answer:
        answer = answer[-1]  # Google's servers put it into an array where a stream was asked for.
    if isinstance(answer, dict):
        return fault_of(status, answer)
    objects: list[dict[str, Any]] = []
    scanner = JsonScanner(_WANTED_OF_FAILURE, objects.append)
    scanner.feed(body[:SCANNED_MAX])
    scanner.close()
    return fault_of(status, objects[-1] if objects else None)


def reported_fault(chunk: JsonMembers) -> Fault | None:
    """Whose fault the failure is that an event reports, or an answer with status 200; None where nothing failed."""
    if not _may_report_failure(chunk):
        return None
    answer = {path[0]: decoded(chunk[path[0]]) for path in FAULT_PATHS if len(path) == 1 and path[0] in chunk}
    response = members_of(chunk.get("response"))
    if response and "error" in response:  # The rest of it can be long, and says nothing of a failure.
        answer["response"] = {"error": decoded(response["error"])}
    return fault_of(200, answer)


def _may_report_failure(chunk: JsonMembers) -> bool:
    """Whether it is worth decoding: most are not."""
    return (
        present(chunk, "error")
        or "promptFeedback" in chunk
        or "base_resp" in chunk
        or bytes(chunk.get("type", b"")) in _FAILED_TYPES
        or bytes(chunk.get("object", b"")) == b'"error"'
    )


def error_message(body: bytes) -> str:
    """The message of an error body, as far as it has one of the usual forms."""
    chunk = members_of(body) or {}
    inner = members_of(chunk.get("error")) or chunk
    message = decoded(inner["message"]) if "message" in inner else None
    return message if isinstance(message, str) else "it gave no reason."


def find_usage(chunk: JsonMembers, paths: tuple[UsagePath, ...]) -> msgspec.Raw | None:
    """The usage object at the first of the paths that leads to one."""
    for path in paths:
        inner: JsonMembers | None = chunk
        for name in path[:-1]:
            inner = members_of(inner.get(name)) if inner else None
        report = inner.get(path[-1]) if inner else None
        if report is not None and members_of(report):
            return report
    return None


def usage_in_tail(text: bytes) -> msgspec.Raw | None:
    """The last usage object in a piece of JSON text whose beginning is missing."""
    position = text.rfind(b'"usage"')
    while position >= 0:
        begin = text.find(b"{", position)
        if begin >= 0 and text[position + 7 : begin].strip() == b":":
            return _object_at(text, begin)
        position = text.rfind(b'"usage"', 0, position)
    return None


def _object_at(text: bytes, begin: int) -> msgspec.Raw | None:
    # A usage object has objects in it, but none deep: its end is one of the next closing braces.
    end = text.find(b"}", begin)
    for _ in range(16):
        if end < 0:
            return None
        candidate = text[begin : end + 1]
        if members_of(candidate) is not None:
            return msgspec.Raw(candidate)
        end = text.find(b"}", end + 1)
    return None


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


def members_of(text: bytes | msgspec.Raw | None) -> JsonMembers | None:
    if text is None:
        return None
    try:
        return _DECODER.decode(bytes(text).removeprefix(BOM))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def present(chunk: JsonMembers, name: str) -> bool:
    raw = chunk.get(name)
    return raw is not None and bytes(raw) != b"null"


def has_choice(chunk: JsonMembers) -> bool:
    return "choices" in chunk and bool(decoded(chunk["choices"]))


def ends_choice(chunk: JsonMembers) -> bool:
    """Whether a choice says why it ends; some servers say in each chunk that there is no reason yet, with ""."""
    choices = decoded(chunk["choices"]) if "choices" in chunk else None
    if not isinstance(choices, list):
        return False
    return any(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices)


def decoded(raw: msgspec.Raw | bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
