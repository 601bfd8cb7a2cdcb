"""What an answer is, by its first bytes."""

from __future__ import annotations

import pytest

from gateway.core.body_kind import BLANK_MAX, BodyKind, kind_of


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b'{"id"', BodyKind.JSON),
        (b'\xef\xbb\xbf \r\n{\n  "id"', BodyKind.JSON),
        (b"{}", BodyKind.JSON),
        (b"{ // a comment", BodyKind.JSON),
        (b"[1]", BodyKind.JSON),
        (b'[\n{"candidates"', BodyKind.JSON),
        (b"[]", BodyKind.JSON),
        (b"data:{}", BodyKind.EVENTS),
        (b"\n\nevent: x", BodyKind.EVENTS),
        (b"id: 1", BodyKind.EVENTS),
        (b"retry: 3000", BodyKind.EVENTS),
        (b": OPENROUTER PROCESSING", BodyKind.EVENTS),
        (b":\n\n", BodyKind.EVENTS),
        (b":keep-alive", BodyKind.EVENTS),
        (b"<html>", BodyKind.OTHER),
        (b"ID3\x04", BodyKind.OTHER),
        (b"database", BodyKind.OTHER),
        (b"{\x00\x00\x12", BodyKind.OTHER),
        (b"[\xff\xfb\x90", BodyKind.OTHER),
        (b":\x00\x01\x00", BodyKind.OTHER),
        (b" " * BLANK_MAX, BodyKind.OTHER),
    ],
)
def test_the_first_bytes_tell_what_it_is(beginning: bytes, kind: BodyKind) -> None:
    assert kind_of(beginning) is kind


@pytest.mark.parametrize(
    "beginning", [b"", b" \n", b"\xef", b"\xef\xbb", b"\xef\xbb\xbf", b"d", b"retry", b"{", b"{\n ", b"[", b":"]
)
def test_too_few_bytes_tell_nothing(beginning: bytes) -> None:
    assert kind_of(beginning) is None
