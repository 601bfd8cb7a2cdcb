"""What the gateway reads of a request: little, and without touching the bytes."""

from __future__ import annotations

import msgspec

from gateway.core.arrival import Rest
from gateway.core.endpoints import Endpoint
from gateway.core.members import Members
from gateway.core.target import Model


class Envelope(msgspec.Struct, frozen=True):
    """`output_cap` is what one choice may produce (client's wish under the model's maximum), None if
    neither says. `input_bytes` are the bytes that the model reads, for the estimate."""

    endpoint: Endpoint
    model: Model
    asked_model: str
    stream: bool
    asks_usage: bool
    asked_cap: int | None
    output_cap: int | None
    choices: int
    user: str
    members: Members
    input_bytes: int
    rest: Rest | None = None
    """What follows the bytes of `members`, where the body is not held in memory."""
