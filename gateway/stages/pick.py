"""Pick: in which order the model's routes are tried. By priority; by weight within one priority."""

from __future__ import annotations

from random import Random

from gateway.core.envelope import Envelope
from gateway.core.errors import NoTarget
from gateway.core.target import Target


def pick(envelope: Envelope, dice: Random) -> list[Target]:
    """The targets, best first. Raises NoTarget."""
    targets = envelope.model.targets
    if not targets:
        raise NoTarget(f"No upstream serves the model {envelope.model.name!r}.", retry_after_ms=1000)
    if len(targets) == 1:
        return [targets[0]]
    # A weighted shuffle: the exponent makes the chance of coming first proportional to the weight
    # (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
    return sorted(targets, key=lambda target: (target.priority, -(dice.random() ** (1 / target.weight))))
