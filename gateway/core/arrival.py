"""A request as it arrives at the door, before anything about it is known or believed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from gateway.core.endpoints import Endpoint


class Arrival(msgspec.Struct, frozen=True):
    """`headers` compare without regard to case. `body` reads it whole, raising TooLarge past the
    configured size. `at` is the monotonic second at which the request's head had arrived."""

    request_id: str
    endpoint: Endpoint
    headers: Mapping[str, str]
    body: Callable[[], Awaitable[bytes]]
    at: float
