"""How many file descriptors a process may have, and so how many connections of clients."""

from __future__ import annotations

import resource

_OWN = 96
"""For the store, files, the log, health checks, and listeners, which have eight for each address."""

_PER_CLIENT = 2
"""A request has a connection of the client and one to an upstream, of which no more are open."""


def allow_many_connections() -> None:
    """The usual soft limit of 1,024 would end at 500 streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def max_connections_of_clients() -> int:
    """How many can be served at once: more would take the descriptors that operators and upstreams need."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (soft - _OWN) // _PER_CLIENT)
