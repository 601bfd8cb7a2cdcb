from __future__ import annotations

import msgspec
import pytest

from gateway.core.errors import (
    ClientGone,
    FieldInvalid,
    GatewayError,
    KeyExpired,
    KeyUnknown,
    ModelUnknown,
    NoTarget,
    StoreUnavailable,
    UpstreamRefused,
    UpstreamUnreachable,
)
from gateway.core.exchange import Exchange
from gateway.core.limits import Meter, Mode, Per
from gateway.core.pricing import Price
from gateway.core.request_record import RecordedAttempt, RequestRecord
from gateway.core.reservation import Hold, Holds, LimitStatus, Refusal, RefusalReason, Reservation
from gateway.telemetry.request_records import SAMPLED_ALIKE, WAITING_MAX, RecordPolicy, RequestRecorder
from tests.unit.fakes import NOW_MS, StandingClock, limit, limit_statuses_of, target
from tests.unit.telemetry.exchanges import answered, unheard

FAILED = RecordPolicy("failed", 60_000, 10)


def recorder(policy: RecordPolicy = FAILED, config: str = "first") -> RequestRecorder:
    made = RequestRecorder(StandingClock(), "1.2.3", "host:1")
    made.follow(policy, config)
    return made


def failed(error: GatewayError, x: Exchange | None = None) -> Exchange:
    x = x or answered()
    x.status, x.error, x.usage, x.cost = error.status, error, None, 0
    return x


def record_of(x: Exchange, policy: RecordPolicy = FAILED) -> RequestRecord:
    kept = recorder(policy).of(x)
    assert kept is not None
    return kept.record


def refused(error: GatewayError | None = None) -> Exchange:
    """A request that never came to admission."""
    return failed(error or KeyUnknown("No such key."), unheard())


@pytest.mark.parametrize(
    ("requests", "good", "bad"), [("none", False, False), ("failed", False, True), ("all", True, True)]
)
def test_the_policy_says_which_requests_have_a_record(requests: str, good: bool, bad: bool) -> None:
    made = recorder(RecordPolicy(requests, 60_000, 10))
    assert (made.of(answered()) is not None) == good
    assert (made.of(failed(ClientGone("Left."))) is not None) == bad
    made.keep_unsettled(refused())
    assert bool(made.take()) == bad


@pytest.mark.parametrize(
    "refusal",
    [
        KeyUnknown("Disabled.", why="disabled"),
        KeyExpired("Expired."),
        ModelUnknown("There is none.", why="model_forbidden"),
    ],
)
def test_the_record_of_what_is_refused_says_which_key_and_why(refusal: KeyUnknown | KeyExpired | ModelUnknown) -> None:
    x = refused(refusal)
    x.refused_key = "0123456789ab"
    error = record_of(x).error
    assert error is not None
    assert (error.refused_key, error.refused_because) == ("0123456789ab", refusal.why)


def test_a_record_says_for_how_long_and_how_many_are_kept() -> None:
    kept = recorder().of(failed(ClientGone("Left.")))
    assert kept is not None
    assert (kept.keep_ms, kept.most) == (60_000, 10)


def test_a_record_has_who_asked_for_what_and_how_long_it_took() -> None:
    x = failed(UpstreamUnreachable("It does not answer."))
    x.attempts = (("one", "connect_refused"), ("two", "503"))
    record = record_of(x)
    assert (record.team, record.key, record.key_name, record.user) == ("search", "0123456789ab", "search-prod", "ann")
    assert (record.model, record.stream, record.upstream) == ("openai/gpt-oss-120b", True, "inducta")
    assert record.attempts == (RecordedAttempt("one", "connect_refused"), RecordedAttempt("two", "503"))
    assert (record.duration_s, record.first_byte_s, record.upstream_s) == (2.0, 0.5, 1.998)
    assert (record.version, record.process, record.config) == ("1.2.3", "host:1", "first")


def test_the_configuration_is_the_one_that_a_request_began_with() -> None:
    clock = StandingClock()
    made = RequestRecorder(clock, "1", "host:1")
    for config in ("first", "second"):
        made.follow(FAILED, config)
        clock.ms += 1_000
    began = clock.monotonic()
    found = []
    for seconds_before in (1.5, 0.5, 3_000.0):
        x = failed(ClientGone("Left."))
        x.request = msgspec.structs.replace(x.request, at=began - seconds_before)
        kept = made.of(x)
        assert kept is not None
        found.append(kept.record.config)
    assert found == ["first", "second", "first"]


def test_limits_that_let_a_request_pass_have_what_they_hold_for_it() -> None:
    month, shadow = limit(Meter.TOKENS, Per.MONTH, 1_000), limit(Meter.USD, Per.DAY, 500)
    shadow = msgspec.structs.replace(shadow, mode=Mode.SHADOW)
    x = failed(ClientGone("Left."))
    statuses = limit_statuses_of([LimitStatus(month, 250, 40, 710, NOW_MS), LimitStatus(shadow, 500, 0, 0, NOW_MS)])
    x.reservation = Reservation("id", NOW_MS, 100, False, Holds.of([Hold(month, 40)]), statuses, (shadow,))
    passed, would_refuse = record_of(x).limits
    assert (passed.used, passed.held, passed.left, passed.needed) == (250, 40, 710, 40)
    assert (passed.refused, passed.would_refuse) == (False, False)
    assert (would_refuse.needed, would_refuse.would_refuse) == (None, True)


def test_limits_that_grants_raise_have_what_they_hold_too() -> None:
    month, shadow = limit(Meter.TOKENS, Per.MONTH, 1_000), limit(Meter.USD, Per.DAY, 500)
    shadow = msgspec.structs.replace(shadow, mode=Mode.SHADOW)
    x = failed(ClientGone("Left."))
    statuses = limit_statuses_of(
        [
            LimitStatus(month.raised(500), 250, 40, 1_210, NOW_MS),
            LimitStatus(shadow.raised(1), 501, 0, 0, NOW_MS),
        ]
    )
    x.reservation = Reservation("id", NOW_MS, 100, False, Holds.of([Hold(month, 40)]), statuses, (shadow,))
    passed, would_refuse = record_of(x).limits
    assert (passed.limit.amount, passed.needed, passed.would_refuse) == (1_500, 40, False)
    assert (would_refuse.needed, would_refuse.would_refuse) == (None, True)


def test_a_refusal_has_every_limit_and_the_one_that_refused_first() -> None:
    minute, month = limit(Meter.REQUESTS, Per.MINUTE, 10), limit(Meter.TOKENS, Per.MONTH, 1_000)
    spent, other = LimitStatus(month, 990, 0, 10, NOW_MS), LimitStatus(minute, 3, 0, 7, NOW_MS)
    x = refused(StoreUnavailable("Not looked at."))
    x.refusal = Refusal(spent, 40, RefusalReason.SPENT, 0, NOW_MS, limit_statuses_of([other, spent]))
    first, second = record_of(x).limits
    assert (first.limit.name, first.refused, first.needed, first.left) == (month.name, True, 40, 10)
    assert (second.limit.name, second.refused, second.left) == (minute.name, False, 7)


def test_the_cost_comes_with_the_lines_that_it_consists_of() -> None:
    x = answered()
    x.target = target(price=Price(input=2_000_000, output=8_000_000))
    record = record_of(x, RecordPolicy("all", 60_000, 10))
    assert [(line.name, line.quantity) for line in record.prices] == [
        ("input", 100),
        ("output", 300),
        ("cached_input", 20),
    ]
    assert (record.usage, record.cost) == (x.usage, x.cost)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NoTarget("No upstream can take it."), "No upstream can take it."),
        (StoreUnavailable("The store does not answer."), "The store does not answer."),
        (FieldInvalid("'role' cannot be 'a secret'."), ""),
        (UpstreamRefused("It answered: a secret"), ""),
        (ClientGone("a secret"), ""),
    ],
)
def test_a_message_that_may_quote_the_request_or_the_answer_is_left_out(error: GatewayError, message: str) -> None:
    record = record_of(failed(error))
    assert record.error is not None
    assert (record.error.message, record.error.code) == (message, error.code)
    assert b"secret" not in msgspec.json.encode(record)


@pytest.mark.parametrize(
    ("param", "kept"), [("messages[0].role", "messages[0].role"), ("a secret: \n", ""), ("x" * 81, "")]
)
def test_a_field_is_named_where_its_name_is_one(param: str, kept: str) -> None:
    error = record_of(failed(FieldInvalid("Wrong.", param=param))).error
    assert error is not None
    assert error.param == kept


def test_of_refusals_of_one_kind_a_sample_waits_and_each_writing_begins_another() -> None:
    made = recorder()
    for _ in range(2):
        for _ in range(3 * SAMPLED_ALIKE):
            made.keep_unsettled(refused())
        made.keep_unsettled(refused(FieldInvalid("Wrong.")))
        waiting = made.take()
        codes = [kept.record.error.code for kept in waiting if kept.record.error is not None]
        assert codes == ["invalid_api_key"] * SAMPLED_ALIKE + ["invalid_value"]
    assert made.take() == []


def test_a_request_without_a_settlement_that_went_well_has_no_record() -> None:
    made = recorder(RecordPolicy("all", 60_000, 10))
    x = unheard()
    x.status = 200
    made.keep_unsettled(x)
    assert made.take() == []


def test_what_could_not_be_written_waits_in_its_order_and_the_oldest_are_dropped() -> None:
    made = recorder()
    taken = []
    for number in range(WAITING_MAX // SAMPLED_ALIKE + 1):
        for _ in range(SAMPLED_ALIKE):
            x = refused()
            x.id = f"old-{number}"
            made.keep_unsettled(x)
        taken += made.take()
    x = refused()
    x.id = "new"
    made.keep_unsettled(x)
    made.put_back(taken)
    assert made.dropped == len(taken) + 1 - WAITING_MAX
    waiting = [kept.record.id for kept in made.take()]
    assert (len(waiting), waiting[0], waiting[-2:]) == (WAITING_MAX, "old-1", [taken[-1].record.id, "new"])
    made.put_back([])
    assert made.take() == []
    made.drop(taken)
    assert made.dropped == len(taken) + 1 - WAITING_MAX + len(taken)


def test_a_record_that_comes_when_too_many_wait_drops_the_oldest_and_is_counted() -> None:
    made = recorder()
    for number in range(WAITING_MAX + 1):
        x = refused()
        made.keep_unsettled(x)
        if number % SAMPLED_ALIKE == SAMPLED_ALIKE - 1:
            made.put_back(made.take())
    assert (made.dropped, len(made.take())) == (1, WAITING_MAX)
