"""Removes an upstream's credential from its answers: debugging proxies and test servers echo the request.

The patterns are prepared when the configuration is loaded. A stream costs one search for each secret and piece. Nothing
is held back except the beginning of a secret at the very end of a piece, where no complete event ends. Bodies that are
held as a whole, and headers, are also searched for the secret in Base64.

What is seldom there is looked for by `partition`: it copies nothing where nothing is found, and takes three quarters of
the time of `find`, which parses its arguments at length. `in` takes bytes for a number first, and makes an error of it
that it drops.

Not found: a secret in an encoding other than Base64, percent-encoding and JSON's escapes; in Base64 if the body is
passed on as it comes; in a content coding that the gateway cannot decode; and one that a model spells out, a few
letters in each event.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

import msgspec

REDACTED = b"[redacted]"

SHORTEST_BYTES = 12
"""What is shorter can be a word: servers without keys of their own are given "EMPTY", "ollama" or "not-needed"."""


class Redactor(msgspec.Struct, frozen=True):
    """`plain` are the spellings that are looked for everywhere, and `plain_bytes` what they consist of; `every` has
    those in Base64, too, and `texts` the same as text."""

    plain: tuple[bytes, ...]
    plain_bytes: frozenset[int]
    every: tuple[bytes, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Redactor | None:
        """None where there is nothing to look for."""
        known = [text.encode() for text in secrets if len(text.encode()) >= SHORTEST_BYTES]
        # A longer spelling first: it can have a shorter one in it.
        plain = sorted({spelling for secret in known for spelling in _spellings(secret)}, key=len, reverse=True)
        encoded = sorted({spelling for secret in known for spelling in _in_base64(secret)})
        every = (*plain, *encoded)
        texts = tuple(each.decode() for each in every)
        return cls(tuple(plain), frozenset(b"".join(plain)), every, texts) if known else None

    def body(self, body: bytes) -> tuple[bytes, int]:
        """A whole body without secrets, and how many there were."""
        for spelling in self.every:
            if body.partition(spelling)[1]:
                return _redacted(body, self.every)
        return body, 0

    def headers(self, headers: Mapping[str, str]) -> tuple[Mapping[str, str], int]:
        """The same mapping where no value has a secret."""
        joined = "\n".join(headers.values())
        for spelling in self.texts:
            if spelling in joined:
                found = {name: self.body(value.encode()) for name, value in headers.items()}
                counted = sum(count for _, count in found.values())
                return {name: value.decode() for name, (value, _) in found.items()}, counted
        return headers, 0


class StreamRedactor:
    """One answer that is passed on to `into` as it comes. `count` is how many secrets were in it so far."""

    __slots__ = ("_bytes", "_held", "_secrets", "count", "into")

    def __init__(self, redactor: Redactor, into: Callable[[bytes], object]) -> None:
        self.into = into
        self.count = 0
        self._secrets = redactor.plain
        self._bytes = redactor.plain_bytes
        self._held = b""

    def feed(self, piece: bytes) -> None:
        """Pass on what can be: all of the piece, unless it ends within what may be a secret."""
        if self._held:
            piece, self._held = self._held + piece, b""
        for secret in self._secrets:
            if piece.partition(secret)[1]:
                piece, count = _redacted(piece, self._secrets)
                self.count += count
                break
        if piece and piece[-1] in self._bytes and (size := self._begun(piece)):
            self._held, piece = piece[-size:], piece[:-size]
        if piece:
            self.into(piece)

    def end(self) -> None:
        """Pass on what was held back."""
        held, self._held = self._held, b""
        if held:
            self.into(held)

    def _begun(self, piece: bytes) -> int:
        """How many bytes at the end are the beginning of a secret."""
        return max(_overlap(piece, secret) for secret in self._secrets)


def _overlap(piece: bytes, secret: bytes) -> int:
    begin = max(0, len(piece) - len(secret) + 1)
    while (begin := piece.find(secret[:1], begin)) >= 0:
        if secret.startswith(piece[begin:]):
            return len(piece) - begin
        begin += 1
    return 0


def _redacted(data: bytes, spellings: Iterable[bytes]) -> tuple[bytes, int]:
    count = 0
    for spelling in spellings:
        if spelling in data:
            count += data.count(spelling)
            data = data.replace(spelling, REDACTED)
    return data, count


def _spellings(secret: bytes) -> set[bytes]:
    """As it is, percent-encoded, and as a JSON text: that escapes slashes, or what has a meaning in HTML, of which
    encoders take these sets (of Go, of Gson, of .NET, of PHP)."""
    percent = quote(secret, safe="").encode()
    found = {secret, percent, re.sub(rb"%[0-9A-F]{2}", lambda each: each[0].lower(), percent)}
    escaped = {secret.replace(b"\\", rb"\\").replace(b'"', rb"\"")}
    for special in (b"<>&", b"<>&='", b"<>&+'\"`", b"<>&'\""):
        escaped |= {_with_escapes(secret, special, spelled) for spelled in (b"\\u%04x", b"\\u%04X")}
    return found | escaped | {each.replace(b"/", rb"\/") for each in escaped}


def _with_escapes(secret: bytes, special: bytes, spelled: bytes) -> bytes:
    return b"".join([spelled % byte if byte in special else b"%c" % byte for byte in secret])


def _in_base64(secret: bytes) -> set[bytes]:
    """The characters that depend on the secret alone, wherever in a Base64 text it begins, in both alphabets
    (RFC 4648, sections 4 and 5)."""
    found: set[bytes] = set()
    for before in range(3):
        text = b64encode(bytes(before) + secret)
        # Six bits a character: those that share bits with what is before or behind are left out.
        known = text[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        found |= {known, known.translate(bytes.maketrans(b"+/", b"-_")), known.replace(b"/", rb"\/")}
    return found
