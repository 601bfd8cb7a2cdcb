"""Compares two texts of a configuration, in the order of the newer one.

Both are compared as they are written, with their references, whatever these are replaced by on a machine. Items of
lists are matched by what names them: limits by their title, keys by their name, routes by their upstream, plain texts
by themselves. So a limit at another place in its list is the same limit. Secrets are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.core.limits import Meter
from gateway.settings.redacted import TextTree
from gateway.settings.text_change import TextChange

NEEDS_RESTART = "needs a restart"
COUNTER_RESTARTS = "its counter restarts"

_METERS = tuple(meter.value for meter in Meter)
_GROUPED = re.compile(r"(?<=\d)_(?=\d)")


def compare(before: TextTree, after: TextTree, fixed: Collection[str]) -> list[TextChange]:
    """`fixed` are the settings that are read once, at the start."""
    found = _differences((), before, after)
    return [
        msgspec.structs.replace(each, note=NEEDS_RESTART) if each.path.partition(".")[0] in fixed else each
        for each in found
    ]


def _differences(path: tuple[str, ...], before: TextTree, after: TextTree) -> Iterator[TextChange]:
    old, new = _members(before), _members(after)
    if old is None or new is None:
        if _normal(before.raw) != _normal(after.raw):
            yield TextChange(".".join(path), "changed", before.shown, after.shown)
        return
    renamed = dict(_renamed(old, new))
    for name, tree in new.items():
        place = (*path, name)
        if name in old:
            yield from _noted(_differences(place, old[name], tree), old[name], tree)
        elif name in renamed:
            former = renamed[name]
            yield TextChange(".".join(place), "renamed", former, name, COUNTER_RESTARTS)
            yield from _beside_the_name(place, old[former], tree)
        else:
            yield TextChange(".".join(place), "added", None, tree.shown)
    for name, tree in old.items():
        if name not in new and name not in renamed.values():
            yield TextChange(".".join((*path, name)), "removed", tree.shown, None)


def _noted(changes: Iterator[TextChange], before: TextTree, after: TextTree) -> Iterator[TextChange]:
    """Of a limit: its counter is kept under what it counts, whatever its amount is."""
    restarts = _is_limit(before.raw) and _is_limit(after.raw) and _counts(before.raw) != _counts(after.raw)
    for change in changes:
        yield msgspec.structs.replace(change, note=COUNTER_RESTARTS) if restarts else change


def _renamed(old: Mapping[str, TextTree], new: Mapping[str, TextTree]) -> Iterator[tuple[str, str]]:
    """The new name and the former one of limits that count the same under another name. Of several that do, those
    belong together that differ least."""
    gone = {name: tree.raw for name, tree in old.items() if name not in new and _is_limit(tree.raw)}
    come = {name: tree.raw for name, tree in new.items() if name not in old and _is_limit(tree.raw)}
    pairs = [(name, former) for name in come for former in gone if _counts(come[name]) == _counts(gone[former])]
    for name, former in sorted(pairs, key=lambda pair: _distance(gone[pair[1]], come[pair[0]])):
        if name in come and former in gone:
            del come[name], gone[former]
            yield name, former


def _distance(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """How many settings of two limits differ, besides the name."""
    names = {*before, *after} - {"name"}
    return sum(_normal(before.get(name)) != _normal(after.get(name)) for name in names)


def _beside_the_name(path: tuple[str, ...], before: TextTree, after: TextTree) -> Iterator[TextChange]:
    """What else differs of a limit that is renamed, such as its amount."""
    name = ".".join((*path, "name"))
    for change in _differences(path, before, after):
        if change.path != name:
            yield msgspec.structs.replace(change, note=COUNTER_RESTARTS)


def _members(tree: TextTree) -> dict[str, TextTree] | None:
    """What is below, by what names it; None for a text."""
    if tree.raw is None:
        return {}
    if isinstance(tree.raw, dict):
        return {
            shown: TextTree(tree.raw[name], tree.shown[shown]) for name, shown in zip(tree.raw, tree.shown, strict=True)
        }
    if not isinstance(tree.raw, list):
        return None
    found: dict[str, TextTree] = {}
    for place, (raw, shown) in enumerate(zip(tree.raw, tree.shown, strict=True), 1):
        name = _label(raw, shown, place)
        found[name if name not in found else f"{name}#{place}"] = TextTree(raw, shown)
    return found


def _label(raw: Any, shown: Any, place: int) -> str:
    if not isinstance(raw, dict):
        return str(shown)
    if _is_limit(raw):
        return _title(raw)
    named = shown.get("name") or shown.get("issuer")
    if named:
        return str(named)
    if "upstream" in raw:
        return f"{shown['upstream']} {shown['model']}" if shown.get("model") else str(shown["upstream"])
    return f"#{place}"


def _is_limit(raw: Any) -> bool:
    return isinstance(raw, dict) and any(meter in raw for meter in _METERS) and "upstream" not in raw


def _title(limit: Mapping[str, Any]) -> str:
    """As LimitSettings calls it."""
    if limit.get("name"):
        return str(limit["name"])
    meter = next(each for each in _METERS if each in limit).replace("_", "-")
    per, models = limit.get("per"), limit.get("models")
    kind = meter if not per else f"{meter}-in-total" if per == "total" else f"{meter}-per-{per}"
    return f"{kind}:{','.join(sorted(set(models)))}" if isinstance(models, list) and models else kind


def _counts(limit: Mapping[str, Any]) -> tuple[Any, ...]:
    """What it counts, under whichever name."""
    models: Sequence[Any] = limit.get("models") or ()
    return next(each for each in _METERS if each in limit), limit.get("per"), tuple(map(str, models))


def _normal(raw: Any) -> Any:
    """Digits may be grouped."""
    return _GROUPED.sub("", raw) if isinstance(raw, str) else raw
