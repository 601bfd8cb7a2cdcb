"""Remembers what a function gave, for those of one argument that each request calls.

`functools.lru_cache` takes several times as long to find what it has, since each look-up moves an entry of a list. Here
a look-up is one of a dictionary, in C. Of what comes again and again nothing is gained by the order of use: where there
is too much, all is forgotten, and the usual values are computed once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _RememberedValues(dict[K, V]):
    __slots__ = ("_compute", "_most")

    def __init__(self, compute: Callable[[K], V], most: int) -> None:
        self._compute = compute
        self._most = most

    def __missing__(self, key: K) -> V:
        value = self._compute(key)
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value


def remembered(most: int) -> Callable[[Callable[[K], V]], Callable[[K], V]]:
    """Remember at most so many values of a function whose argument can be hashed; none for an argument for which it
    raises."""

    def remembering(compute: Callable[[K], V]) -> Callable[[K], V]:
        # As the method of `dict`, bound: to subscribe an object of a derived class is a call by name.
        return _RememberedValues(compute, most).__getitem__

    return remembering
