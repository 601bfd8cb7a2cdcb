from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.core.consultations import Consultation
from gateway.core.endpoints import ENDPOINTS
from gateway.core.errors import QuotaSpent, RateExceeded, StoreUnavailable
from gateway.core.estimate import OUTPUT_AT_FIRST, Estimates
from gateway.core.exchange import Exchange
from gateway.core.input_size import InputSize
from gateway.core.limits import Limit, Meter, Per
from gateway.core.pricing import Price, PriceTerms
from gateway.core.request import ParsedRequest
from gateway.core.request_fields import TOKENS_MAX
from gateway.core.reservation import CHARGE_MAX, AdmissionRequest, LimitStatus, Refusal, RefusalReason, Reservation
from gateway.core.snapshot import Model
from gateway.stages.admit import MOST_WITHOUT_CAP, admission_request, admitted, ask, refused_at_once
from tests.unit.fakes import CALLER, MODEL, NOW_MS, Ledgers, amount_of, body_of, exchange_of, limit, target

INPUT = 100


def asked(*limits: Limit, model: Model = MODEL, expected: int = OUTPUT_AT_FIRST, **members: Any) -> AdmissionRequest:
    """What the store is asked for a request of 100 tokens of input."""
    caller = msgspec.structs.replace(CALLER, limits=limits)
    exchange, parsed = exchange_of(body_of(**members), model=model, caller=caller)
    exchange.estimated_input = INPUT
    return admission_request(exchange, parsed, parsed.binding.limits_for(parsed.user), expected)


async def reserved(
    exchange: Exchange, parsed: ParsedRequest, store: Ledgers, estimates: Estimates | None = None
) -> Reservation:
    """What the request is given by the store, as the pipeline asks it."""
    asked = ask(exchange, parsed, estimates or Estimates(), parsed.user)
    assert refused_at_once(exchange, parsed, asked, store) is None
    return admitted(exchange, parsed, await store.admit(asked))


def amount(of: Limit, **members: Any) -> int:
    """What one limit bears, where the request may produce all that it asks for."""
    ask = asked(of, **members)
    return amount_of(ask.charges[0], ask.most)


@pytest.mark.parametrize(
    ("meter", "per", "expected"),
    [
        (Meter.REQUESTS, Per.MINUTE, 1),
        (Meter.CONCURRENT, None, 1),
        (Meter.TOKENS, Per.MINUTE, 150),
        (Meter.INPUT_TOKENS, Per.DAY, 100),
        (Meter.OUTPUT_TOKENS, Per.DAY, 50),
        (Meter.USD, Per.MONTH, 45),
    ],
)
def test_each_meter_bears_its_own(meter: Meter, per: Per | None, expected: int) -> None:
    assert amount(limit(meter, per), max_tokens=50) == expected


def test_every_choice_may_produce_its_own_output() -> None:
    ask = asked(limit(Meter.TOKENS), max_tokens=50, n=3)
    assert (ask.most, ask.likely, ask.least) == (150, 150, 3)
    assert amount_of(ask.charges[0], ask.most) == 250


ADVISOR = Model("opus", (target(price=Price(input=5_000_000, output=25_000_000)),))


@pytest.mark.parametrize(
    ("meter", "per", "more"),
    [
        (Meter.TOKENS, Per.DAY, 3 * (INPUT + 40)),
        (Meter.INPUT_TOKENS, Per.DAY, 3 * INPUT),
        (Meter.OUTPUT_TOKENS, Per.DAY, 3 * 40),
        (Meter.USD, Per.DAY, 3 * (INPUT * 5 + 40 * 25)),
        (Meter.REQUESTS, Per.DAY, 0),
        (Meter.TOKENS, Per.MINUTE, 0),
    ],
)
def test_what_a_tools_model_may_take_is_held_by_quotas(meter: Meter, per: Per, more: int) -> None:
    def held(*consulted: Consultation) -> int:
        caller = msgspec.structs.replace(CALLER, limits=(limit(meter, per),))
        exchange, parsed = exchange_of(body_of(max_tokens=50), caller=caller)
        exchange.estimated_input = INPUT
        parsed = msgspec.structs.replace(parsed, consulted=consulted)
        ask = admission_request(exchange, parsed, parsed.binding.limits_for(parsed.user), OUTPUT_AT_FIRST)
        return amount_of(ask.charges[0], 50)

    assert held(Consultation(0, "opus", ADVISOR, uses=3, tokens=40)) == held() + more


@pytest.mark.parametrize("meter", [Meter.TOKENS, Meter.USD])
def test_no_use_of_a_tools_model_is_held_for_more_than_a_store_can_count(meter: Meter) -> None:
    caller = msgspec.structs.replace(CALLER, limits=(limit(meter, Per.DAY), limit(Meter.REQUESTS, Per.DAY)))
    exchange, parsed = exchange_of(body_of(max_tokens=50), caller=caller)
    most = Consultation(0, "opus", ADVISOR, uses=TOKENS_MAX - 1, tokens=TOKENS_MAX - 1)
    parsed = msgspec.structs.replace(parsed, consulted=(most,) * 2)
    ask = admission_request(exchange, parsed, parsed.binding.limits_for(parsed.user), OUTPUT_AT_FIRST)
    assert ask.fixed == [CHARGE_MAX, 1]


def test_a_cost_is_rounded_up() -> None:
    cheap = Model("m", (target(price=Price(input=1, output=1)),))
    ask = asked(limit(Meter.USD, Per.DAY), model=cheap, max_tokens=1)
    assert (ask.charges[0].fixed, amount_of(ask.charges[0], 1)) == (1, 2)


PRIORITY = {"priority": PriceTerms({"input": 6_000_000, "output": 24_000_000})}
CHEAP = Price.of(PriceTerms({"input": 1_000_000, "output": 4_000_000}))
DEAR = Price.of(PriceTerms({"input": 3_000_000, "output": 12_000_000}, {50: {"input": 5_000_000}}, tiers=PRIORITY))


@pytest.mark.parametrize(
    ("prices", "members", "fixed", "per_output"),
    [
        ([CHEAP], {}, 100, 4_000_000),
        ([CHEAP, None], {}, 100, 4_000_000),
        ([CHEAP, DEAR], {"service_tier": "default"}, 500, 12_000_000),
        ([CHEAP, DEAR], {"service_tier": "priority"}, 600, 24_000_000),
        ([CHEAP, DEAR], {"service_tier": "auto"}, 600, 24_000_000),
        ([CHEAP, DEAR], {}, 600, 24_000_000),
    ],
)
def test_dollars_are_reserved_at_the_dearest_route_and_tier_that_may_serve(
    prices: list[Price | None], members: dict[str, Any], fixed: int, per_output: int
) -> None:
    model = Model("m", tuple(target(str(number), price=price) for number, price in enumerate(prices)))
    (charge,) = asked(limit(Meter.USD, Per.DAY), model=model, **members).charges
    assert (charge.fixed, charge.per_output) == (fixed, per_output)


@pytest.mark.parametrize(
    ("path", "members", "micro_dollars"),
    [
        ("/v1/images/generations", {"prompt": "A cat", "n": 3}, 120_000),
        ("/v1/images/generations", {"prompt": "A cat"}, 40_000),
        ("/v1/audio/speech", {"input": "Grüße"}, 75),
        ("/v1/rerank", {"query": "q", "documents": ["d"] * 101}, 4_000),
    ],
)
def test_units_that_a_request_asks_for_are_reserved(path: str, members: dict[str, Any], micro_dollars: int) -> None:
    prices = {"image": 40_000_000_000, "character": 15_000_000, "search": 2_000_000_000}
    model = Model("m", (target(price=Price.of(PriceTerms(prices))),))
    caller = msgspec.structs.replace(CALLER, limits=(limit(Meter.USD, Per.DAY),))
    exchange, parsed = exchange_of(body_of(**members), model=model, caller=caller, endpoint=ENDPOINTS[path])
    exchange.estimated_input = 0
    (charge,) = admission_request(exchange, parsed, parsed.binding.limits_for(parsed.user), 0).charges
    assert (charge.fixed, charge.per_output) == (micro_dollars, 0)


def test_without_a_cap_what_answers_lately_needed_is_likely() -> None:
    ask = asked(limit(Meter.TOKENS), expected=200)
    assert (ask.likely, ask.most) == (200, 200 * MOST_WITHOUT_CAP)


def test_the_models_maximum_is_the_most_without_a_cap() -> None:
    capped = msgspec.structs.replace(MODEL, max_output_tokens=500)
    ask = asked(model=capped, expected=200)
    assert (ask.likely, ask.most) == (200, 500)
    short = msgspec.structs.replace(MODEL, max_output_tokens=50)
    ask = asked(model=short, expected=200)
    assert (ask.likely, ask.most) == (50, 50)


def test_a_cap_above_the_models_maximum_is_that_maximum() -> None:
    capped = msgspec.structs.replace(MODEL, max_output_tokens=500)
    ask = asked(model=capped, max_tokens=100_000)
    assert (ask.likely, ask.most) == (500, 500)


@pytest.mark.parametrize(
    ("window", "cap", "most"), [(1_000, None, 800), (350, None, 250), (350, 10_000, 250), (350, 40, 40), (50, None, 1)]
)
def test_without_a_maximum_the_context_leaves_what_the_input_does_not_take(
    window: int, cap: int | None, most: int
) -> None:
    model = msgspec.structs.replace(MODEL, context_window=window)
    members = {} if cap is None else {"max_tokens": cap}
    assert asked(model=model, expected=200, **members).most == most


def test_a_maximum_is_taken_as_it_is_whatever_the_context() -> None:
    model = msgspec.structs.replace(MODEL, context_window=150, max_output_tokens=120)
    assert asked(model=model, expected=200).most == 120


def test_a_large_cap_makes_no_answer_likelier() -> None:
    ask = asked(limit(Meter.TOKENS), expected=200, max_tokens=128_000)
    assert (ask.likely, ask.most) == (200, 128_000)


@pytest.mark.parametrize(
    ("members", "expected", "enough"),
    [
        ({}, 200, 2_048),
        ({}, 5_000, 10_000),
        ({"n": 2}, 5_000, 20_000),
        ({"thinking_budget": 10_000}, 200, 11_024),
        ({"thinking_budget": 10_000, "max_tokens": 10_500}, 200, 11_024),
    ],
)
def test_a_quota_grants_what_answers_need_twice_over_and_room_to_think(
    members: dict[str, Any], expected: int, enough: int
) -> None:
    assert asked(limit(Meter.TOKENS, Per.MONTH), expected=expected, **members).enough == enough


def test_a_quota_must_pay_for_more_than_a_thinking_budget() -> None:
    ask = asked(expected=200, thinking_budget=10_000, max_tokens=16_000)
    assert (ask.least, ask.most) == (10_001, 16_000)
    # Where nothing caps the answer, it may at least do what it was asked for.
    assert asked(expected=200, thinking_budget=10_000).most == 10_001
    assert asked(expected=200, thinking_budget=10_000, max_tokens=9_000).least == 1


async def test_a_quota_that_does_not_pay_for_a_thinking_budget_says_so() -> None:
    exchange, parsed = exchange_of(body_of(thinking_budget=10_000, max_tokens=16_000))
    spent = Refusal(LimitStatus(limit(Meter.TOKENS, Per.MONTH), 1, 0, 0, NOW_MS + 1), 1, RefusalReason.SPENT, 5, NOW_MS)
    with pytest.raises(QuotaSpent, match=r"thinking budget of 10,000 tokens"):
        await reserved(exchange, parsed, Ledgers(spent))


def test_a_small_cap_beside_a_large_one_hides_nothing() -> None:
    assert asked(max_tokens=1, max_completion_tokens=100_000).most == 100_000


def test_an_answer_without_tokens_reserves_none() -> None:
    embeddings = ENDPOINTS["/v1/embeddings"]
    talkative = msgspec.structs.replace(MODEL, max_output_tokens=32_768)
    exchange, parsed = exchange_of(body_of(input="text"), endpoint=embeddings, model=talkative)
    exchange.estimated_input = INPUT
    ask = admission_request(exchange, parsed, parsed.binding.limits_for(parsed.user), 500)
    assert (ask.likely, ask.most, ask.least) == (0, 0, 0)


def test_a_request_that_names_no_user_is_not_charged_at_the_limits_of_one() -> None:
    rate = limit(Meter.TOKENS, Per.MINUTE)
    caller = msgspec.structs.replace(CALLER, limits=(rate,), user_limits=(limit(Meter.USD, Per.DAY),))
    exchange, parsed = exchange_of(body_of(), caller=caller)
    (charge,) = admission_request(exchange, parsed, parsed.binding.limits_for(""), 200).charges
    assert charge.limit == rate
    assert len(admission_request(exchange, parsed, parsed.binding.limits_for("ann"), 200).charges) == 2


@pytest.mark.parametrize(("characters", "charged"), [(8, 50), (100_000, INPUT)])
def test_an_estimate_above_what_a_rate_holds_is_lowered_unless_the_input_is_certainly_more(
    characters: int, charged: int
) -> None:
    rate = msgspec.structs.replace(limit(Meter.INPUT_TOKENS, Per.MINUTE), amount=50, burst=50)
    (charge,) = asked(rate, messages=[{"role": "user", "content": "x" * characters}]).charges
    assert charge.fixed == charged


def test_limits_on_other_models_are_not_charged() -> None:
    others = msgspec.structs.replace(limit(), models=("other/*",))
    assert [charge.limit for charge in asked(others, limit(Meter.TOKENS)).charges] == [limit(Meter.TOKENS)]


async def test_an_admitted_request_knows_its_estimate_and_reservation() -> None:
    exchange, parsed = exchange_of(body_of(messages=[{"role": "user", "content": "x" * 4_000}]))
    estimates, store = Estimates(), Ledgers()
    reservation = await reserved(exchange, parsed, store, estimates)
    assert isinstance(reservation, Reservation)
    assert 1_000 < exchange.estimated_input < 1_050
    assert [ask.id for ask in store.asked] == [exchange.id] != [exchange.request.request_id]


async def test_what_the_model_taught_is_used() -> None:
    exchange, parsed = exchange_of()
    estimates, store = Estimates(), Ledgers()
    for _ in range(16):
        estimates.of(CALLER.team, "m").learn(InputSize(100), 100, 33)
    await reserved(exchange, parsed, store, estimates)
    assert store.asked[0].likely == 33


@pytest.mark.parametrize(
    ("per", "why", "kind"),
    [(Per.MINUTE, RefusalReason.SPENT, RateExceeded), (Per.MONTH, RefusalReason.SPENT, QuotaSpent)],
)
async def test_a_refusal_is_raised(per: Per, why: RefusalReason, kind: type[Exception]) -> None:
    exchange, parsed = exchange_of()
    refused = Refusal(LimitStatus(limit(per=per), 1, 0, 0, NOW_MS + 1), 1, why, 500, NOW_MS)
    with pytest.raises(kind):
        await reserved(exchange, parsed, Ledgers(refused))
    assert exchange.refusal is refused


async def test_what_the_store_repeats_is_refused_before_it_is_asked() -> None:
    exchange, parsed = exchange_of()
    store = Ledgers()
    store.repeated = Refusal(LimitStatus(limit(), 1, 0, 0, NOW_MS + 1), 1, RefusalReason.SPENT, 500, NOW_MS)
    asked = ask(exchange, parsed, Estimates(), parsed.user)
    assert type(refused_at_once(exchange, parsed, asked, store)) is RateExceeded
    assert exchange.asked is asked
    assert exchange.refusal is store.repeated
    assert (store.asked, exchange.store_seconds) == ([], 0)


async def test_a_store_that_is_out_is_told() -> None:
    exchange, parsed = exchange_of()
    with pytest.raises(StoreUnavailable):
        await reserved(exchange, parsed, Ledgers(StoreUnavailable("It is out.")))


def test_a_limit_in_dollars_without_a_price_charges_nothing() -> None:
    free = Model("m", (target(),))
    assert amount(limit(Meter.USD, Per.DAY), model=free, max_tokens=50) == 0
