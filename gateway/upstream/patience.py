"""How long one exchange waits for its upstream, and for what: a pure machine over the caller's clock.

It is told what happens and asked for the next deadline. Nothing is armed or cancelled for a chunk:
`since` moves, and whoever holds a timer asks again when it rings.
"""

from __future__ import annotations

import math

from gateway.core.snapshot import Timeouts
from gateway.upstream.complaint import Complaint

_SENDING = Complaint("send_timeout", "took no byte of the request")
_AWAITING = Complaint("first_byte_timeout", "sent no byte of an answer")
_FLOWING = Complaint("idle_timeout", "sent nothing more")


class Patience:
    """Times are monotonic seconds. An exchange sends, awaits the first byte, then flows; it rests
    while the reader wants nothing, and then only `total` binds."""

    __slots__ = ("_allowance", "_missing", "_timeouts", "_total_at", "since")

    def __init__(self, timeouts: Timeouts, began: float) -> None:
        self._timeouts = timeouts
        self._total_at = began + timeouts.total
        self.since = began
        self.sending(began)

    def sending(self, now: float) -> None:
        """The request is on its way; to be repeated whenever the upstream takes some of it."""
        self._wait(now, self._timeouts.idle, _SENDING)

    def awaiting(self, now: float) -> None:
        self._wait(now, self._timeouts.first_byte, _AWAITING)

    def flowing(self, now: float) -> None:
        """The answer has begun, or is wanted again. Set `since` for each piece from here on."""
        self._wait(now, self._timeouts.idle, _FLOWING)

    def resting(self) -> None:
        self._allowance = math.inf

    @property
    def deadline(self) -> float:
        return min(self.since + self._allowance, self._total_at)

    def complaint(self, now: float) -> Complaint:
        if now >= self._total_at:
            return Complaint("total_timeout", f"did not end its answer within {self._timeouts.total:g} s in all")
        outcome, text = self._missing
        return Complaint(outcome, f"{text} for {self._allowance:g} s")

    def _wait(self, now: float, allowance: float, missing: Complaint) -> None:
        self.since = now
        self._allowance = allowance
        self._missing = missing
