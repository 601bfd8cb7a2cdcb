"""Fakes with behaviour for the stages and the pipeline: a clock that stands, a writer that remembers, an upstream that
plays a script, counters that keep what they admit. And requests, as the stages pass them on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from multidict import CIMultiDict

from gateway.core.endpoints import CHAT, Endpoint
from gateway.core.errors import GatewayError, UpstreamBroke
from gateway.core.estimate import Estimator
from gateway.core.exchange import Exchange
from gateway.core.grants import Grant
from gateway.core.head_outline import outline_of_head
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.pricing import Price
from gateway.core.request import IncomingRequest, ParsedRequest, RequestHeaders
from gateway.core.request_record import KeptRecord
from gateway.core.reservation import (
    AdmissionRequest,
    Charge,
    Hold,
    Holds,
    LimitStatus,
    LimitStatuses,
    Refusal,
    Reservation,
    Settlement,
)
from gateway.core.response import AnswerSource, Headers
from gateway.core.routing import RoutingState
from gateway.core.snapshot import Caller, ConfigSnapshot, Model, Target, Upstream
from gateway.core.stored_objects import ObjectName, StoredObject
from gateway.stages.forward import UpstreamServices
from gateway.stages.parse_request import parse_request
from gateway.store.contract import Admission, SettlementEnd, UsageQuery, UsageRow
from gateway.upstream.contract import UpstreamRequest

NOW_MS = 1_793_880_000_000
KEY = "gw_a-key-that-works"


class StandingClock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


class StoredCallers:
    """A directory that knows these callers, and asks nobody; or of which the store is out."""

    def __init__(self, callers: Mapping[str, Caller] | None = None, outage: GatewayError | None = None) -> None:
        self.callers: dict[str, Caller] = {}
        self.used: set[str] = set()
        self.asked: list[str] = []
        self._stored = dict(callers or {})
        self._outage = outage

    def is_unknown(self, digest: str) -> bool:
        return digest in self.asked and digest not in self._stored

    async def find(self, digest: str) -> Caller | None:
        self.asked.append(digest)
        if self._outage is not None:
            raise self._outage
        return self._stored.get(digest)

    async def counted_as(self, key_id: str) -> list[Caller]:
        return [caller for caller in self._stored.values() if caller.key_id == key_id]

    async def with_stored_keys(self, team: str) -> ConfigSnapshot:
        return snapshot_with()


def headers_in(lines: str) -> dict[str, str]:
    """Of headers as lines, each with a line break in front of it."""
    _, *each = lines.split("\r\n")
    return dict([line.split(": ") for line in each])


class Client:
    """A response writer: what a client gets. It can leave, or read slowly, after so many bytes."""

    def __init__(self, *, slow_after: int = 10**9) -> None:
        self.started = self.gone = self.ended = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.pieces: list[bytes] = []
        self.error: GatewayError | None = None
        self.keeps_alive_with: Callable[[], str] | None = None
        self._slow_after = slow_after
        self._read = 0
        self.source: AnswerSource | None = None

    @property
    def congested(self) -> bool:
        return len(self.body) - self._read >= self._slow_after

    def control_source(self, source: AnswerSource) -> None:
        self.source = source

    def keep_alive(self, every_s: float, limit_lines: Callable[[], str]) -> None:
        self.keeps_alive_with = limit_lines

    def send(self, status: int, headers: Headers, body: bytes, limit_lines: str = "") -> None:
        assert not self.started, "an answer begins once"
        self._begin(status, headers, limit_lines)
        self.body, self.ended = body, True

    def start(self, status: int, headers: Headers, limit_lines: str = "") -> None:
        if not self.started:
            self._begin(status, headers, limit_lines)

    def write(self, data: bytes) -> None:
        assert self.started, "the head comes first"
        assert not self.ended, "nothing follows the end"
        if data and not self.gone:
            self.body += data
            self.pieces.append(data)
            if self.congested and self.source is not None:
                self.source.pause()

    def flush(self) -> None:
        """All of it is sent already."""

    def finish(self) -> None:
        self.ended = True

    def fail(self, error: GatewayError) -> None:
        assert self.error is None, "one request has one error"
        self.error = error
        if not self.started:
            self._begin(error.status, error.headers, error.limit_lines)

    def read(self) -> None:
        """Read all that was sent."""
        self._read = len(self.body)
        if self.source is not None:
            self.source.resume()

    def _begin(self, status: int, headers: Headers, limit_lines: str) -> None:
        self.started = True
        self.status, self.headers = status, dict(headers) | headers_in(limit_lines)


class ScriptedAnswer:
    """An upstream's answer, of pieces; it ends well, breaks with `failure`, or, with `hangs`, says no more."""

    def __init__(
        self,
        *pieces: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        failure: GatewayError | None = None,
        hangs: bool = False,
    ) -> None:
        self.status = status
        self.headers = {"content-type": "application/json"} if headers is None else headers
        self.sent_at, self.first_byte_at = 10.0, 10.5
        self.abandoned = self.paused = False
        self._waiting = list(pieces)
        self._failure = failure
        self._hangs = hangs
        self._into: Callable[[bytes], None] | None = None
        self._over = asyncio.Event()
        self._woken: asyncio.Future[None] | None = None

    def available(self) -> None:
        """Its pieces come one by one."""

    def deliver_to(self, into: Callable[[bytes], None]) -> None:
        self._into = into
        self._flow()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    async def finished(self) -> None:
        await self._over.wait()
        self.end()

    def end(self) -> None:
        if self._failure is not None:
            raise self._failure

    def woken(self) -> Awaitable[None]:
        self._woken = asyncio.get_running_loop().create_future()
        return self._woken

    def wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._flow()

    def abandon(self) -> None:
        if not self._over.is_set():
            self.abandoned = True
            self._failure = UpstreamBroke("It was abandoned.")
            self._end()

    def say(self, *pieces: bytes) -> None:
        """More comes from the upstream, which then ends."""
        self._waiting += pieces
        self._hangs = False
        self._flow()

    def bring(self, *pieces: bytes) -> None:
        """More comes, and this is not the end."""
        self._waiting += pieces
        self._flow()

    def _flow(self) -> None:
        while self._into is not None and self._waiting and not self.paused and not self._over.is_set():
            self._into(self._waiting.pop(0))
        if not self._waiting and not self._hangs:
            self._end()

    def _end(self) -> None:
        self._over.set()
        self.wake()


def stream(*pieces: bytes, **how: object) -> ScriptedAnswer:
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    return ScriptedAnswer(*pieces, headers=headers, **how)  # type: ignore[arg-type]  # the fake's own arguments


class ScriptedClient:
    """Gives one answer or error after another, and remembers what was asked of whom."""

    def __init__(self, *script: ScriptedAnswer | Exception) -> None:
        self.sent: list[tuple[str, UpstreamRequest]] = []
        self._script = list(script)

    async def send(self, upstream: Upstream, outgoing: UpstreamRequest) -> ScriptedAnswer:
        self.sent.append((upstream.name, outgoing))
        await asyncio.sleep(0)
        come = self._script.pop(0)
        if isinstance(come, Exception):
            raise come
        return come

    async def close(self) -> None:
        """Nothing is open."""


class Unrecorded:
    """A recorder that keeps nothing, and remembers what had no settlement."""

    def __init__(self) -> None:
        self.unsettled: list[Exchange] = []

    def of(self, _x: Exchange) -> KeptRecord | None:
        return None

    def keep_unsettled(self, x: Exchange) -> None:
        self.unsettled.append(x)


class Ledgers:
    """A store that admits everything (or answers with `verdict`) and keeps every settlement."""

    def __init__(self, verdict: Refusal | Exception | None = None, outage: Exception | None = None) -> None:
        self.asked: list[AdmissionRequest] = []
        self.repeated: Refusal | None = None
        """What is refused without asking."""
        self.settled: list[Settlement] = []
        self.outage = outage
        self.settling = asyncio.Event()
        self.may_settle = asyncio.Event()
        self.may_settle.set()
        self._verdict = verdict

    def repeated_refusal(self, _ask: AdmissionRequest) -> Refusal | None:
        return self.repeated

    def admit(self, ask: AdmissionRequest) -> Admission:
        self.asked.append(ask)
        return self._admit(ask)

    async def _admit(self, ask: AdmissionRequest) -> Reservation | Refusal:
        await asyncio.sleep(0)
        if isinstance(self._verdict, Exception):
            raise self._verdict
        return self._verdict or reserved(ask)

    async def settle(self, settlement: Settlement) -> None:
        self.settling.set()
        await self.may_settle.wait()
        if self.outage is not None:
            raise self.outage
        self.settled.append(settlement)

    def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
        self.settling.set()
        if self.may_settle.is_set() and self.outage is None:
            self.settled.append(settlement)
            then(None)
        else:
            then(self.settle(settlement))

    async def stored_object(self, name: ObjectName) -> StoredObject | None:
        await asyncio.sleep(0)
        if self.outage is not None:
            raise self.outage
        made = [settled.created for settled in self.settled]
        return next((each for each in made if each is not None and each.name == name), None)

    @property
    def open_ids(self) -> list[str]:
        settled = {each.id for each in self.settled}
        return [asked.id for asked in self.asked if asked.id not in settled]

    async def renew(self, ids: Sequence[str]) -> None:
        """Nothing runs out."""

    async def grant(self, limit: Limit, grant: Grant) -> None:
        """It admits everything anyway."""

    async def withdraw(self, limit: Limit, grant: Grant) -> None:
        """The same."""

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        return [LimitStatus(limit, 0, 0, limit.amount, NOW_MS) for limit in limits]

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        return []

    async def ping(self) -> None:
        """It is there."""

    async def close(self) -> None:
        """Nothing is open."""


def limit_statuses_of(rows: Sequence[LimitStatus]) -> LimitStatuses:
    """The same column by column, as stores give them."""
    return LimitStatuses(
        [row.limit for row in rows],
        [row.used for row in rows],
        [row.held for row in rows],
        [row.resets_ms for row in rows],
        any(row.limit.granted for row in rows),
    )


def amount_of(charge: Charge, output: int) -> int:
    """The whole charge for so many tokens of output, rounded up."""
    return charge.fixed - (-output * charge.per_output // 1_000_000)


def reserved(ask: AdmissionRequest) -> Reservation:
    """The reservation that a store without any use gives."""
    amounts = [(charge.limit, amount_of(charge, ask.most)) for charge in ask.charges]
    limit_statuses = limit_statuses_of(
        [LimitStatus(limit, 0, held, limit.amount - held, NOW_MS) for limit, held in amounts]
    )
    holds = Holds.of([Hold(limit, held) for limit, held in amounts])
    return Reservation(ask.id, NOW_MS, ask.most, False, holds, limit_statuses)


def limit(meter: Meter = Meter.REQUESTS, per: Per | None = Per.MINUTE, amount: int = 1_000_000) -> Limit:
    return Limit(f"{meter}-{per}", Scope.TEAM, "search", meter, per, amount, amount, team="search")


def target(
    name: str = "up",
    *,
    model: str = "m",
    weight: int = 1,
    priority: int = 1,
    price: Price | None = None,
    **more: object,
) -> Target:
    upstream = Upstream(name, f"http://{name}.test/v1", **more)  # type: ignore[arg-type]  # the struct's own fields
    return Target(upstream, model, weight, priority, price)


PRICE = Price(input=150_000, output=600_000, cached_input=70_000)
MODEL = Model("m", (target(price=PRICE),), aliases=("alias",))
LIMITS = (limit(), limit(Meter.TOKENS), limit(Meter.USD, Per.DAY))
CALLER = Caller("0123456789ab", "search-prod", "search", limits=LIMITS)


def snapshot_with(*models: Model, caller: Caller = CALLER) -> ConfigSnapshot:
    named = {name: model for model in models for name in (model.name, *model.aliases)}
    return ConfigSnapshot({sha256(KEY.encode()).hexdigest(): caller}, named)


def body_of(**members: object) -> bytes:
    usual = {"model": "m", "messages": [{"role": "user", "content": "Say it."}]}
    return msgspec.json.encode(usual | members)


class GivenBody:
    """A request's body that came in these pieces; or breaks with an error, after them."""

    def __init__(self, *pieces: bytes, failure: Exception | None = None) -> None:
        self.taken = self.size = 0
        self.team = ""
        self.released = False
        self.spools: list[MemorySpool] = []
        self._pieces = list(pieces)
        self._failure = failure

    def available(self) -> bytes | None:
        """Its pieces come one by one."""
        return None

    async def whole(self) -> bytes:
        return await self.beginning(10**9)

    async def beginning(self, size: int) -> bytes:
        begun = b""
        while len(begun) < size and (piece := await self.piece()):
            begun += piece
        if len(begun) > size:
            self._pieces.insert(0, begun[size:])
        return begun[:size]

    async def piece(self) -> bytes:
        await asyncio.sleep(0)
        if self._pieces:
            self.taken += 1
            return self._pieces.pop(0)
        if self._failure is not None:
            raise self._failure
        return b""

    async def spool(self) -> MemorySpool:
        self.spools.append(MemorySpool())
        return self.spools[-1]

    def release(self) -> None:
        self.released = True


class MemorySpool:
    """A spool, and the tail of what was written into it."""

    def __init__(self) -> None:
        self.taken = False
        self.has_come = True
        self.length: int | None = 0
        self.written = b""

    async def write(self, data: bytes) -> None:
        self.written += data
        self.length = len(self.written)

    def tail(self) -> MemorySpool:
        return self

    async def piece(self) -> bytes:
        self.taken = True
        piece, self.written = self.written[:50_000], self.written[50_000:]
        return piece


def incoming_of(body: bytes | Exception | GivenBody, *, endpoint: Endpoint = CHAT, **headers: str) -> IncomingRequest:
    if not isinstance(body, GivenBody):
        body = GivenBody(body) if isinstance(body, bytes) else GivenBody(failure=body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = headers_of({"authorization": f"Bearer {KEY}"} | named)
    return IncomingRequest("req-1", endpoint, sent, outline_of_head(sent), body, NOW_MS / 1000)


def with_headers(request: IncomingRequest, lines: Mapping[str, str]) -> IncomingRequest:
    """The same request with other headers."""
    headers = headers_of(lines)
    return msgspec.structs.replace(request, headers=headers, head=outline_of_head(headers))


def headers_of(lines: Mapping[str, str]) -> RequestHeaders:
    """A request's headers as a listener gives them."""
    return CIMultiDict(lines)  # type: ignore[return-value]  # They have what is asked of them.


def exchange_of(
    body: bytes | None = None, *, model: Model = MODEL, caller: Caller = CALLER, endpoint: Endpoint = CHAT
) -> tuple[Exchange, ParsedRequest]:
    """A request that has been read and admitted."""
    body = body_of() if body is None else body
    exchange = Exchange("exchange-1", incoming_of(body, endpoint=endpoint), caller=caller)
    parsed = parse_request(body, endpoint, caller, snapshot_with(model, caller=caller))
    exchange.parsed = parsed
    exchange.reservation = reserved(AdmissionRequest.of(exchange.id, (), 10, 10))
    exchange.estimator, exchange.estimated_input = Estimator(), 7
    exchange.target = model.targets[0] if model.targets else None
    return exchange, parsed


def upstream_services(client: Any) -> UpstreamServices:
    """A way to upstreams of which nothing is known yet."""
    return UpstreamServices(client, RoutingState(lambda _change: None), StandingClock())
