"""What a configuration names, read from its plain data, so that a reference to something that has an
error of its own is not taken for a reference to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.core.snapshot import matches
from gateway.settings.document import Document
from gateway.settings.problems import Path


class Known(NamedTuple):
    """`models` by name: whether each has a price. `aliases` by alias: its model.
    `replaced`: the paths whose value came from the environment or a file."""

    upstreams: frozenset[str]
    models: dict[str, bool]
    aliases: dict[str, str]
    replaced: frozenset[Path]

    def fitting(self, patterns: Iterable[str] | None) -> frozenset[str]:
        """The models that fit any of the patterns; None lets every one through."""
        if patterns is None:
            return frozenset(self.models)
        globs = tuple(patterns)
        return frozenset(name for name in self.models if matches(name, globs))


def known_in(document: Document) -> Known:
    data = _mapping(document.data)
    models = {name: _mapping(model) for name, model in _mapping(data.get("models")).items()}
    return Known(
        upstreams=frozenset(_mapping(data.get("upstreams"))),
        models={name: model.get("price") is not None for name, model in models.items()},
        aliases={alias: name for name, model in models.items() for alias in _list(model.get("aliases"))},
        replaced=frozenset(path for path, place in document.places.items() if place.source),
    )


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[str]:
    return [item for item in data if isinstance(item, str)] if isinstance(data, list) else []
