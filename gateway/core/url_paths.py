"""Finds the endpoint that a path names.

A table has each endpoint's path once, as OpenAI's API spells it. Clients use other spellings, too, which mean the same
endpoint:

    /v1/chat/completions                                the table's own
    /chat/completions                                   a base URL without /v1
    /openai/v1/chat/completions, /openai/…              Azure's API since 2025, and AI SDK's provider for it
    /openai/deployments/NAME/chat/completions           Azure's older API: the path names the model
    /v1/deployments/NAME/chat/completions, /deployments/… the same, where a client was given a base URL with /v1

Gemini's API has versions (/v1beta, /v1alpha, /v1, /v1beta1), and is also below a project of Vertex AI:

    /v1beta1/projects/P/locations/L/publishers/google/models/NAME:generateContent

The spellings of a path without parameters are looked up in a dictionary. A path with parameters is a regular
expression: `{model}` crosses slashes, as names of models do; any other parameter is one segment. A path that encodes
characters without need (`/v1/%6dodels`) is read as if it did not; an encoded slash is a part of a name, never a slash.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

_VERSION = "/v1"
_OTHER_PREFIXES = ("", "/openai", "/openai/v1")
_ANY_PREFIX = "(?:/openai/v1|/openai|/v1|)"
_DEPLOYMENTS = re.compile(_ANY_PREFIX + "/deployments/")
_GEMINI = "/v1beta"
_GEMINI_PREFIX = "/v1(?:beta1?|alpha)?(?:/projects/[^/]+/locations/[^/]+)?(?:/publishers/[^/]+)?"
_PARAMETER = re.compile(r"\{(\w+)\}")
_NEEDLESSLY_ENCODED = re.compile(
    "(?<!%)(?<!%[0-9a-fA-F])%(?:2[dDeE]|3[0-9aA]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])"
)
"""Characters that mean the same when they are encoded (RFC 3986, section 6.2.2.2), and the colon of Gemini's API,
which some clients encode: letters, digits and one of `-._~:`. Not behind half an escape, which they would complete: in
`%2%66` they would make a slash."""


class PathMatch(NamedTuple):
    """`pattern` is the table's spelling; `parameters` are decoded. Of a deployment's path, `model` is one of them."""

    pattern: str
    parameters: Mapping[str, str]


class PathTable:
    """`forwarded` are the patterns that a deployment can have, `answered` the others."""

    def __init__(self, forwarded: Collection[str], answered: Iterable[str]) -> None:
        by_deployment = [pattern for pattern in forwarded if pattern.startswith(f"{_VERSION}/") and "{" not in pattern]
        self._of_deployment = {pattern.removeprefix(_VERSION): pattern for pattern in by_deployment}
        self._plain: dict[str, PathMatch] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for pattern in (*forwarded, *answered):
            if "{" in pattern:
                self._patterns.append((_expression(pattern), pattern))
            else:
                self._plain[pattern] = PathMatch(pattern, {})
        for match in list(self._plain.values()):
            for spelled in _spellings(match.pattern):
                self._plain.setdefault(spelled, match)

    def find(self, raw_path: str) -> PathMatch | None:
        """`raw_path` is as it was sent: percent-encoded, without the query."""
        if "%" in raw_path:
            raw_path = _NEEDLESSLY_ENCODED.sub(lambda found: unquote(found[0]), raw_path)
        return self._plain.get(raw_path) or self._find_deployment(raw_path) or self._find_pattern(raw_path)

    def _find_deployment(self, raw_path: str) -> PathMatch | None:
        found = _DEPLOYMENTS.match(raw_path)
        if found is None:
            return None
        rest = raw_path[found.end() :]
        # The longest end counts: `/chat/completions` before `/completions`.
        slash = rest.find("/")
        while slash > 0:
            pattern = self._of_deployment.get(rest[slash:])
            if pattern is not None:
                return PathMatch(pattern, {"model": unquote(rest[:slash])})
            slash = rest.find("/", slash + 1)
        return None

    def _find_pattern(self, raw_path: str) -> PathMatch | None:
        for expression, pattern in self._patterns:
            if found := expression.fullmatch(raw_path):
                return PathMatch(pattern, {name: unquote(value) for name, value in found.groupdict().items()})
        return None


def _spellings(pattern: str) -> list[str]:
    if not pattern.startswith(f"{_VERSION}/"):
        return []
    return [prefix + pattern.removeprefix(_VERSION) for prefix in _OTHER_PREFIXES]


def _expression(pattern: str) -> re.Pattern[str]:
    prefix, text = "", pattern
    if pattern.startswith(f"{_VERSION}/"):
        prefix, text = _ANY_PREFIX, pattern.removeprefix(_VERSION)
    elif pattern.startswith(f"{_GEMINI}/") and ":" in pattern:
        prefix, text = _GEMINI_PREFIX, pattern.removeprefix(_GEMINI)
    pieces = [
        re.escape(piece) if place % 2 == 0 else f"(?P<{piece}>{'.+' if piece == 'model' else '[^/]+'})"
        for place, piece in enumerate(_PARAMETER.split(text))
    ]
    return re.compile(prefix + "".join(pieces))
