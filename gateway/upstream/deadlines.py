"""Time limits of an exchange, and what it waits for.

Nothing is armed or cancelled for a chunk. A chunk moves `Deadlines.since`; the connection's timer, armed once for
the earliest deadline, asks again when it expires.
"""

from __future__ import annotations

import math

from gateway.core.errors import RequestMalformed, UpstreamTimedOut
from gateway.core.snapshot import Timeouts
from gateway.upstream.contract import FailureReason

CLIENT_GRACE_S = 10.0
CLIENT_BYTES_PER_S = 1024
"""How long an upstream's connection waits for a client that sends its body as it goes, in all: so long, and a second
more for each KiB that has come. A slower client would keep it from others for little; Apache's mod_reqtimeout has
such a least rate, too."""

_SENDING = FailureReason("send_timeout", "read no byte of the request")
_AWAITING = FailureReason("first_byte_timeout", "sent no byte of an answer")
_RECEIVING = FailureReason("idle_timeout", "sent nothing more")


class Deadlines:
    """How long an exchange waits for its upstream, and for what. Pure: times are monotonic seconds of
    the caller. An exchange sends (or waits for the client to send more), waits for the first byte, then
    receives; while its reader has paused it, only `total` binds."""

    __slots__ = ("_allowed_s", "_client_s", "_missing", "_timeouts", "_total_at", "since")

    _missing: FailureReason | None
    """What the upstream did not do; None while it is the client that is waited for."""

    def __init__(self, timeouts: Timeouts, began: float) -> None:
        self._timeouts = timeouts
        self.begin(began)
        self.sending(began)

    def begin(self, began: float) -> None:
        """Another exchange begins. To be followed by what it waits for; until then only `total` binds."""
        self.since = math.inf
        self._total_at = began + self._timeouts.total
        self._client_s = 0.0
        self._missing = _SENDING

    def sending(self, now: float) -> None:
        """The request is on its way; to be called again whenever the upstream takes some of it."""
        self._count_client(now)
        self.since, self._allowed_s, self._missing = now, self._timeouts.idle, _SENDING

    def waiting_for_client(self, now: float, sent_bytes: int) -> None:
        """The upstream has taken all that there is, and the client has not sent more. A client that is silent or
        slow must not keep a connection that others wait for."""
        self._count_client(now)
        left = CLIENT_GRACE_S + sent_bytes / CLIENT_BYTES_PER_S - self._client_s
        self.since, self._allowed_s, self._missing = now, min(self._timeouts.idle, left), None

    def awaiting_response(self, now: float) -> float:
        """All is sent: the client is not waited for any more. Returns what is `next` then."""
        self.since, self._missing = now, _AWAITING
        self._allowed_s = allowed_s = self._timeouts.first_byte
        next_at = now + allowed_s
        return next_at if next_at < self._total_at else self._total_at

    def receiving(self, now: float) -> None:
        """The response has begun, or is wanted again. Set `since` for each piece from here on."""
        self.since, self._allowed_s, self._missing = now, self._timeouts.idle, _RECEIVING

    def paused(self) -> None:
        self._allowed_s = math.inf

    @property
    def next(self) -> float:
        next_at = self.since + self._allowed_s
        return next_at if next_at < self._total_at else self._total_at

    def error(self, now: float, upstream_name: str) -> UpstreamTimedOut | RequestMalformed:
        """Which limit has passed, and who is responsible."""
        if now >= self._total_at:
            text = f"did not end its answer within {self._timeouts.total:g} s in all"
            return FailureReason("total_timeout", text).error(upstream_name, UpstreamTimedOut)
        if self._missing is None:
            return RequestMalformed(f"No more of the body arrived for {self._allowed_s:.3g} seconds. Send it faster.")
        outcome, text = self._missing
        return FailureReason(outcome, f"{text} for {self._allowed_s:g} s").error(upstream_name, UpstreamTimedOut)

    def _count_client(self, now: float) -> None:
        """The time until now, where it is the client that was waited for."""
        if self._missing is None:
            self._client_s += now - self.since
