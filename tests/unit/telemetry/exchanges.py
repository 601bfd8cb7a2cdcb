"""Finished requests for the tests of log and metrics, built as the pipeline builds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.endpoints import CHAT
from gateway.core.exchange import Exchange
from gateway.core.head_outline import outline_of_head
from gateway.core.input_size import InputSize
from gateway.core.json_spans import read_json_spans
from gateway.core.limit_status import refusal_error
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.refusals import Fault
from gateway.core.request import IncomingRequest, ParsedRequest
from gateway.core.reservation import Holds, LimitStatus, Refusal, RefusalReason, Reservation
from gateway.core.snapshot import Caller, Model, Target, Upstream, bind
from gateway.core.usage import Usage
from tests.unit.fakes import GivenBody, headers_of, limit_statuses_of

NOW_MS = 1_800_000_000_000
TARGET = Target(Upstream("inducta", "http://upstream.test/v1", (("authorization", "Bearer upstream-secret"),)), "m")
MODEL = Model("openai/gpt-oss-120b", (TARGET,))
CALLER = Caller("0123456789ab", "search-prod", "search")
MONTHLY = Limit("month", Scope.TEAM, "search", Meter.TOKENS, Per.MONTH, 1_000, 1_000, "search")


class StoppedClock:
    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return 0.0


@dataclass
class SeenTally:
    """A tally as it stands at a stream's end."""

    fault: Fault | None = None
    usage: Usage | None = None
    object_id: str = ""
    ended: bool = False
    delivered_since: int = 0
    counted: Usage = field(default_factory=Usage)
    transcribed_ms: int = 0
    is_empty: bool = False
    delivered: int = 3

    def is_final(self) -> bool:
        return True

    def tells_input(self) -> bool:
        return True

    def feed(self, data: bytes) -> None:
        """Nothing more comes."""

    @property
    def failed(self) -> bool:
        return self.fault is not None


def refuse(x: Exchange, limit: Limit, used: int) -> None:
    """Let the limit refuse the request, as the admit stage does."""
    status = limit_status(limit, used)
    x.reservation, x.usage, x.status = None, None, 429
    x.refusal = Refusal(status, 10, RefusalReason.SPENT, 5_000, NOW_MS, limit_statuses_of([status]))
    x.error = refusal_error(x.refusal)


def limit_status(limit: Limit, used: int, resets_ms: int = NOW_MS + 60_000) -> LimitStatus:
    return LimitStatus(limit, used, 0, limit.amount - used, resets_ms)


def unheard(request_id: str = "req-1", **headers: str) -> Exchange:
    """A request that was refused at once: no caller, no model, nothing spent."""
    body = GivenBody(b"a prompt")
    sent = headers_of({"authorization": "Bearer gw_client-secret", **headers})
    request = IncomingRequest(request_id, CHAT, sent, outline_of_head(sent), body, 100.0)
    return Exchange("exchange-1", request, status=401, ended=100.001)


def answered(*, stream: bool = True, user: str = "ann", model: Model = MODEL, asked: str = "gpt-oss") -> Exchange:
    """A request that went well: 0.5 s to the first byte, 2 s in all, 2 ms of them the gateway's."""
    members = read_json_spans(b'{"model":"m","messages":[{"role":"user","content":"a prompt"}]}')
    x = unheard()
    x.caller = CALLER
    size = InputSize(40)
    x.parsed = ParsedRequest(CHAT, bind(CALLER, model), asked, stream, False, None, 1, user, members, size)
    x.reservation = Reservation("id", NOW_MS, 100, False, Holds(), limit_statuses_of([limit_status(MONTHLY, 250)]))
    x.target = TARGET
    x.status = 200
    x.usage = Usage(input=120, output=300, cached_input=20, reasoning=7)
    x.cost = 1_234_567
    x.first_byte_at = 100.5
    x.ended = 102.0
    x.upstream_seconds = 1.998
    x.attempts = (("inducta", "ok"),)
    return x
