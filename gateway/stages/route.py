"""Route: in which order the model's routes are tried: by health, priority, affinity, weight and load."""

from __future__ import annotations

from gateway.core.affinity import key_of
from gateway.core.clock import Clock
from gateway.core.errors import NoTarget
from gateway.core.request import ParsedRequest
from gateway.core.routing import RoutingState
from gateway.core.snapshot import Target


def route(parsed: ParsedRequest, routing: RoutingState, clock: Clock) -> list[Target]:
    """The targets that may be asked, best first. Raises NoTarget where none can take a request now."""
    model, now = parsed.model, clock.monotonic()
    targets = routing.order(model, key_of(parsed), now)
    if not targets:
        wait_ms = max(1000, round(routing.health.wait_s(model.targets, now) * 1000))
        raise NoTarget(f"No upstream of the model {model.name!r} can take a request now.", retry_after_ms=wait_ms)
    return targets
