"""Remembers the values of functions of one argument that every request calls.

A look-up in `functools.lru_cache` takes several times as long, since it moves an entry of a list each time. Here it is
a look-up in a dictionary, in C. The order of use is not kept: when there are too many values, all are forgotten, and
those that come again and again are computed once more.
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
    """Remember at most so many values of a function of one hashable argument. Nothing is remembered for an argument for
    which it raises, or for which `where` is false, such as one that is too long."""

    def remembering(compute: Callable[[K], V]) -> Callable[[K], V]:
        # As the method of `dict`, bound: to subscribe an object of a derived class is a call by name.
        return _RememberedValues(compute, most, where).__getitem__

    return remembering
