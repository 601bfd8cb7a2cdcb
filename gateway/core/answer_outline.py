"""Decodes of a plain answer what is read of it: which members say what it used, and whether it failed.

An answer is mostly text, vectors, pictures or logarithms of probabilities, of which the tally needs nothing. What is
not decoded is only skipped over, which takes a fraction, and makes no objects. The members that are wanted are those
for which longer answers are searched (tolerant_json.py), so that both say the same of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec

from gateway.core.endpoints import FORWARDED
from gateway.core.refusals import FAULT_PATHS
from gateway.core.tolerant_json import Wanted
from gateway.core.usage_reading import wanted_of


def outline_of(api: str, body: bytes) -> dict[str, Any] | None:
    """The wanted members of an answer of the API whose usage table has this name. None for what is no JSON object, and
    where a wanted member is of another kind than it should be: the answer is to be decoded wholly then."""
    try:
        return _DECODERS[api].decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _shape_of(wanted: Wanted | None) -> Any:
    """As a type for msgspec. Null is in the place of any value."""
    if wanted is None or wanted.keys() == _IS_THERE:
        return Any
    if "*" not in wanted:
        return _members(wanted) | None
    elements = wanted["*"]
    # Of elements that are only counted nothing is wanted.
    is_counted = elements is not None and elements.keys() == _IS_THERE
    shape = _members({}) if is_counted else _shape_of(elements)
    return list[shape] | None  # type: ignore[valid-type] # Made of what is wanted.


def _members(wanted: Wanted) -> Any:
    shapes = {name: _shape_of(below) for name, below in wanted.items()}
    return TypedDict("_Members", shapes, total=False)  # type: ignore[operator] # Made of what is wanted.


_IS_THERE = {""}
"""In the place of names, where it is only asked whether a value is there."""

_DECODERS: Mapping[str, msgspec.json.Decoder[dict[str, Any]]] = {
    endpoint.usage.name: msgspec.json.Decoder(_members(wanted_of(endpoint.usage, FAULT_PATHS)))
    for endpoint in FORWARDED
}
