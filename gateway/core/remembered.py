"""Remembers what a function gave, for those of one argument that each request calls.

`functools.lru_cache` takes several times as long to find what it has, since each look-up moves an entry of a list. Here
a look-up is one of a dictionary, in C. Of what comes again and again nothing is gained by the order of use: where there
is too much, all is forgotten, and the usual values are computed once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _RememberedValues(dict[K, V]):
    __slots__ = ("_compute", "_most", "_where")

    def __init__(self, compute: Callable[[K], V], most: int, where: Callable[[K], bool] | None) -> None:
        self._compute = compute
        self._most = most
        self._where = where

    def __missing__(self, key: K) -> V:
        value = self._compute(key)
        if self._where is None or self._where(key):
            if len(self) >= self._most:
                self.clear()
            self[key] = value
        return value


def remembered(most: int, where: Callable[[Any], bool] | None = None) -> Callable[[Callable[[K], V]], Callable[[K], V]]:
    """Remember at most so many values of a function whose argument can be hashed; none for an argument for which it
    raises, or of which `where` says so, as of one that is too long."""

    def remembering(compute: Callable[[K], V]) -> Callable[[K], V]:
        # As the method of `dict`, bound: to subscribe an object of a derived class is a call by name.
        return _RememberedValues(compute, most, where).__getitem__

    return remembering
