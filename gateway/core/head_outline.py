"""What the names of a request's headers say about them: which of them are to be looked at, and which pass.

Programs send the same names with every request, so the outlines of the last ones are remembered, and the names of a
request are gone through once. Clients can make up any names: of unusually many, or long ones, nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.core.header_rules import REMEMBERED_LINES, SESSION_HEADERS, TO_UPSTREAM, PassingHeaders
from gateway.core.remembered import remembered

KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Where OpenAI's clients send a bearer, and Anthropic's, Azure's and Google's a key."""

TRACE_HEADER = "traceparent"

_REMEMBERED = 256
"""Outlines of a process."""

_REMEMBERED_CHARACTERS = 4_096
"""Of all names of a head together: that of a browser, the longest of the usual ones, has a fifth of it."""


class HeadOutline(msgspec.Struct, frozen=True):
    """`keys` are those of `KEY_HEADERS` that are there, `names_session` says whether one of `SESSION_HEADERS` is, and
    `names_trace` whether `TRACE_HEADER` is."""

    keys: tuple[str, ...]
    names_session: bool
    names_trace: bool
    to_upstream: PassingHeaders


def outline_of_head(headers: Mapping[str, str]) -> HeadOutline:
    """The outline of headers whose names compare without regard to case."""
    names = tuple(headers)
    if len(names) != len(headers):
        names = tuple([name for name, _ in headers.items()])  # multidict gives a repeated name once.
    return _outline_of_names(names)


def _is_usual(names: tuple[str, ...]) -> bool:
    return len(names) <= REMEMBERED_LINES and len("".join(names)) <= _REMEMBERED_CHARACTERS


@remembered(_REMEMBERED, where=_is_usual)
def _outline_of_names(names: tuple[str, ...]) -> HeadOutline:
    lower = {name.lower() for name in names}
    return HeadOutline(
        keys=tuple([name for name in KEY_HEADERS if name in lower]),
        names_session=not lower.isdisjoint(SESSION_HEADERS),
        names_trace=TRACE_HEADER in lower,
        to_upstream=TO_UPSTREAM.passing(names),
    )
