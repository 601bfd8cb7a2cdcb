"""One request and its answer, filled in stage by stage; settle charges and record reports what is in it."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from gateway.core.errors import Blame, Failure, GatewayError
from gateway.core.estimate import Estimator
from gateway.core.health import Attempt
from gateway.core.limit_status import LimitHeaders
from gateway.core.refusals import Fault
from gateway.core.request import IncomingRequest, ParsedRequest
from gateway.core.reservation import AdmissionRequest, Refusal, Reservation
from gateway.core.response import UpstreamResponse
from gateway.core.snapshot import Caller, Target
from gateway.core.stored_objects import ObjectName, StoredObject
from gateway.core.traces import RequestTrace
from gateway.core.usage import Usage


class AnswerTally(Protocol):
    """What watched while the answer was relayed."""

    fault: Fault | None
    """Whose fault the failure is that the upstream reported; None where it reported none."""
    ended: bool
    """Whether the client was given the last event of a stream."""

    @property
    def failed(self) -> bool: ...

    def feed(self, data: bytes) -> object: ...

    @property
    def usage(self) -> Usage | None:
        """What the upstream reported last, None if nothing."""
        ...

    @property
    def object_id(self) -> str:
        """Under which the upstream keeps the answer, empty where it has not said so."""
        ...

    def is_final(self) -> bool:
        """Whether the reported usage has the output."""
        ...

    def tells_input(self) -> bool:
        """Whether the reported usage has the input."""
        ...

    @property
    def delivered_since(self) -> int:
        """An estimate of the tokens in the text that was delivered after usage was reported last."""
        ...

    @property
    def counted(self) -> Usage:
        """Units that were counted in an answer without reported usage, such as images."""
        ...

    @property
    def transcribed_ms(self) -> int:
        """How long the sound was by what the answer shows of it, where it transcribes one: an estimate, in
        milliseconds. 0 where it shows nothing."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether nothing of an answer has come."""
        ...

    @property
    def delivered(self) -> int:
        """An estimate of the tokens in the text that was delivered."""
        ...


@dataclass(slots=True, eq=False)  # A struct takes several times as long to set one of its attributes.
class Exchange:
    """Filled in stage by stage; None means that the request did not come so far. `id` is of the gateway's
    own making, since settlement is idempotent by it and clients choose their request ids.

    Times are monotonic seconds. `upstream_seconds` is time spent waiting for the upstream, so that
    `ended - request.at - upstream_seconds` is the gateway's own.
    """

    id: str
    request: IncomingRequest
    caller: Caller | None = None
    refused_key: str = ""
    """Of a key or token that was refused, the beginning of its SHA-256: the id, where it is a key."""
    token_user: str = ""
    """The end user that the caller's token proves."""
    parsed: ParsedRequest | None = None
    estimator: Estimator | None = None
    """What estimates its tokens and learns from its answer, from admission on."""
    estimated_input: int = 0
    """Tokens, as estimated at admission."""
    asked: AdmissionRequest | None = None
    """What it asks of its limits."""
    asked_at: float = 0.0
    """When the store was asked."""
    admission: Awaitable[Reservation | Refusal] | None = None
    """Its verdict, while that is to come."""
    reservation: Reservation | None = None
    held_by: str = ""
    """The upstream that alone can answer, since it keeps what the request is about; empty: any."""
    refusal: Refusal | None = None
    """Why no limit let it pass, in the place of a reservation."""
    target: Target | None = None
    attempt: Attempt | None = None
    """The last attempt: the outcome of its answer shows how healthy its upstream is."""
    response: UpstreamResponse | None = None
    tally: AnswerTally | None = None
    status: int = 0
    error: GatewayError | None = None
    usage: Usage | None = None
    cost: int = 0
    whole: bool = False
    """Whether the client was given the answer to its end."""
    redacted: int = 0
    """How often the answer had the upstream's credential in it, which the client did not get."""
    first_byte_at: float | None = None
    ended: float = 0.0
    upstream_seconds: float = 0.0
    store_seconds: float | None = None
    """How long the store's verdict took; 0 where it repeated a refusal without a call."""
    attempts: tuple[tuple[str, str], ...] = ()
    """(upstream's name, outcome) of each try, in order."""
    trace: RequestTrace | None = None
    """None where its spans are not kept."""

    def note_attempt(self, upstream: str, outcome: str) -> None:
        self.attempts += ((upstream, outcome),)

    @property
    def created(self) -> StoredObject | None:
        """What the upstream keeps of it, once its answer has said so."""
        parsed, tally, target = self.parsed, self.tally, self.target
        if parsed is None or parsed.creates is None or tally is None or target is None or self.status >= 400:
            return None
        if not tally.object_id:
            return None
        team, name = parsed.binding.caller.team, ObjectName(parsed.creates, tally.object_id)
        return StoredObject(name, team, target.upstream.name, parsed.model.name)

    def quota_output_cap(self) -> int | None:
        """Tokens that one choice may have, where a quota grants less than the request may produce."""
        if self.reservation is None or self.parsed is None or not self.reservation.capped:
            return None
        return self.reservation.granted // self.parsed.choices

    def limit_lines(self) -> str:
        """The headers that report the caller's limits, as they were at admission, as lines, each with a line break in
        front of it; empty before that. They are not kept: most answers need them once, and a stream would hold them to
        its end."""
        reservation = self.reservation
        if reservation is None or self.parsed is None:
            return ""
        statuses = reservation.limit_statuses
        names = LimitHeaders(statuses.limits) if statuses.are_raised else self.parsed.binding.headers
        lines = names.lines(statuses, reservation.at_ms)
        return f"{lines}\r\nx-quota-output-cap: {self.quota_output_cap()}" if reservation.capped else lines

    def failure(self) -> Failure | None:
        """None where the client was given what it asked for."""
        if self.error is not None:
            return self.error.failure
        fault = self.tally.fault if self.tally is not None else None
        if fault is None and self.status < 400:
            return None
        blame = Blame.CALLER if fault is Fault.CALLER else Blame.UPSTREAM
        return Failure(blame, "passed_on" if self.status >= 400 else "error_event")
