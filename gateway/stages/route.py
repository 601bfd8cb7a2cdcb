"""Route: the order in which the model's routes are tried, by health, priority, affinity, weight and load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.core.affinity import key_of
from gateway.core.clock import Clock
from gateway.core.errors import NoTarget, UpstreamAuthFailed
from gateway.core.request import ParsedRequest
from gateway.core.routing import RoutingState
from gateway.core.snapshot import Caller, Target


def route(
    parsed: ParsedRequest,
    headers: Mapping[str, str],
    caller: Caller,
    routing: RoutingState,
    clock: Clock,
    held_by: str = "",
) -> Sequence[Target]:
    """The targets that the caller may ask, best first; `headers` are the request's, `held_by` is the upstream that
    alone can answer it. Raises NoTarget if none can take it now, and UpstreamAuthFailed if all of them reject the
    gateway's credentials, because waiting does not help then."""
    model, now = parsed.binding.model, clock.monotonic()
    serving = model.serving(parsed.endpoint.name)
    if held_by:
        serving = tuple([target for target in serving if target.upstream.name == held_by])
    if parsed.consulted:
        serving = tuple([target for target in serving if parsed.is_served_by(target)])
    key = key_of(parsed, headers) if len(serving) > 1 else b""
    targets = routing.order(serving, key, now, caller)
    if not targets:
        if routing.health.reject_credentials(serving, now):
            raise UpstreamAuthFailed(
                f"The upstreams of the model {model.name!r} reject the gateway's credentials."
                " Operators: check their api_key."
            )
        wait_ms = max(1000, round(routing.health.wait_s(serving, now, caller) * 1000))
        raise NoTarget(
            f"No upstream of the model {model.name!r} can take a request now. Try again after the time that"
            " 'retry-after' says.",
            retry_after_ms=wait_ms,
        )
    return targets
