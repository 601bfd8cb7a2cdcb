"""The record of one request, which lets an operator see later what happened to it.

A record is plain data, because it goes to the store and may wait in a journal. It has figures, names of the
configuration, and who asked; never content, keys or secrets. So it has the message of an error only if the gateway
wrote all of it: messages about a request's body or an upstream's answer quote them.
"""

from __future__ import annotations

import msgspec

from gateway.core.limits import Limit
from gateway.core.pricing import PriceLine
from gateway.core.usage import Usage

ALIKE_MAX = 4
"""Records of one team under one request id, which clients may choose: the newest."""


class RecordedLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A limit at the decision, in its own unit (micro-dollars for money). `used` and `held` count the request in where
    it passed. `needed` is what the request was to be charged; None where that is not known of this limit."""

    limit: Limit
    used: int
    held: int
    left: int
    resets_ms: int = 0
    needed: int | None = None
    refused: bool = False
    would_refuse: bool = False
    """A limit in shadow mode that would have refused."""


class RecordedAttempt(msgspec.Struct, frozen=True):
    """One try: `outcome` is a status or the reason of a failure."""

    upstream: str
    outcome: str


class RecordedError(msgspec.Struct, frozen=True, omit_defaults=True):
    """`code` is that of docs/errors.md, or `passed_on` or `error_event` for what the upstream itself answered."""

    code: str
    blame: str
    message: str = ""
    param: str = ""
    retry_after_ms: int = 0
    refused_key: str = ""
    """The id that the key or token has, or would have if it existed."""
    refused_because: str = ""
    """What the code of a refused key or model leaves open, in a word of docs/metrics.md."""


class RequestRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request that has ended. `id` is of the gateway's own making, `request_id` what the client was given or chose.
    Times are milliseconds since 1970 and seconds. `cost` is in micro-dollars. What the request never came to have is
    empty."""

    id: str
    request_id: str
    at_ms: int
    status: int
    duration_s: float
    upstream_s: float = 0.0
    """Of the duration, what was spent waiting for upstreams."""
    first_byte_s: float | None = None
    method: str = ""
    path: str = ""
    """As it was sent, without the query, where the endpoint is not known."""
    endpoint: str = ""
    team: str = ""
    key: str = ""
    key_name: str = ""
    user: str = ""
    client_ip: str = ""
    user_agent: str = ""
    model: str = ""
    stream: bool = False
    whole: bool = False
    """Whether the client was given the answer to its end."""
    estimated_input: int = 0
    granted: int | None = None
    """Output that the request was granted, in tokens over all choices; None before admission."""
    output_cap: int | None = None
    """The cap of one choice, where a quota granted less than was asked for."""
    upstream: str = ""
    upstream_request_id: str = ""
    error: RecordedError | None = None
    limits: tuple[RecordedLimit, ...] = ()
    attempts: tuple[RecordedAttempt, ...] = ()
    usage: Usage | None = None
    cost: int = 0
    prices: tuple[PriceLine, ...] = ()
    config: str = ""
    """The hash of the configuration that was in force when it began."""
    version: str = ""
    process: str = ""
    """Where it was served: host name and process id."""


class KeptRecord(msgspec.Struct, frozen=True):
    """A record on its way to the store: how long it is kept, and how many of its team are, the newest."""

    record: RequestRecord
    keep_ms: int
    most: int
