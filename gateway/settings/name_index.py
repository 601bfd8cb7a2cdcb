"""The names in a configuration, and which models patterns of names fit.

`NameIndex` is read from the plain data and not from the settings, so that a reference to something with an error is not
also reported as a reference to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gateway.core.snapshot import matches
from gateway.settings.diagnostics import Diagnostic, Path
from gateway.settings.document import Document


class NameIndex:
    """`models` by name: whether each of its routes has a price. `aliases` by alias: its model. `replaced`: the paths
    whose value came from the environment or a file."""

    def __init__(self, document: Document) -> None:
        data = _mapping(document.data)
        models = {name: _mapping(model) for name, model in _mapping(data.get("models")).items()}
        self.upstreams = frozenset(_mapping(data.get("upstreams")))
        self.models = {name: _is_priced(model) for name, model in models.items()}
        self.aliases = {alias: name for name, model in models.items() for alias in _list(model.get("aliases"))}
        self.replaced = frozenset(document.sources)
        self._fitting: dict[tuple[str, ...] | None, frozenset[str]] = {None: frozenset(self.models)}
        self._common: dict[tuple[frozenset[str], frozenset[str]], frozenset[str]] = {}
        self._unpriced: dict[frozenset[str], list[str]] = {}

    def fitting(self, patterns: Iterable[str] | None) -> frozenset[str]:
        """The models that match any of the patterns; without patterns all of them."""
        globs = None if patterns is None else tuple(patterns)
        found = self._fitting.get(globs)
        if found is None:
            found = self._fitting[globs] = frozenset(name for name in self.models if matches(name, globs or ()))
        return found

    def fitting_of(self, models: frozenset[str], patterns: Iterable[str] | None) -> frozenset[str]:
        """Those of `models` that match any of the patterns: the same object for the same, since thousands of limits
        ask it of a thousand models."""
        both = models, self.fitting(patterns)
        found = self._common.get(both)
        if found is None:
            found = self._common[both] = both[0] & both[1]
        return found

    def unpriced(self, models: frozenset[str]) -> list[str]:
        """Those of `models` with a route that has no price."""
        found = self._unpriced.get(models)
        if found is None:
            found = self._unpriced[models] = sorted(name for name in models if not self.models[name])
        return found


def idle_patterns(
    path: Path, patterns: Sequence[str] | None, models: frozenset[str], index: NameIndex
) -> Iterator[Diagnostic]:
    """The patterns at `path` that match none of `models`."""
    for place, pattern in enumerate(patterns or ()):
        if models and models.isdisjoint(index.fitting((pattern,))):
            model = index.aliases.get(pattern)
            hint = f"it is an alias, name {model} itself" if model else f"there are {some_of(models)}"
            yield Diagnostic((*path, place), f"matches no model that can be used here; {hint}")


def some_of(models: Iterable[str]) -> str:
    """The first of them, for a message."""
    names = sorted(models)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _is_priced(model: dict[str, Any]) -> bool:
    routes = model.get("routes")
    own = [_mapping(route).get("price") is not None for route in routes] if isinstance(routes, list) else []
    return model.get("price") is not None or (bool(own) and all(own))


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[str]:
    return [item for item in data if isinstance(item, str)] if isinstance(data, list) else []
