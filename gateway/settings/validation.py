"""Plain data in, settings and everything that is wrong with them out.

What is wrong is cut away until the rest is valid, so that what must hold between settings can be
checked in the same run: whoever mends a configuration sees all of its errors at once.
"""

from __future__ import annotations

import typing
from types import NoneType
from typing import Any, NamedTuple

from pydantic import ValidationError

from gateway.settings.document import Mapping
from gateway.settings.problems import Finding, Path, nearest
from gateway.settings.section import Section
from gateway.settings.shape import Settings

_SAID = {
    "missing": "is missing; it is required",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping, from names to settings",
    "model_type": "must be a mapping of settings",
    "too_short": "must not be empty; leave it out to mean all",
}
_KEY = "[key]"
"""What pydantic appends to the path of a mapping's key that is wrong."""


class Validated(NamedTuple):
    """`settings` is what is valid of the data; None where nothing is."""

    settings: Settings | None
    findings: list[Finding]


def validate(data: Any) -> Validated:
    findings: list[Finding] = []
    while True:
        try:
            return Validated(Settings.model_validate(data), findings)
        except ValidationError as invalid:
            errors: list[Any] = invalid.errors(include_url=False, include_input=False)
        # Later rounds only find what the cutting broke.
        findings = findings or [_finding(error) for error in errors]
        cuts = {_cut(error) for error in errors}
        if () in cuts:
            return Validated(None, findings)
        data = _without(data, (), cuts)


def _finding(error: Any) -> Finding:
    path = tuple(step for step in error["loc"] if step != _KEY)
    if error["type"] == "extra_forbidden":
        return Finding(path, f"is not a known setting; {nearest(str(path[-1]), _settings_at(path[:-1]))}")
    if error["type"] == "value_error":
        said = str(error["ctx"]["error"])
        return Finding(path, f"its name {said}" if _KEY in error["loc"] else said)
    if error["type"] == "literal_error":
        return Finding(path, f"must be {error['ctx']['expected']}")
    return Finding(path, _SAID.get(error["type"], "has the wrong form"))


def _settings_at(path: Path) -> list[str]:
    """The names of the settings that a path may have below it."""
    kind: Any = Settings
    for step in path:
        if _is_section(kind):
            kind = kind.model_fields[step].annotation
        else:
            key_or_item, *rest = typing.get_args(kind)
            kind = rest[0] if typing.get_origin(kind) is dict else key_or_item
        if NoneType in typing.get_args(kind):
            kind = typing.get_args(kind)[0]
    return list(kind.model_fields)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _cut(error: Any) -> Path:
    """What has to go for the rest to be valid: what is wrong, or what something is missing from."""
    path: Path = tuple(step for step in error["loc"] if step != _KEY)
    return path[:-1] if error["type"] == "missing" else path


def _without(data: Any, path: Path, cuts: set[Path]) -> Any:
    if isinstance(data, dict):
        kept = Mapping(getattr(data, "path", ()))
        for name, value in data.items():
            if (*path, name) not in cuts:
                kept[name] = _without(value, (*path, name), cuts)
        return kept
    if isinstance(data, list):
        numbered = [((*path, index), item) for index, item in enumerate(data)]
        return [_without(item, place, cuts) for place, item in numbered if place not in cuts]
    return data
