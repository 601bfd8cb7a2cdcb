"""In which form a browser gets a page: not at all where it has it already, and compressed where it takes that
(RFC 9110, sections 12 and 13)."""

from __future__ import annotations

import re
from hashlib import sha256

_REFUSED = re.compile(r"q=0(\.0{0,3})?", re.IGNORECASE)


def tag_of(body: bytes) -> str:
    """The entity tag of an answer with these bytes (RFC 9110, 8.8.3)."""
    return f'"{sha256(body).hexdigest()[:16]}"'


def names_tag(if_none_match: str, tag: str) -> bool:
    """Whether `if-none-match` has this tag among its own, which a proxy may have made weak (RFC 9110, 13.1.2)."""
    return any(each.strip().removeprefix("W/") in (tag, "*") for each in if_none_match.split(","))


def accepts_coding(accept_encoding: str, coding: str) -> bool:
    """Whether `accept-encoding` names this coding, and does not refuse it (RFC 9110, 12.5.3)."""
    for each in accept_encoding.split(","):
        name, _, weight = each.partition(";")
        if name.strip().lower() == coding:
            return _REFUSED.fullmatch(weight.strip()) is None
    return False
