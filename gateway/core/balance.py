"""In which order a model's routes are tried: by priority, then by weight and by what is in flight.

Smooth weighted round robin, as nginx does it, over weights that shrink with the load: a slow server
gathers requests in flight and so gets fewer new ones; equals that are idle take turns exactly by weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.core.target import Target


class Candidate(NamedTuple):
    """A route as it stands: `share` is the part of its usual requests that it may get (see Health)."""

    target: Target
    share: float
    in_flight: int


class Balance:
    """The turns of one model's routes. Each of its places is a route's: another list, another Balance."""

    def __init__(self, routes: int) -> None:
        self._turns = [0.0] * routes
        self._saved = [0.0] * routes

    def order(self, candidates: Sequence[Candidate]) -> list[Target]:
        """The routes that may be tried at all, best first. One that may get only a part of its requests, or
        is full, comes last when it is not its turn: better than nothing, when all else fails."""
        able = [place for place, candidate in enumerate(candidates) if candidate.share > 0]
        due = {place for place in able if self._is_due(place, candidates[place])}
        dues = self._dues(candidates, due)
        for place, weight in dues.items():
            self._turns[place] += weight

        def rank(place: int) -> tuple[bool, int, float, int]:
            target = candidates[place].target
            return place not in due, target.priority, -self._turns[place], -target.weight

        able.sort(key=rank)
        if dues:
            self._turns[able[0]] -= sum(dues.values())
        return [candidates[place].target for place in able]

    def _is_due(self, place: int, candidate: Candidate) -> bool:
        if candidate.in_flight >= candidate.target.upstream.max_connections:
            return False
        if candidate.share >= 1.0:
            return True
        self._saved[place] += candidate.share
        if self._saved[place] < 1.0:
            return False
        self._saved[place] -= 1.0
        return True

    def _dues(self, candidates: Sequence[Candidate], due: set[int]) -> dict[int, float]:
        """What is added to the turns of those between whom the choice is: the first priority's."""
        first = min((candidates[place].target.priority for place in due), default=0)
        group = [place for place in due if candidates[place].target.priority == first]
        return {place: _weight(candidates[place]) for place in group}


def _weight(candidate: Candidate) -> float:
    """The weight, less the more is in flight for each unit of it: under load, what is in flight has the
    proportion of the weights where servers are equally fast."""
    weight = candidate.target.weight
    return weight / (1 + candidate.in_flight / weight)
