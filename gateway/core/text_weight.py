"""The weight of a text, as a measure of its tokens without a tokenizer.

The unit is a plain character: one of ASCII, of which current tokenizers have about four in a token. A character of
another script weighs more, because fewer of them are in a token; one of Chinese, Japanese or Korean is about a token.
Text is weighed as UTF-8 by counting the bytes that begin a character, so that even megabytes take milliseconds.
"""

from __future__ import annotations

_BACKSLASH = ord("\\")
_ASCII = bytes(range(0x80))
_CONTINUATION = bytes(range(0x80, 0xC0))
_SCRIPTS: tuple[tuple[bytes, int], ...] = (
    # Accented Latin, Greek, Cyrillic, Hebrew, Arabic: U+0080 to U+07FF.
    (bytes(range(0xC0, 0xE0)), 2),
    # The scripts of India and South-East Asia, punctuation, symbols: U+0800 to U+2FFF.
    (bytes(range(0xE0, 0xE3)), 3),
    # Chinese, Japanese, Korean: U+3000 to U+FFFF.
    (bytes(range(0xE3, 0xF0)), 4),
    # Pictures and rare characters of Chinese.
    (bytes(range(0xF0, 0x100)), 8),
)
"""The first bytes of a character in UTF-8, and what such a character weighs."""


def weight_of(text: bytes) -> int:
    """What a text in UTF-8 weighs."""
    if text.isascii():
        return len(text)
    other = text.translate(None, _ASCII)
    weight, left = len(text) - len(other), other.translate(None, _CONTINUATION)
    for first_bytes, each in _SCRIPTS:
        rest = left.translate(None, first_bytes)
        weight += each * (len(left) - len(rest))
        left = rest
    return weight


def weight_of_string(text: str) -> int:
    return len(text) if text.isascii() else weight_of(text.encode("utf-8", "surrogatepass"))


def is_wide(weight: int, length: int) -> bool:
    """Whether a JSON text of this weight and length in bytes is mostly of a script whose characters are about a token
    each (Chinese, Japanese, Korean): in UTF-8 they weigh more than their bytes, as escapes less, and other text weighs
    about what it has. Tokenizers differ more in such scripts than in others."""
    return not 0.75 * length <= weight <= 1.15 * length


def weight_of_json(text: bytes) -> int:
    """What a JSON text weighs, with each escape as the character that it is."""
    weight = len(text) if text.isascii() else weight_of(text)
    if _BACKSLASH not in text:
        return weight
    weight -= text.count(b"\\") - text.count(b"\\\\")
    escapes = text.count(b"\\u")
    if escapes:
        # Without its backslash an escape has weighed five.
        alphabetic = text.count(b"\\u0")
        symbols = text.count(b"\\u1") + text.count(b"\\u2")
        weight -= 3 * alphabetic + 2 * symbols + (escapes - alphabetic - symbols)
    return weight
