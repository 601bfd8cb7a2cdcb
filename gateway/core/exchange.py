"""One request and its answer, as far as they have come: what settle charges and record reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.core.errors import Blame, GatewayError
from gateway.core.health import Attempt
from gateway.core.limit_status import limit_headers
from gateway.core.request import IncomingRequest, ParsedRequest
from gateway.core.reservation import Reservation
from gateway.core.response import Headers, UpstreamResponse
from gateway.core.snapshot import Caller, Target
from gateway.core.usage import Usage


class AnswerTally(Protocol):
    """What watched while the answer was relayed."""

    failed: bool
    """Whether it reports a failure, or is none of the API's answers."""
    ended: bool
    """Whether the client was given the last event of a stream."""

    def feed(self, data: bytes) -> object: ...

    @property
    def usage(self) -> Usage | None:
        """What the upstream reported last, None if nothing."""
        ...

    @property
    def is_final(self) -> bool:
        """Whether the reported usage has the output."""
        ...

    @property
    def counted(self) -> Usage:
        """Units that were counted in an answer without reported usage, such as images."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether nothing of an answer has come."""
        ...

    @property
    def delivered(self) -> int:
        """An estimate of the tokens in the text that was delivered."""
        ...


class Failure(NamedTuple):
    """Who is responsible, and for what: the code of an error of the gateway's, or what the upstream itself sent:
    `passed_on` for its answer, `error_event` for an event inside its stream."""

    blame: Blame
    code: str


@dataclass(slots=True)
class Exchange:
    """Filled in stage by stage; None means that the request did not come so far. `id` is of the gateway's
    own making, since settlement is idempotent by it and clients choose their request ids.

    Times are monotonic seconds. `upstream_seconds` is time spent waiting for the upstream, so that
    `ended - request.at - upstream_seconds` is the gateway's own.
    """

    id: str
    request: IncomingRequest
    caller: Caller | None = None
    parsed: ParsedRequest | None = None
    estimated_input: int = 0
    """Tokens, as estimated at admission."""
    reservation: Reservation | None = None
    target: Target | None = None
    attempt: Attempt | None = None
    """The last try: what becomes of its answer shows how healthy its upstream is."""
    response: UpstreamResponse | None = None
    tally: AnswerTally | None = None
    status: int = 0
    error: GatewayError | None = None
    usage: Usage | None = None
    cost: int = 0
    whole: bool = False
    """Whether the client was given the answer to its end."""
    first_byte_at: float | None = None
    ended: float = 0.0
    upstream_seconds: float = 0.0
    attempts: list[tuple[str, str]] = field(default_factory=list)
    """(upstream's name, outcome) of each try, in order."""
    _limit_headers: Headers | None = None

    def limit_headers(self) -> Headers:
        """The headers that report the caller's limits, made once; none before admission."""
        if self._limit_headers is None and self.reservation is not None and self.parsed is not None:
            headers, reservation = self.parsed.binding.headers, self.reservation
            self._limit_headers = limit_headers(headers, reservation.limit_statuses, reservation.at_ms)
        return self._limit_headers or ()

    @property
    def failure(self) -> Failure | None:
        """None where the client was given what it asked for."""
        if self.error is not None:
            return Failure(self.error.blame, self.error.code)
        if self.status >= 400:
            return Failure(_blame_of(self.status), "passed_on")
        if self.tally is not None and self.tally.failed:
            return Failure(Blame.UPSTREAM, "error_event")
        return None


def _blame_of(status: int) -> Blame:
    """Who is responsible for an upstream's own error: the caller for a request that cannot be read."""
    return Blame.CALLER if status < 500 and status not in {408, 429} else Blame.UPSTREAM
