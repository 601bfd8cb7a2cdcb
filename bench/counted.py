"""Runs the command line of the gateway where what it executes is counted: `python -m bench.counted serve -c FILE`.

Each request takes up to fifty times as long there. So that a flood of refusals is one there, too, a refusal is repeated
for longer, several come in what is a millisecond to the store, and of refusals no record is sampled: in use it is one
of some hundred.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.__main__ import main
from gateway.store.in_redis import remembered_refusals
from gateway.telemetry import request_records

REPEATED_MS = 600_000
"""Longer than any count takes."""

MILLISECOND_MS = 100
"""In a millisecond of a flood a process refuses about ten requests. Counted, it refuses as many in a hundred."""


def as_in_a_flood() -> None:
    """To be called before the gateway starts."""
    remembered_refusals.REPEATED_MS = REPEATED_MS
    request_records.SAMPLED_ALIKE = 0
    begin = remembered_refusals.RememberedRefusals.__init__

    def begin_slowly(self: remembered_refusals.RememberedRefusals, now_ms: Callable[[], int]) -> None:
        # Never earlier than it is: what Redis has just refused would not be repeated.
        begin(self, lambda: -(-now_ms() // MILLISECOND_MS) * MILLISECOND_MS)

    remembered_refusals.RememberedRefusals.__init__ = begin_slowly  # type: ignore[method-assign]  # That is its point.


if __name__ == "__main__":
    as_in_a_flood()
    main()
