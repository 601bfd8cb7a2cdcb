"""Read this first: the way of a request, one line for each stage.

authenticate → read_body → parse_request → (locate) → admit → route → forward → relay, then always, exactly once:
release_upstream → settle → record. The stages are in `stages/`, the values that they pass on are in `core/`;
docs/life-of-a-request.md has the details.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from typing import Any

from gateway.core.clock import Clock
from gateway.core.end_users import EndUserCounts, user_in_header
from gateway.core.errors import (
    ClientGone,
    GatewayError,
    InternalError,
    KeyExpired,
    KeyUnknown,
    LimitRefusal,
    RequestCancelled,
    ShuttingDown,
)
from gateway.core.estimate import Estimates
from gateway.core.exchange import Exchange
from gateway.core.form import Form
from gateway.core.key_ids import key_id_of
from gateway.core.query_rules import key_in_query
from gateway.core.refused_requests import RefusedRequests
from gateway.core.request import IncomingRequest, ParsedRequest
from gateway.core.reservation import AdmissionRequest
from gateway.core.response import ResponseWriter, Work
from gateway.core.snapshot import Caller, ConfigSnapshot
from gateway.core.tokens import TokenVerifier, is_token
from gateway.core.traces import RequestTrace
from gateway.identity.contract import CallerDirectory
from gateway.runtime.start_queue import LARGE_BYTES, StartQueue
from gateway.runtime.tasks import BackgroundTasks, LogError
from gateway.stages.admit import admitted, ask, refused_again, refused_at_once
from gateway.stages.authenticate import (
    authenticate,
    credentials_in,
    key_digest,
    known_caller,
    sent_key,
    stored_caller,
)
from gateway.stages.forward import UpstreamServices, forward
from gateway.stages.locate import ObjectDirectory, find_holder, find_subject
from gateway.stages.parse_request import parse_object_request, parse_request
from gateway.stages.read_body import available_body, read_body
from gateway.stages.record import Recorder, record
from gateway.stages.relay import relay, relay_if_whole
from gateway.stages.release_upstream import UpstreamReleaser
from gateway.stages.route import route
from gateway.stages.settle import SettlementRecorder, settle
from gateway.store.contract import SettlementRest, Store

CallerSearch = Callable[[], Coroutine[Any, Any, Caller]]
"""Asks the store or an issuer. Raises as `Pipeline.authenticate` says."""

Page = Callable[[Exchange, ResponseWriter], Awaitable[None]]
"""What a listener answers by itself. Raises a GatewayError for what it does not have."""


@dataclass(slots=True)
class Services:
    """What the pipeline works with. A reload swaps `snapshot`; a request keeps the one it began with."""

    snapshot: ConfigSnapshot
    directory: CallerDirectory
    store: Store
    upstream: UpstreamServices
    zone: tzinfo
    recorders: Sequence[Recorder]
    request_records: SettlementRecorder
    log_error: LogError
    clock: Clock
    new_id: Callable[[], str]
    new_boundary: Callable[[], str]
    """Makes an unguessable multipart boundary."""
    estimates: Estimates
    keepalive_s: float
    end_users: EndUserCounts
    tokens: TokenVerifier | None = None
    """None where no tokens are taken."""
    begin_trace: Callable[[IncomingRequest], RequestTrace | None] | None = None
    """None where no traces are exported."""


class Pipeline:
    """Answers requests, and owns what must still happen after an answer has ended."""

    def __init__(self, services: Services, tasks: BackgroundTasks) -> None:
        """`tasks` are the pipeline's own: `wait_settled` waits for what they do. Its requests run in the event
        loop in which it is made."""
        self._loop = asyncio.get_running_loop()
        self.services = services
        self._tasks = tasks
        self._running: dict[asyncio.Task[Any], Exchange] = {}
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._ending: dict[str, Exchange] = {}
        """What has ended and is not recorded yet, by its id."""
        self._all_recorded: asyncio.Future[None] | None = None
        """Done once none is left; None while nothing waits for that."""
        self._starts = StartQueue()
        self._refused = RefusedRequests(self._loop.call_later)
        self._releaser = UpstreamReleaser(services.clock)
        self._objects = ObjectDirectory(services.store)

    @property
    def in_flight(self) -> int:
        return len(self._running)

    @property
    def running(self) -> Iterable[Exchange]:
        """The requests in flight."""
        return self._running.values()

    def answer(self, request: IncomingRequest, writer: ResponseWriter) -> Work | None:
        """Give `writer` an answer, whatever happens: at once where the request is refused before anything has to be
        waited for, else by the work that is left. The body is released then. The work raises nothing but the
        cancellation by a client that left."""
        services = self.services
        exchange = Exchange(services.new_id(), request)
        if services.begin_trace is not None:
            exchange.trace = services.begin_trace(request)
        try:
            known = self.authenticate(exchange)
            refusal = self._ask_at_once(known, exchange) if isinstance(known, Caller) else None
            if refusal is None and (asked := exchange.asked) is not None and self._starts.try_begin():
                self._begin_admission(exchange, asked)
        except Exception as error:  # noqa: BLE001 # What is wrong with the request, or a defect of ours.
            self._fail(exchange, writer, error)
        else:
            if refusal is None:
                return partial(self._run, exchange, writer, partial(self._answer, known))
            self._refuse(exchange, writer, refusal)
        self._finish(exchange)
        return None

    def answer_here(self, request: IncomingRequest, writer: ResponseWriter, page: Page) -> Work:
        """Let the listener answer by itself, with the same errors, drain and record as a forwarded request."""
        exchange = Exchange(self.services.new_id(), request, status=200)
        if self.services.begin_trace is not None:
            exchange.trace = self.services.begin_trace(request)
        return partial(self._run, exchange, writer, page)

    async def _run(self, exchange: Exchange, writer: ResponseWriter, work: Page) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None, "a request runs in a task"
        self._running[task] = exchange
        try:
            await work(exchange, writer)
        except asyncio.CancelledError:
            why = self._why_ended(task)
            if writer.gone:
                if not exchange.whole:
                    self._refuse(exchange, writer, ClientGone("The client left."))
                raise
            # `abort` and `cancel` end the work alone: the listener must still be able to send the error.
            task.uncancel()
            self._refuse(exchange, writer, why)
        except Exception as error:  # noqa: BLE001 # As in `answer`.
            self._fail(exchange, writer, error)
        finally:
            del self._running[task]
            self._cancelled.discard(task)
            del task  # It keeps its cancellation, which has this frame: only a search for garbage would find them.
            self._finish(exchange)

    def authenticate(self, exchange: Exchange) -> Caller | CallerSearch:
        """The caller whose key or token the request carries, or how to find it where it is not known yet. Raises
        KeyMissing, KeyUnknown, KeyExpired; the search IssuerUnavailable, StoreUnavailable, too."""
        services, request = self.services, exchange.request
        try:
            query_key = key_in_query(request) if request.query else ""
            key = sent_key(request.headers, request.head.keys, query_key)
        except KeyUnknown:
            exchange.refused_key = key_id_of(key_digest(credentials_in(request.headers)))
            raise
        digest = key_digest(key)
        caller = services.snapshot.callers.get(digest) or known_caller(digest, services.directory)
        if caller is None:
            if services.tokens is not None and is_token(key):
                return partial(self._authenticate_token, exchange, services.tokens, key, digest)
            if not services.directory.is_unknown(digest):
                return partial(self.authenticate_digest, exchange, digest)
        return self._accept(exchange, digest, caller)

    async def authenticate_digest(self, exchange: Exchange, digest: str) -> Caller:
        """The caller whose key has this SHA-256. Raises KeyUnknown, KeyExpired, StoreUnavailable."""
        services = self.services
        known = services.snapshot.callers.get(digest) or await stored_caller(digest, services.directory)
        return self._accept(exchange, digest, known)

    async def _authenticate_token(self, exchange: Exchange, tokens: TokenVerifier, token: str, digest: str) -> Caller:
        try:
            verified = tokens.verified(digest) or await tokens.verify(token, digest)
        except (KeyUnknown, KeyExpired):
            exchange.refused_key = key_id_of(digest)
            raise
        exchange.token_user, exchange.caller = verified.user, verified.caller
        return verified.caller

    def _accept(self, exchange: Exchange, digest: str, known: Caller | None) -> Caller:
        """The caller of a key, where it may be used. Raises KeyUnknown, KeyExpired."""
        try:
            exchange.caller = caller = authenticate(exchange.request, known, self.services.clock)
        except (KeyUnknown, KeyExpired):
            exchange.refused_key = key_id_of(digest)
            raise
        return caller

    def _ask_at_once(self, caller: Caller, exchange: Exchange) -> LimitRefusal | None:
        """Read the request and work out what it asks of its limits, if nothing has to be waited for; `exchange` keeps
        both. Returns the refusal if a limit has just refused the same. Raises what reading raises."""
        request, services = exchange.request, self.services
        request.body.team = caller.team
        body = available_body(request) if request.endpoint.about is None else None
        if body is None:
            return None
        snapshot, refused = services.snapshot, self._refused
        user = exchange.token_user or user_in_header(caller.end_user, request.headers)
        before = refused.find(exchange, body, snapshot, user) if refused.has_any else None
        if before is not None:
            exchange.parsed = before.parsed
            refusal = refused_again(exchange, before, services.store)
            if refusal is None:
                refused.forget(body)
                self._ask(exchange, before.parsed)
            return refusal
        exchange.parsed = parsed = parse_request(
            body, request.endpoint, caller, snapshot, query=request.query, user=user
        )
        if parsed.continues:
            return None
        refusal = refused_at_once(exchange, parsed, self._ask(exchange, parsed), services.store)
        if refusal is not None:
            refused.keep(exchange, body, snapshot, user, refusal)
        return refusal

    async def _ask_in_turn(self, known: Caller | CallerSearch, exchange: Exchange) -> None:
        """The same, once the request's turn has come, whatever has to be waited for."""
        snapshot = self.services.snapshot
        caller = known if isinstance(known, Caller) else await known()
        if not self._starts.try_begin():
            await self._starts.wait(caller.team)
        if exchange.parsed is None:
            exchange.parsed = await self._read(exchange, caller, snapshot)
        if exchange.parsed.continues:
            exchange.held_by = await find_holder(exchange.parsed, self._objects)
        asked = self._ask(exchange, exchange.parsed)
        refusal = refused_at_once(exchange, exchange.parsed, asked, self.services.store)
        if refusal is not None:
            raise refusal
        self._begin_admission(exchange, asked)

    def _begin_admission(self, exchange: Exchange, asked: AdmissionRequest) -> None:
        exchange.asked_at = self.services.clock.monotonic()
        exchange.admission = self.services.store.admit(asked)

    async def _answer(self, known: Caller | CallerSearch, exchange: Exchange, writer: ResponseWriter) -> None:
        services, request = self.services, exchange.request
        if exchange.admission is None:
            await self._ask_in_turn(known, exchange)
        caller, parsed, admission = exchange.caller, exchange.parsed, exchange.admission
        assert caller is not None and parsed is not None and admission is not None, "it is asked"  # noqa: PT018
        try:
            exchange.reservation = admitted(exchange, parsed, await admission)
        finally:
            exchange.store_seconds = services.clock.monotonic() - exchange.asked_at
            exchange.admission = admission = None  # A stream may run for minutes, and it has memory of its own.
        if parsed.creates is not None:
            self._objects.begin(exchange)
        if parsed.stream:
            writer.keep_alive(services.keepalive_s, exchange.limit_lines)
        targets = route(parsed, request.headers, caller, services.upstream.routing, services.clock, exchange.held_by)
        exchange.response = response = await forward(exchange, parsed, targets, services.upstream, writer)
        if not relay_if_whole(exchange, parsed, response, writer):
            if parsed.rest is None:
                # A stream may run for minutes: meanwhile the memory of its prompt is for others.
                parsed.members.forget()
                request.body.release()
            await relay(exchange, parsed, response, writer, services.clock)

    async def _read(self, exchange: Exchange, caller: Caller, snapshot: ConfigSnapshot) -> ParsedRequest:
        """The request, once its body has come. If it is about something that an upstream keeps, `exchange.held_by`
        names that upstream then."""
        request = exchange.request
        request.body.team = caller.team
        body: bytes | Form | None = available_body(request)
        if body is None:
            body = await read_body(request, self.services.new_boundary)
            if isinstance(body, bytes) and len(body) > LARGE_BYTES:
                await self._starts.wait_large(caller.team, len(body))
        user = exchange.token_user or user_in_header(caller.end_user, request.headers)
        if request.endpoint.about is None:
            return parse_request(
                body, request.endpoint, caller, snapshot, path_model=request.path_model, query=request.query, user=user
            )
        assert isinstance(body, bytes), "these endpoints take no form"
        binding, exchange.held_by = await find_subject(request, caller, snapshot, self._objects)
        return parse_object_request(body, request.endpoint, binding, query=request.query, user=user)

    def _ask(self, exchange: Exchange, parsed: ParsedRequest) -> AdmissionRequest:
        counted = self._counted_user(exchange, parsed) if parsed.binding.user_limits else parsed.user
        return ask(exchange, parsed, self.services.estimates, counted)

    def _counted_user(self, exchange: Exchange, parsed: ParsedRequest) -> str:
        """The end user whose counters are charged, where there are limits of end users."""
        if not parsed.user or exchange.token_user:
            return parsed.user
        caller, services = parsed.binding.caller, self.services
        return services.end_users.counted_as(parsed.user, caller.team, caller.end_user.most, services.clock.now_ms())

    def _finish(self, exchange: Exchange) -> None:
        """Release, settle and record; a request that was never admitted is only recorded. What has to be awaited for
        that is awaited in a task of the process, so that a second cancellation cannot lose a settlement."""
        services = self.services
        exchange.request.body.release()
        exchange.ended = services.clock.monotonic()
        if exchange.reservation is None:
            # Nothing was sent and nothing is held.
            record(exchange, (services.request_records.keep_unsettled, *services.recorders), services.log_error)
            if self._all_recorded is not None:
                self._tell_all_recorded(self._all_recorded)
        else:
            self._ending[exchange.id] = exchange
            # In the next turn: the end of the answer leaves before.
            self._loop.call_soon(self._release, exchange)

    def _release(self, exchange: Exchange) -> None:
        try:
            if not self._releaser.release_if_over(exchange):
                self._tasks.start("leave an upstream", self._leave(exchange))
                return
        except Exception as error:  # noqa: BLE001 # Whatever it is, what comes after must still be done.
            self._log_unfinished(exchange, "has not released its upstream", error)
        self._settle(exchange)

    async def _leave(self, exchange: Exchange) -> None:
        try:
            await self._releaser.release(exchange)
        except Exception as error:  # noqa: BLE001 # The same.
            self._log_unfinished(exchange, "has not released its upstream", error)
        self._settle(exchange)

    def _settle(self, exchange: Exchange) -> None:
        services = self.services
        try:
            settle(exchange, services.zone, services.store, services.request_records, partial(self._settled, exchange))
        except Exception as error:  # noqa: BLE001 # The same.
            self._log_unfinished(exchange, "is not settled", error)
            self._record(exchange)

    def _settled(self, exchange: Exchange, rest: SettlementRest | None) -> None:
        if rest is None:
            self._record(exchange)
        else:
            self._tasks.start("settle a request", self._settle_rest(exchange, rest))

    async def _settle_rest(self, exchange: Exchange, rest: SettlementRest) -> None:
        try:
            await rest
        except Exception as error:  # noqa: BLE001 # The same.
            self._log_unfinished(exchange, "is not settled", error)
        self._record(exchange)

    def _record(self, exchange: Exchange) -> None:
        """Once for each request, whatever failed before."""
        if self._ending.pop(exchange.id, None) is None:
            return
        services, parsed = self.services, exchange.parsed
        if parsed is not None and parsed.creates is not None:
            self._objects.end(exchange)
        record(exchange, services.recorders, services.log_error)
        if self._all_recorded is not None:
            self._tell_all_recorded(self._all_recorded)

    def _tell_all_recorded(self, waited_for: asyncio.Future[None]) -> None:
        if not self._ending:
            waited_for.set_result(None)
            self._all_recorded = None

    def _log_unfinished(self, exchange: Exchange, what: str, error: Exception) -> None:
        self.services.log_error(f"request {exchange.request.request_id} {what}", error)

    def _fail(self, exchange: Exchange, writer: ResponseWriter, error: Exception) -> None:
        if not isinstance(error, GatewayError):
            # A defect of ours: its details belong into the log alone.
            self.services.log_error(f"request {exchange.request.request_id} failed", error)
            error = InternalError("The gateway failed. Its operators find the request id in the log.")
        _drop_frames(error)
        self._refuse(exchange, writer, error)

    def _refuse(self, exchange: Exchange, writer: ResponseWriter, error: GatewayError) -> None:
        exchange.error = error
        if not writer.started:
            exchange.status = error.status
        if exchange.reservation is not None:
            error.limit_lines = exchange.limit_lines()
        writer.fail(error)

    def _why_ended(self, task: asyncio.Task[Any]) -> GatewayError:
        if task not in self._cancelled:
            return ShuttingDown("The gateway is shutting down.")
        return RequestCancelled("An operator of the gateway has ended this request. Ask them before you send it again.")

    def cancel(self, exchange: Exchange) -> bool:
        """End a request in flight as a shutdown would: its client gets an error, and what was delivered is charged.
        False where it ends already."""
        for task, running in self._running.items():
            if running is exchange and task not in self._cancelled:
                self._cancelled.add(task)
                return task.cancel()
        return False

    def abort(self) -> None:
        """Cancel what is still running: its clients get the error that the gateway shuts down."""
        for task in self._running:
            task.cancel()
        self._releaser.abort()

    async def wait_idle(self) -> None:
        """Wait until nothing runs, its clients have read most of their answers, and all that ended is settled and
        recorded."""
        while self._running:
            await asyncio.wait(self._running)
        await self.wait_settled()

    async def wait_ended(self) -> None:
        """The same, whatever clients have still to read or to send."""
        while self._running:
            await self._next_records()
        await self.wait_settled()

    async def wait_settled(self) -> None:
        """Wait until every answer that has ended is settled and recorded."""
        while self._ending:
            await self._next_records()

    async def _next_records(self) -> None:
        """Wait until a request is recorded and none that has ended is left."""
        if self._all_recorded is None:
            self._all_recorded = self._loop.create_future()
        await asyncio.wait([self._all_recorded])


def _drop_frames(error: BaseException) -> None:
    """Free what the frames of its tracebacks hold, which may be a body of megabytes. The exchange refers to the error,
    and those frames to the exchange: only a search for garbage would free them, and that is rare."""
    error.__traceback__ = None
    for other in (error.__cause__, error.__context__):
        # One can be the cause of several, even of itself.
        if other is not None and other.__traceback__ is not None:
            _drop_frames(other)
