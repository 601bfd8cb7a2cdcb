"""Where a request can go: upstreams, the models they serve, and the routes between."""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec

from gateway.core.limits import Limit
from gateway.core.pricing import Price


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds. `first_byte` runs from the request's last byte, `idle` between two pieces, `total` over all."""

    connect: float = 5.0
    first_byte: float = 60.0
    idle: float = 60.0
    total: float = 900.0


class Upstream(msgspec.Struct, frozen=True, cache_hash=True):
    """One model server. `headers` carry its credentials and what its operator adds to every request."""

    name: str
    base_url: str
    headers: tuple[tuple[str, str], ...] = ()
    timeouts: Timeouts = Timeouts()
    max_connections: int = 512
    stream_options: bool = True
    """Whether it understands `stream_options` (some servers refuse the field)."""
    output_cap: str = "max_tokens"
    """The member that caps a chat's output where the gateway must and the client did not."""
    check_path: str = ""
    """Where it is asked whether it is well, each `check_every_s` seconds; empty: it is not."""
    check_every_s: float = 0.0
    reads_on: bool = False
    """Whether a stream is read on after its client has left, to learn the true usage."""


class Target(msgspec.Struct, frozen=True, cache_hash=True):
    """One route of a model: the upstream and the name that the model has there."""

    upstream: Upstream
    model: str
    weight: int = 1
    priority: int = 1


class Model(msgspec.Struct, frozen=True):
    """A model as clients know it. Sizes are tokens; None where the operator does not say."""

    name: str
    targets: tuple[Target, ...]
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    affinity: str = "none"
    """Which requests go to the same target: none, those of one user, or those that begin alike (prefix)."""
    price: Price | None = None
    limits: tuple[Limit, ...] = ()
    created: int = 0
    """Seconds since 1970, for `GET /v1/models`: when the configuration that names it was loaded."""


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a model's name fits one of the globs (case counts; `*` crosses slashes)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
