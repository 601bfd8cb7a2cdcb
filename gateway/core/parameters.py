"""The query parameters of the gateway's own pages: which ones a page takes, each of them once, and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from gateway.core.errors import FieldInvalid

SHOWN_CHARACTERS = 64
"""Of a name that a client made up."""

_DIGITS_MAX = 9


def refuse_unknown(given: Mapping[str, str], known: Collection[str]) -> None:
    """Whatever a query has beside these, and what it has twice. Raises FieldInvalid."""
    names = [name for name, _ in given.items()]  # By its keys, a query has each name once.
    for name in names:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "there are no parameters"
            shown = name[:SHOWN_CHARACTERS]
            raise FieldInvalid(f"{shown!r} is not known here; {there}.", param=shown)
    refuse_repeated(names)


def refuse_repeated(names: Iterable[str]) -> None:
    """A parameter that is given twice means two things. Raises FieldInvalid."""
    for name, times in Counter(names).items():
        if times > 1:
            shown = name[:SHOWN_CHARACTERS]
            raise FieldInvalid(f"{shown!r} is given {times} times; give it once.", param=shown)


def number_of(given: Mapping[str, str], name: str, *, most: int, default: int) -> int:
    """A whole number from 1 to `most`; the default where it is left out. Raises FieldInvalid."""
    text = given.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX
    if not is_number or not 1 <= int(text) <= most:
        raise FieldInvalid(f"{name!r} must be a number from 1 to {most}.", param=name)
    return int(text)
