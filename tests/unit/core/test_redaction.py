from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.redaction import REDACTED, Redactor, StreamRedactor

SECRET = "sk-proj/9aB+cD?eF==GhIjK~lMnO"
RAW = SECRET.encode()


def redactor(*secrets: str) -> Redactor:
    made = Redactor.of(secrets)
    assert made is not None
    return made


def passed_on(made: Redactor, *pieces: bytes) -> list[bytes]:
    """What comes out of a stream for these pieces, before its end."""
    passed: list[bytes] = []
    stream = StreamRedactor(made, passed.append)
    for piece in pieces:
        stream.feed(piece)
    return passed


def _as_json(special: str, spelled: str) -> bytes:
    """As encoders write a JSON text that may stand in HTML."""
    return "".join([spelled % ord(each) if each in special else each for each in SECRET]).encode()


@pytest.mark.parametrize(
    "echoed",
    [
        RAW,
        b"Bearer " + RAW,
        quote(SECRET, safe="").encode(),
        re.sub("%[0-9A-F]{2}", lambda each: each[0].lower(), quote(SECRET, safe="")).encode(),
        json.dumps(SECRET).replace("/", r"\/").encode(),
        *[_as_json(special, spelled) for special in ("+<>&", "=<>&") for spelled in (r"\u%04x", r"\u%04X")],
        _as_json("+<>&", r"\u%04X").replace(b"/", rb"\/"),
        *[b64encode(b"x" * before + RAW) for before in range(5)],
        *[urlsafe_b64encode(b"x" * before + RAW + b"yz") for before in range(3)],
        b64encode(b"Bearer " + RAW).replace(b"/", rb"\/"),
    ],
)
def test_a_whole_body_has_no_secret_in_it_however_it_is_spelled(echoed: bytes) -> None:
    body, count = redactor(SECRET).body(b'{"you sent":"' + echoed + b'"}')
    assert count == 1
    assert REDACTED in body
    assert RAW[4:-4] not in body
    assert b64encode(RAW)[4:-4] not in body


def test_what_has_no_secret_is_the_same_object() -> None:
    made = redactor(SECRET)
    body, headers = b"nothing " * 100, {"request-id": "req_1"}
    assert made.body(body)[0] is body
    assert made.headers(headers)[0] is headers
    assert passed_on(made, body)[0] is body


def test_headers_lose_secrets() -> None:
    echoed = {"openai-processing-ms": f"for {SECRET}", "request-id": "\ufffd", "openai-version": SECRET}
    headers, count = redactor(SECRET).headers(echoed)
    assert headers == {
        "openai-processing-ms": "for [redacted]",
        "request-id": "\ufffd",
        "openai-version": "[redacted]",
    }
    assert count == 2


@pytest.mark.parametrize("word", ["", "EMPTY", "ollama", "not-needed"])
def test_a_word_in_the_place_of_a_secret_is_not_looked_for(word: str) -> None:
    assert Redactor.of([word]) is None


def test_a_secret_that_has_another_in_it_goes_whole() -> None:
    body, count = redactor("abcdefghijklmnop", "abcdefghijkl").body(b"<abcdefghijklmnop><abcdefghijkl>")
    assert (body, count) == (b"<[redacted]><[redacted]>", 2)


@given(
    st.lists(st.sampled_from([RAW, b"sk-", b"sk-proj/9a", b"\n\n", b"data: x", RAW[:-1], b"ss", b"\\/"]), max_size=8),
    st.data(),
)
def test_a_stream_has_no_secret_in_it_wherever_it_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces: list[bytes] = []
    stream = StreamRedactor(redactor(SECRET), pieces.append)
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        stream.feed(whole[begin:end])
    stream.end()
    assert b"".join(pieces) == whole.replace(RAW, REDACTED)
    assert b"" not in pieces
    assert stream.count == whole.count(RAW)


@given(st.binary(max_size=50))
def test_whole_events_are_never_held_back(event: bytes) -> None:
    assert passed_on(redactor(SECRET), event + b"\n\n") == [event + b"\n\n"]


def test_no_more_is_held_back_than_what_may_become_a_secret() -> None:
    pieces = passed_on(redactor(SECRET), b"data: sk-proj/9aB+cD sk-pro", b"vider")
    assert pieces == [b"data: sk-proj/9aB+cD ", b"sk-provider"]
