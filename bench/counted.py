"""Runs the command line of the gateway where what it executes is counted: `python -m bench.counted serve -c FILE`.

Each request takes up to fifty times as long there. So that a flood of refusals is one there, too, a refusal is repeated
for longer, and of refusals no record is sampled: in use it is one of some hundred.
"""

from __future__ import annotations

from gateway.__main__ import main
from gateway.store.in_redis import remembered_refusals
from gateway.telemetry import request_records

REPEATED_MS = 600_000
"""Longer than any count takes."""


def as_in_a_flood() -> None:
    """To be called before the gateway starts."""
    remembered_refusals.REPEATED_MS = REPEATED_MS
    request_records.SAMPLED_ALIKE = 0


if __name__ == "__main__":
    as_in_a_flood()
    main()
