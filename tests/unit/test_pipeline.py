from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import pytest

from gateway.core.end_users import EndUserCounts
from gateway.core.errors import (
    BodyUnreadable,
    ClientGone,
    GatewayError,
    InternalError,
    KeyMissing,
    KeyUnknown,
    ModelUnknown,
    NoTarget,
    RateExceeded,
    RequestCancelled,
    ShuttingDown,
    StoreUnavailable,
    TooLarge,
    UpstreamAuthFailed,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from gateway.core.estimate import OUTPUT_AT_FIRST, Estimates
from gateway.core.exchange import Exchange
from gateway.core.request import IncomingRequest
from gateway.core.reservation import (
    AdmissionRequest,
    LimitStatus,
    Refusal,
    RefusalReason,
    Reservation,
    Settlement,
)
from gateway.core.response import ResponseWriter, Work
from gateway.core.snapshot import Caller, Model
from gateway.core.usage import Usage, UsageSource
from gateway.pipeline import Pipeline, Services
from gateway.runtime.start_queue import PER_TURN
from gateway.runtime.tasks import BackgroundTasks, LogError
from gateway.stages.authenticate import key_digest
from gateway.store.contract import Admission, SettlementEnd
from tests.unit.fakes import (
    CALLER,
    KEY,
    MODEL,
    NOW_MS,
    Client,
    GivenBody,
    Ledgers,
    ScriptedAnswer,
    ScriptedClient,
    StandingClock,
    StoredCallers,
    Unrecorded,
    body_of,
    headers_in,
    incoming_of,
    limit,
    limit_statuses_of,
    snapshot_with,
    stream,
    upstream_services,
    with_headers,
)

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
PLAIN = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
SECRET = "the prompt of a client"
T = TypeVar("T")


class NotedTasks(BackgroundTasks):
    """Notes what is started."""

    def __init__(self, log_error: LogError) -> None:
        super().__init__(log_error)
        self.started: list[str] = []

    def start(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        self.started.append(name)
        return super().start(name, work)


class Whole:
    """A journey over fakes: one client, one store, one upstream."""

    def __init__(self, *script: ScriptedAnswer | Exception, store: Ledgers | None = None, model: Model = MODEL) -> None:
        self.client, self.upstream, self.store = Client(), ScriptedClient(*script), store or Ledgers()
        counters: Any = self.store  # Nobody asks more of it than counters have.
        self.recorded: list[Exchange] = []
        self.complaints: list[tuple[str, BaseException]] = []
        self.ids = iter(f"exchange-{number}" for number in range(1, 1_000))
        self.tasks = NotedTasks(lambda what, error: self.complaints.append((what, error)))
        self.pipeline = Pipeline(
            tasks=self.tasks,
            services=Services(
                end_users=EndUserCounts(),
                snapshot=snapshot_with(model, Model("empty", ())),
                directory=StoredCallers(),
                store=counters,
                upstream=upstream_services(self.upstream),
                zone=ZoneInfo("UTC"),
                recorders=[self.recorded.append],
                request_records=Unrecorded(),
                log_error=lambda what, error: self.complaints.append((what, error)),
                clock=StandingClock(),
                new_id=lambda: next(self.ids),
                new_boundary=lambda: "b",
                estimates=Estimates(),
                keepalive_s=15.0,
            ),
        )

    def start(self, request: IncomingRequest | None = None) -> asyncio.Task[None]:
        return asyncio.create_task(done(self.pipeline.answer(request or incoming_of(body_of()), self.client)))

    async def answer(self, request: IncomingRequest | None = None) -> Exchange:
        await self.start(request)
        await self.pipeline.wait_settled()
        (exchange,) = self.recorded
        return exchange

    @property
    def charged(self) -> list[Usage | None]:
        """What the ledger has: an entry a settlement, None for one that gives back only."""
        return [settled.entry.usage if settled.entry else None for settled in self.store.settled]


async def done(work: Work | None) -> None:
    if work is not None:
        await work()


async def let_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_request_goes_its_whole_way() -> None:
    whole = Whole(ScriptedAnswer(PLAIN))
    exchange = await whole.answer()
    assert (whole.client.status, whole.client.body, whole.client.error) == (200, PLAIN, None)
    assert (exchange.id, exchange.status, exchange.error, exchange.whole) == ("exchange-1", 200, None, True)
    assert whole.charged == [exchange.usage] == [Usage(3, 2)]
    assert whole.complaints == []
    assert whole.pipeline.in_flight == 0


async def test_a_stream_goes_its_whole_way_and_is_kept_alive() -> None:
    whole = Whole(stream(CHUNK, FINISH, USAGE, DONE))
    await whole.answer(incoming_of(body_of(stream=True)))
    assert whole.client.body.endswith(DONE)
    assert whole.client.keeps_alive_with is not None
    assert whole.charged == [Usage(3, 2)]


async def test_a_plain_answer_is_not_begun_by_a_keep_alive() -> None:
    whole = Whole(ScriptedAnswer(PLAIN))
    await whole.answer()
    assert whole.client.keeps_alive_with is None


def refusing() -> Ledgers:
    of = limit()
    return Ledgers(Refusal(LimitStatus(of, of.amount, 0, 0, NOW_MS + 500), 1, RefusalReason.SPENT, 500, NOW_MS))


EARLY: list[tuple[Callable[[], IncomingRequest], type[GatewayError]]] = [
    (lambda: with_headers(incoming_of(b""), {}), KeyMissing),
    (lambda: incoming_of(b"", authorization="Bearer wrong"), KeyUnknown),
    (lambda: incoming_of(b"{"), BodyUnreadable),
    (lambda: incoming_of(TooLarge("Too large.")), TooLarge),
    (lambda: incoming_of(ClientGone("It left.")), ClientGone),
    (lambda: incoming_of(body_of(model="none")), ModelUnknown),
]


@pytest.mark.parametrize(("incoming", "kind"), EARLY, ids=[kind.__name__ for _, kind in EARLY])
async def test_what_is_refused_before_admission_costs_nothing(
    incoming: Callable[[], IncomingRequest], kind: type[GatewayError]
) -> None:
    whole = Whole()
    exchange = await whole.answer(incoming())
    assert (type(exchange.error), exchange.status) == (kind, kind.status)
    assert whole.client.error is exchange.error
    assert (whole.store.asked, whole.store.settled, whole.upstream.sent, whole.complaints) == ([], [], [], [])


@pytest.mark.parametrize(
    ("store", "kind"), [(refusing, RateExceeded), (lambda: Ledgers(StoreUnavailable("Out.")), StoreUnavailable)]
)
async def test_what_is_not_admitted_is_not_settled(store: Callable[[], Ledgers], kind: type[GatewayError]) -> None:
    whole = Whole(store=store())
    exchange = await whole.answer()
    assert type(exchange.error) is kind
    assert (whole.store.settled, whole.upstream.sent, exchange.usage) == ([], [], None)


class WholeBody(GivenBody):
    """A body that has come whole."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._whole = body

    def available(self) -> bytes:
        return self._whole


def with_whole(body: bytes) -> IncomingRequest:
    return msgspec.structs.replace(incoming_of(body), body=WholeBody(body))


@pytest.mark.parametrize(
    ("body", "kind"), [(b"{", BodyUnreadable), (body_of(model="none"), ModelUnknown), (body_of(), RateExceeded)]
)
async def test_what_is_refused_without_waiting_has_its_answer_at_once(body: bytes, kind: type[GatewayError]) -> None:
    whole = Whole()
    whole.store.repeated = spent()
    request = with_whole(body)
    assert whole.pipeline.answer(request, whole.client) is None
    (exchange,) = whole.recorded
    assert type(whole.client.error) is type(exchange.error) is kind
    assert (exchange.status, whole.store.asked, whole.store.settled) == (kind.status, [], [])
    assert request.body.released  # type: ignore[attr-defined]  # It is a GivenBody.


def spent() -> Refusal:
    of = limit()
    return Refusal(LimitStatus(of, of.amount, 0, 0, 0), 1, RefusalReason.SPENT, 500, NOW_MS)


async def test_the_same_request_that_is_refused_again_is_read_once() -> None:
    whole = Whole()
    whole.store.repeated = spent()
    for _ in range(3):
        whole.pipeline.answer(with_whole(body_of()), Client())
    first, *others = whole.recorded
    assert [type(each.error) for each in whole.recorded] == [RateExceeded] * 3
    assert [each.parsed is first.parsed and each.error is first.error for each in others] == [True, True]
    assert [each.estimated_input for each in others] == [first.estimated_input] * 2
    assert {(each.refusal is whole.store.repeated, each.store_seconds) for each in whole.recorded} == {(True, 0)}
    assert [each.id for each in whole.recorded] == ["exchange-1", "exchange-2", "exchange-3"]


async def test_the_same_request_that_is_refused_otherwise_is_told_so() -> None:
    whole = Whole()
    refusals = [spent(), msgspec.structs.replace(spent(), retry_after_ms=400)]
    for whole.store.repeated in refusals:
        whole.pipeline.answer(with_whole(body_of()), Client())
    assert [each.refusal for each in whole.recorded] == refusals
    assert [each.error.retry_after_ms for each in whole.recorded if each.error is not None] == [500, 400]


async def test_a_request_that_is_refused_at_once_has_a_record_and_no_settlement() -> None:
    whole = Whole()
    whole.store.repeated = spent()
    records = whole.pipeline.services.request_records = Unrecorded()
    whole.pipeline.answer(with_whole(body_of()), whole.client)
    assert (records.unsettled, whole.store.settled) == (whole.recorded, [])


async def test_what_was_learned_since_is_asked_by_the_same_request() -> None:
    whole = Whole()
    whole.store.repeated = spent()
    whole.pipeline.answer(with_whole(body_of()), Client())
    estimator = whole.pipeline.services.estimates.of(CALLER.team, MODEL.name)
    estimator.begin_with(msgspec.structs.replace(estimator.learned, output=7))
    whole.pipeline.answer(with_whole(body_of()), Client())
    before, after = [each.asked for each in whole.recorded]
    assert before is not None
    assert after is not None
    assert (before.likely, after.likely) == (OUTPUT_AT_FIRST, 7)


async def test_the_same_requests_that_pass_after_a_refusal_have_nothing_in_common() -> None:
    whole = Whole(*[stream(CHUNK, FINISH, USAGE, DONE) for _ in range(2)])
    whole.store.repeated = spent()
    body = body_of(stream=True)
    whole.pipeline.answer(with_whole(body), Client())
    whole.store.repeated = None
    works = [whole.pipeline.answer(with_whole(body), Client()) for _ in range(2)]
    await asyncio.gather(*map(done, works))
    await whole.pipeline.wait_settled()
    _, *passed = whole.recorded
    assert [each.status for each in passed] == [200, 200]
    assert [asked.id for asked in whole.store.asked] == ["exchange-2", "exchange-3"]
    assert len({id(each.parsed) for each in passed}) == 2
    assert len({outgoing.body for _, outgoing in whole.upstream.sent}) == 1
    assert body[1:-1] in whole.upstream.sent[0][1].body


class AskedAhead(Ledgers):
    """Repeats its refusal, except to one request."""

    def repeated_refusal(self, _ask: AdmissionRequest) -> Refusal | None:
        repeated, self.repeated = self.repeated, self.repeated or spent()
        return repeated


@pytest.mark.parametrize("is_known", [True, False])
async def test_the_one_that_a_store_lets_ask_does_ask_it(is_known: bool) -> None:
    whole = Whole(ScriptedAnswer(PLAIN), store=AskedAhead())
    if is_known:
        whole.store.repeated = spent()
        whole.pipeline.answer(with_whole(body_of()), Client())
    whole.store.repeated = None
    works = [whole.pipeline.answer(with_whole(body_of()), Client()) for _ in range(3)]
    await asyncio.gather(*[done(work) for work in works if work is not None])
    await whole.pipeline.wait_settled()
    assert (len(whole.store.asked), works[0] is None, works[1:]) == (1, False, [None, None])
    assert sorted(each.status for each in whole.recorded[is_known:]) == [200, 429, 429]


async def test_what_has_come_whole_goes_its_whole_way() -> None:
    whole = Whole(ScriptedAnswer(PLAIN))
    exchange = await whole.answer(with_whole(body_of()))
    assert (whole.client.status, whole.client.body, whole.charged) == (200, PLAIN, [exchange.usage])
    assert len(whole.store.asked) == 1


async def test_what_has_come_whole_asks_the_store_before_its_task_begins() -> None:
    whole = Whole(ScriptedAnswer(PLAIN))
    work = whole.pipeline.answer(with_whole(body_of()), whole.client)
    assert len(whole.store.asked) == 1
    await done(work)
    await whole.pipeline.wait_settled()
    assert (len(whole.store.asked), len(whole.charged)) == (1, 1)


async def test_a_defect_in_asking_the_store_is_answered_and_recorded() -> None:
    class Defective(Ledgers):
        def admit(self, ask: AdmissionRequest) -> Admission:
            raise RuntimeError("a defect")

    whole = Whole(store=Defective())
    assert whole.pipeline.answer(with_whole(body_of()), whole.client) is None
    assert (whole.client.status, len(whole.recorded), len(whole.complaints)) == (500, 1, 1)


async def test_what_a_limit_has_refused_while_it_waited_does_not_ask_the_store() -> None:
    whole = Whole(*[ScriptedAnswer(PLAIN)] * PER_TURN)
    works = [whole.pipeline.answer(with_whole(body_of()), Client()) for _ in range(PER_TURN + 2)]
    whole.store.repeated = spent()
    await asyncio.gather(*map(done, works))
    await whole.pipeline.wait_settled()
    assert len(whole.store.asked) == PER_TURN
    assert sorted(each.status for each in whole.recorded) == [200] * PER_TURN + [RateExceeded.status] * 2


@pytest.mark.parametrize("store", [Ledgers, refusing])
async def test_what_is_settled_at_once_ends_without_a_task(store: Callable[[], Ledgers]) -> None:
    whole = Whole(ScriptedAnswer(PLAIN), store=store())
    await whole.answer()
    assert whole.tasks.started == []


class LateLedgers(Ledgers):
    """Settles when it is told to, and keeps what is to be called then."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[SettlementEnd] = []

    def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
        self.settled.append(settlement)
        self.ends.append(then)


async def test_a_request_is_recorded_once_it_is_settled_and_both_are_waited_for() -> None:
    store = LateLedgers()
    whole = Whole(ScriptedAnswer(PLAIN), ScriptedAnswer(PLAIN), store=store)
    for _ in range(2):
        await whole.start()
    waiting = [asyncio.create_task(wait()) for wait in (whole.pipeline.wait_settled, whole.pipeline.wait_idle)]
    await let_run()
    waiting[0].cancel()
    store.ends[0](None)
    await let_run()
    assert (len(whole.recorded), waiting[1].done()) == (1, False)
    store.ends[1](None)
    await waiting[1]
    assert (len(whole.recorded), whole.tasks.started) == (2, [])


async def test_the_end_of_a_request_without_a_settlement_is_waited_for() -> None:
    whole = Whole(store=refusing())
    running = whole.start()
    await asyncio.sleep(0)
    assert whole.pipeline.in_flight == 1
    async with asyncio.timeout(5):
        await whole.pipeline.wait_ended()
    assert [type(each.error) for each in whole.recorded] == [RateExceeded]
    await running


async def test_what_is_left_of_a_settlement_is_awaited_in_a_task() -> None:
    store = LateLedgers()
    whole = Whole(ScriptedAnswer(PLAIN), store=store)
    await whole.start()
    await let_run()
    store.ends[0](store.settle(store.settled[0]))
    await whole.pipeline.wait_settled()
    assert (len(whole.recorded), whole.tasks.started, len(store.settled)) == (1, ["settle a request"], 2)


@pytest.mark.parametrize("has_ended", [True, False])
async def test_a_settlement_with_a_defect_is_reported_and_its_request_recorded_once(has_ended: bool) -> None:
    defect = TypeError("a defect")

    class DefectiveLedgers(Ledgers):
        def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
            if has_ended:
                then(None)
            raise defect

    whole = Whole(ScriptedAnswer(PLAIN), store=DefectiveLedgers())
    await whole.answer()
    assert [error for _, error in whole.complaints] == [defect]


async def test_a_refused_request_is_recorded_although_no_sample_of_it_can_be_kept() -> None:
    class BrokenRecords(Unrecorded):
        def keep_unsettled(self, x: Exchange) -> None:
            raise OSError("no space")

    whole = Whole(store=refusing())
    whole.pipeline.services.request_records = BrokenRecords()
    await whole.answer()
    assert [str(error) for _, error in whole.complaints] == ["no space"]


@pytest.mark.parametrize("key", ["of the configuration", "of the store", "unknown"])
async def test_whose_key_it_is_is_said_at_once_where_it_is_known(key: str) -> None:
    whole = Whole()
    directory = whole.pipeline.services.directory = StoredCallers({key_digest("of the store"): CALLER})
    exchange = Exchange("1", incoming_of(b"", authorization=f"Bearer {KEY if key.endswith('configuration') else key}"))
    for _ in range(2):
        with contextlib.suppress(KeyUnknown):
            known = whole.pipeline.authenticate(exchange)
            if not isinstance(known, Caller):
                directory.callers[key_digest(key)] = await known()
    if key == "unknown":
        with pytest.raises(KeyUnknown):
            whole.pipeline.authenticate(exchange)
        assert exchange.refused_key == key_digest(key)[:12]
    else:
        assert whole.pipeline.authenticate(exchange) is exchange.caller is not None
    assert directory.asked == ([] if key.endswith("configuration") else [key_digest(key)])


async def test_a_refused_client_is_told_how_its_limits_stand() -> None:
    of = limit()
    limit_status = LimitStatus(of, of.amount, 0, 0, NOW_MS + 500)
    whole = Whole(
        store=Ledgers(Refusal(limit_status, 1, RefusalReason.SPENT, 500, NOW_MS, limit_statuses_of([limit_status])))
    )
    await whole.answer()
    assert whole.client.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (UpstreamUnreachable("It refused."), UpstreamUnreachable),
        (UpstreamTimedOut("Silent."), UpstreamTimedOut),
        (ScriptedAnswer(b"{}", status=401), UpstreamAuthFailed),
        (ScriptedAnswer(b"{}", status=302), UpstreamUnreachable),
        (ScriptedAnswer(b'{"cho', failure=UpstreamBroke("It broke.")), UpstreamBroke),
    ],
)
async def test_an_admitted_request_that_fails_is_settled_once_and_free(
    failure: ScriptedAnswer | Exception, kind: type[GatewayError]
) -> None:
    whole = Whole(failure)
    exchange = await whole.answer()
    assert (type(exchange.error), exchange.status, whole.client.status) == (kind, kind.status, kind.status)
    assert whole.charged == [None]
    assert "x-ratelimit-remaining-requests" in whole.client.headers


async def test_a_model_that_nobody_serves_is_settled_too() -> None:
    whole = Whole()
    exchange = await whole.answer(incoming_of(body_of(model="empty")))
    assert (type(exchange.error), whole.charged) == (NoTarget, [None])


async def test_an_upstreams_error_is_relayed_and_free() -> None:
    whole = Whole(ScriptedAnswer(b'{"error":{}}', status=422))
    exchange = await whole.answer()
    assert (whole.client.status, whole.client.body, exchange.error) == (422, b'{"error":{}}', None)
    assert whole.charged == [None]


async def test_a_stream_that_breaks_is_told_and_charged_for_what_came() -> None:
    whole = Whole(stream(CHUNK, CHUNK, failure=UpstreamBroke("It broke.")))
    exchange = await whole.answer(incoming_of(body_of(stream=True)))
    assert (type(whole.client.error), exchange.status, whole.client.ended) == (UpstreamBroke, 200, False)
    assert whole.client.body == CHUNK * 2
    (usage,) = whole.charged
    assert usage is not None
    assert (usage.output, usage.source) == (2, UsageSource.ESTIMATED)


@pytest.mark.parametrize("cancels", [1, 2, 5])
async def test_a_client_that_leaves_is_charged_once_however_often_it_is_cancelled(cancels: int) -> None:
    answer = stream(CHUNK, CHUNK, hangs=True)
    whole = Whole(answer)
    whole.store.may_settle.clear()
    running = whole.start(incoming_of(body_of(stream=True)))
    await let_run()
    whole.client.gone = True
    for _ in range(cancels):
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await whole.store.settling.wait()
    assert answer.abandoned
    assert whole.store.settled == []
    whole.store.may_settle.set()
    await whole.pipeline.wait_settled()
    (usage,) = whole.charged
    assert usage is not None
    assert usage.output == 2
    (exchange,) = whole.recorded
    assert isinstance(exchange.error, ClientGone)


async def test_a_client_that_leaves_before_the_answer_is_charged_for_its_prompt() -> None:
    class SlowClient(ScriptedClient):
        async def send(self, *sent: Any) -> Any:
            await asyncio.Event().wait()

    whole = Whole()
    whole.pipeline.services.upstream = upstream_services(SlowClient())
    running = whole.start()
    await let_run()
    whole.client.gone = True
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await whole.pipeline.wait_settled()
    (usage,) = whole.charged
    assert usage is not None
    assert (usage.input > 0, usage.output) == (True, 0)
    assert whole.recorded[0].status == ClientGone.status


async def test_a_client_that_leaves_while_it_is_admitted_is_free() -> None:
    class SlowStore(Ledgers):
        async def _admit(self, ask: AdmissionRequest) -> Reservation | Refusal:
            await asyncio.Event().wait()
            raise AssertionError("it never ends")

    whole = Whole(store=SlowStore())
    running = whole.start()
    await let_run()
    whole.client.gone = True
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await whole.pipeline.wait_settled()
    assert (whole.charged, whole.recorded[0].usage) == ([], None)


async def test_a_drain_that_is_aborted_tells_its_clients_and_settles() -> None:
    whole = Whole(stream(CHUNK, CHUNK, hangs=True))
    running = whole.start(incoming_of(body_of(stream=True)))
    await let_run()
    assert whole.pipeline.in_flight == 1
    whole.pipeline.abort()
    await whole.pipeline.wait_idle()
    await running
    assert isinstance(whole.client.error, ShuttingDown)
    assert whole.client.error.retry_after_ms == 1000
    assert whole.pipeline.in_flight == 0
    assert [usage and usage.output for usage in whole.charged] == [2]


async def test_a_cancelled_stream_ends_as_at_a_shutdown_and_is_not_to_be_tried_again() -> None:
    whole = Whole(stream(CHUNK, CHUNK, hangs=True))
    running = whole.start(incoming_of(body_of(stream=True)))
    await let_run()
    (exchange,) = whole.pipeline.running
    assert [whole.pipeline.cancel(exchange) for _ in range(2)] == [True, False]
    await running
    await whole.pipeline.wait_settled()
    assert isinstance(whole.client.error, RequestCancelled)
    assert whole.client.error.should_retry is False
    assert [usage and usage.output for usage in whole.charged] == [2]
    assert whole.pipeline.cancel(exchange) is False


async def test_a_cancelled_request_leaves_the_others_alone() -> None:
    whole = Whole(stream(CHUNK, hangs=True), stream(CHUNK, hangs=True))
    first, second = Client(), Client()
    running = [
        asyncio.create_task(done(whole.pipeline.answer(incoming_of(body_of(stream=True)), client)))
        for client in (first, second)
    ]
    await let_run()
    whole.pipeline.cancel(next(iter(whole.pipeline.running)))
    await running[0]
    assert isinstance(first.error, RequestCancelled)
    assert (second.error, whole.pipeline.in_flight) == (None, 1)
    whole.pipeline.abort()
    await whole.pipeline.wait_idle()
    assert isinstance(second.error, ShuttingDown)


async def test_a_client_that_leaves_a_cancelled_request_is_gone_all_the_same() -> None:
    whole = Whole(stream(CHUNK, hangs=True))
    running = whole.start(incoming_of(body_of(stream=True)))
    await let_run()
    whole.client.gone = True
    whole.pipeline.cancel(next(iter(whole.pipeline.running)))
    with pytest.raises(asyncio.CancelledError):
        await running
    await whole.pipeline.wait_settled()
    assert isinstance(whole.recorded[0].error, ClientGone)


async def test_the_task_of_a_client_that_left_is_freed_without_a_search_for_garbage() -> None:
    whole = Whole(stream(CHUNK, hangs=True))
    running = whole.start(incoming_of(body_of(stream=True)))
    await let_run()
    whole.client.gone = True
    held = weakref.ref(running)
    gc.disable()
    try:
        running.cancel()
        await asyncio.wait([running])
        await whole.pipeline.wait_settled()
        del running
        await let_run()
        assert held() is None
    finally:
        gc.enable()


async def test_the_task_of_a_cancelled_request_that_ends_by_a_defect_is_freed() -> None:
    async def breaks_when_cancelled(_exchange: Exchange, _writer: ResponseWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("a defect")

    whole = Whole()
    running = asyncio.create_task(
        done(whole.pipeline.answer_here(incoming_of(body_of()), whole.client, breaks_when_cancelled))
    )
    await let_run()
    held = weakref.ref(running)
    assert whole.pipeline.cancel(next(iter(whole.pipeline.running)))
    await asyncio.wait([running])
    await whole.pipeline.wait_settled()
    del running
    await let_run()
    gc.collect()
    assert held() is None


async def test_a_defect_is_an_answer_without_details_and_a_complaint_with_all() -> None:
    defect = RuntimeError(f"cannot handle {SECRET}")
    whole = Whole(defect)
    exchange = await whole.answer()
    assert isinstance(exchange.error, InternalError)
    assert (whole.client.status, SECRET in exchange.error.message) == (500, False)
    assert [error for _, error in whole.complaints] == [defect]
    assert whole.charged == [None]


@pytest.mark.parametrize("what", ["admit", "settle"])
async def test_a_defect_of_the_store_harms_one_request_only(what: str) -> None:
    defect = RuntimeError("defect")
    broken = Ledgers(defect) if what == "admit" else Ledgers(outage=defect)
    whole = Whole(ScriptedAnswer(PLAIN), store=broken)
    exchange = await whole.answer()
    assert whole.client.status == (500 if what == "admit" else 200)
    assert [error for _, error in whole.complaints] == [defect]
    assert whole.recorded == [exchange]


async def test_what_cannot_be_settled_is_told_and_recorded_with_its_usage() -> None:
    outage = StoreUnavailable("Out.")
    whole = Whole(ScriptedAnswer(PLAIN), store=Ledgers(outage=outage))
    exchange = await whole.answer()
    assert [error for _, error in whole.complaints] == [outage]
    assert exchange.usage == Usage(3, 2)


async def test_a_recorder_that_fails_harms_nobody() -> None:
    def failing(exchange: Exchange) -> None:
        raise OSError("no disk")

    whole = Whole(ScriptedAnswer(PLAIN))
    whole.pipeline.services.recorders = [failing, whole.recorded.append]
    await whole.answer()
    assert (whole.client.body, whole.charged) == (PLAIN, [Usage(3, 2)])
    assert len(whole.complaints) == 1


async def test_a_request_keeps_the_catalogue_that_it_began_with() -> None:
    whole = Whole(ScriptedAnswer(PLAIN))
    services = whole.pipeline.services

    class Slow(GivenBody):
        async def whole(self) -> bytes:
            services.snapshot = snapshot_with()
            return await super().whole()

    await whole.answer(incoming_of(Slow(body_of())))
    assert whole.client.body == PLAIN


async def test_ids_of_settlements_are_the_gateways_own() -> None:
    whole = Whole(ScriptedAnswer(PLAIN), ScriptedAnswer(PLAIN))
    for client in (Client(), Client()):
        whole.client = client
        await whole.start()
    await whole.pipeline.wait_settled()
    assert [settled.id for settled in whole.store.settled] == ["exchange-1", "exchange-2"]


async def test_a_defect_of_a_page_is_answered_and_recorded_too() -> None:
    whole = Whole()

    async def broken(exchange: Exchange, writer: ResponseWriter) -> None:
        raise RuntimeError(SECRET)

    await whole.pipeline.answer_here(incoming_of(b""), whole.client, broken)()
    await whole.pipeline.wait_settled()
    assert whole.client.status == 500
    assert SECRET.encode() not in whole.client.body
    assert [exchange.status for exchange in whole.recorded] == [500]
    assert len(whole.complaints) == 1


async def test_the_door_answers_by_itself_with_the_same_errors_and_record() -> None:
    whole = Whole()

    async def page(exchange: Exchange, writer: ResponseWriter) -> None:
        writer.send(200, [], b"here")

    async def nowhere(exchange: Exchange, writer: ResponseWriter) -> None:
        raise ModelUnknown("There is none.", param="model")

    await whole.pipeline.answer_here(incoming_of(b""), whole.client, page)()
    missed = Client()
    await whole.pipeline.answer_here(incoming_of(b""), missed, nowhere)()
    assert (whole.client.body, missed.status) == (b"here", 404)
    await whole.pipeline.wait_settled()
    assert [exchange.status for exchange in whole.recorded] == [200, 404]


async def test_a_stream_holds_nothing_of_its_prompt() -> None:
    whole = Whole(stream(CHUNK, hangs=True))
    body = GivenBody(body_of(stream=True))
    running = whole.start(incoming_of(body))
    await let_run()
    (exchange,) = whole.pipeline.running
    assert whole.client.body == CHUNK
    assert exchange.parsed is not None
    assert (exchange.parsed.members.body, [*exchange.parsed.members.names()], body.released) == (b"", [], True)
    whole.client.gone = True
    running.cancel()
    await asyncio.wait([running])
    await whole.pipeline.wait_settled()


async def test_the_headers_of_limits_are_the_same_whenever_they_are_asked_for() -> None:
    whole = Whole(stream(CHUNK, FINISH, USAGE, DONE))
    exchange = await whole.answer(incoming_of(body_of(stream=True)))
    assert whole.client.keeps_alive_with is not None
    assert whole.client.keeps_alive_with() == exchange.limit_lines()
    assert (
        headers_in(exchange.limit_lines())["x-ratelimit-limit-requests"]
        == whole.client.headers["x-ratelimit-limit-requests"]
    )


async def test_requests_of_one_key_for_one_model_are_admitted_under_the_same_tuple_of_limits() -> None:
    whole = Whole(*[ScriptedAnswer(PLAIN) for _ in range(4)])
    for user in (None, None, "ann", "ann"):
        whole.client = Client()
        await whole.start(incoming_of(body_of(**({"user": user} if user else {}))))
    first, second, *of_ann = [ask.limits for ask in whole.store.asked]
    assert first is second
    assert of_ann[0] is of_ann[1]
    assert [charge.limit for charge in whole.store.asked[0].charges] == list(first)
    await whole.pipeline.wait_settled()


async def test_a_plain_answer_after_a_keep_alive_is_in_the_ledger_also_where_it_cannot_be_given() -> None:
    odd = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    whole = Whole(ScriptedAnswer(odd))
    whole.client.start(200, [("content-type", "text/event-stream")])
    exchange = await whole.answer(incoming_of(body_of(stream=True)))
    assert isinstance(exchange.error, UpstreamRefused)
    assert whole.charged == [Usage(3, 2)]
