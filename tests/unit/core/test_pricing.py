from __future__ import annotations

import random
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.pricing import FEMTO_PER_MICRO, PRICE_NAMES, Price, PriceTerms, ceiling, rates_at
from gateway.core.usage import Usage
from tests.exact_cost import DOLLAR, MILLION, exact_cost
from tests.unit.fakes import PRICE

WRITTEN = PriceTerms(
    {"input": 1_250_000, "output": 10_000_000, "cached_input": 125_000, "audio_input": 40_000_000},
    above={200_000: {"input": 2_500_000, "output": 15_000_000}, 1_000_000: {"input": 4_000_000}},
    tiers={
        "flex": PriceTerms({"input": 625_000, "output": 5_000_000}),
        "priority": PriceTerms({"input": 2_000_000}, above={100: {"output": 30_000_000}}),
    },
)


def test_cost_is_by_the_token_and_cached_input_costs_less() -> None:
    assert PRICE.cost(Usage(MILLION, 0)) == 150_000
    assert PRICE.cost(Usage(0, MILLION)) == 600_000
    assert PRICE.cost(Usage(MILLION, MILLION, cached_input=MILLION)) == 670_000
    assert PRICE.cost(Usage()) == 0


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(MILLION, 0, cache_write=400_000), 1_000_000),
        (Usage(MILLION, 0, cache_write_1h=400_000), 1_000_000),
        (Usage(MILLION, 0, audio_input=400_000), 1_000_000),
        (Usage(MILLION, 0, image_input=400_000), 1_000_000),
        (Usage(MILLION, 0, cached_input=400_000), 1_000_000),
        (Usage(0, MILLION, audio_output=400_000, image_output=100_000, reasoning=500_000), 2_000_000),
        (Usage(images=3, searches=2, audio_ms=1, characters=9), 0),
    ],
)
def test_what_has_no_price_of_its_own_costs_what_text_costs(usage: Usage, cost: int) -> None:
    assert Price(MILLION, 2 * MILLION).cost(usage) == cost


@pytest.mark.parametrize(
    ("prices", "usage", "cost"),
    [
        ({"cache_write": 1_250_000, "cache_write_1h": 2_000_000}, Usage(30, 0, cache_write=10, cache_write_1h=10), 43),
        ({"audio_input": 40 * MILLION, "image_input": 5 * MILLION}, Usage(30, 0, audio_input=10, image_input=10), 460),
        (
            {"audio_output": 80 * MILLION, "image_output": 9 * MILLION},
            Usage(0, 30, audio_output=9, image_output=9),
            825,
        ),
        ({"request": 5_000_000_000}, Usage(), 5_000),
        ({"image": DOLLAR // 25}, Usage(images=3), 120_000),
        ({"search": DOLLAR // 100}, Usage(searches=2), 20_000),
        ({"second": DOLLAR // 10_000}, Usage(audio_ms=9_200), 920),
        ({"second": 1_000_000}, Usage(audio_ms=499), 0),
        ({"second": 1_000_000}, Usage(audio_ms=500), 1),
        ({"character": 15 * MILLION}, Usage(characters=1_000), 15_000),
    ],
)
def test_each_kind_has_its_price(prices: dict[str, int], usage: Usage, cost: int) -> None:
    assert Price.of(PriceTerms({"input": MILLION, "output": 2 * MILLION, **prices})).cost(usage) == cost


def test_a_cached_token_of_sound_is_charged_once() -> None:
    price = Price(MILLION, 0, cached_input=100_000, audio_input=10 * MILLION)
    # 100 tokens, of which 90 are sound and 80 cached: at most 20 can be sound that was not cached.
    assert price.cost(Usage(100, 0, cached_input=80, audio_input=90)) == 8 + 200


@pytest.mark.parametrize(
    ("tokens", "tier", "input_price", "output_price"),
    [
        (200_000, "", 1_250_000, 10_000_000),
        (200_001, "", 2_500_000, 15_000_000),
        (1_000_001, "", 4_000_000, 10_000_000),
        (200_001, "unheard-of", 2_500_000, 15_000_000),
        (300_000, "flex", 625_000, 5_000_000),
        (100, "priority", 2_000_000, 10_000_000),
        (101, "priority", 2_000_000, 30_000_000),
    ],
)
def test_one_list_prices_the_whole_request(tokens: int, tier: str, input_price: int, output_price: int) -> None:
    found = Price.of(WRITTEN).list_for(Usage(tokens, 1, service_tier=tier))
    assert (found.input, found.output) == (input_price, output_price)


def test_a_list_takes_what_it_leaves_out_from_the_one_that_it_belongs_to() -> None:
    flex = Price.of(WRITTEN).tiers["flex"]
    assert (flex.cached_input, flex.audio_input, flex.cache_write, flex.image_output) == (
        125_000,
        40_000_000,
        625_000,
        5_000_000,
    )
    step = Price.of(PriceTerms({"input": 1, "output": 2}, above={10: {"input": 3}})).above[0].price
    assert (step.cached_input, step.cache_write, step.audio_output) == (3, 3, 2)


def test_a_free_part_is_free() -> None:
    assert Price(MILLION, MILLION, cached_input=0).cost(Usage(10, 0, cached_input=10)) == 0


def test_the_lines_say_what_the_cost_consists_of() -> None:
    usage = Usage(300_000, 1_000, cached_input=100_000, searches=1)
    lines = {line.name: line for line in Price.of(WRITTEN).lines(usage)}
    assert sorted(lines) == ["cached_input", "input", "output"]
    assert (lines["input"].quantity, lines["input"].price, lines["input"].unit) == (200_000, 2_500_000, "token")
    assert lines["input"].amount == 500_000 * FEMTO_PER_MICRO


def random_terms(dice: random.Random, depth: int = 0) -> PriceTerms:
    def prices(names: list[str]) -> dict[str, int]:
        return {
            name: dice.choice([0, 1, dice.randrange(10**3), dice.randrange(10**9), dice.randrange(10**12)])
            for name in names
        }

    base = prices(["input", "output"] if not depth else dice.sample(["input", "output"], dice.randrange(3)))
    base |= prices(dice.sample(PRICE_NAMES[2:], dice.randrange(len(PRICE_NAMES) - 1)))
    above = {
        dice.randrange(10**6): prices(dice.sample(PRICE_NAMES, dice.randrange(4))) for _ in range(dice.randrange(3))
    }
    tiers = {name: random_terms(dice, 1) for name in ("flex", "priority", "fast") if not depth and dice.random() < 0.5}
    regions = {name: dice.randrange(1, 3_000) for name in ("us", "eu") if not depth and dice.random() < 0.5}
    return PriceTerms(base, above, tiers, regions)


def random_usage(dice: random.Random) -> Usage:
    entered, output = (
        dice.choice([0, dice.randrange(10), dice.randrange(10**4), dice.randrange(2 * 10**6)]) for _ in range(2)
    )
    cached = dice.randrange(entered + 1) * dice.randrange(2)
    write = dice.randrange(entered - cached + 1) * dice.randrange(2)
    audio, image = dice.randrange(entered + 1) * dice.randrange(2), dice.randrange(entered + 1) * dice.randrange(2)
    return Usage(
        entered,
        output,
        cached,
        cache_write=write,
        cache_write_1h=dice.randrange(entered - cached - write + 1) * dice.randrange(2),
        audio_input=audio,
        image_input=image,
        audio_output=dice.randrange(output + 1),
        image_output=dice.randrange(output + 1),
        images=dice.randrange(4),
        searches=dice.randrange(4),
        audio_ms=dice.randrange(10**5),
        characters=dice.randrange(10**4),
        service_tier=dice.choice(["", "flex", "priority", "fast", "default"]),
        region=dice.choice(["", "us", "eu", "global"]),
    )


def test_ten_thousand_costs_are_exact_to_the_micro_dollar() -> None:
    dice = random.Random(20_261)
    for _ in range(10_000):
        terms, usage = random_terms(dice), random_usage(dice)
        price, exact = Price.of(terms), exact_cost(terms, usage)
        assert price.cost(usage) == (exact + Fraction(1, 2)).__floor__(), (terms, usage)
        assert sum(line.amount for line in price.lines(usage)) == exact * FEMTO_PER_MICRO


CLAUDE = PriceTerms(
    {
        "input": 5_000_000,
        "output": 25_000_000,
        "cached_input": 500_000,
        "cache_write": 6_250_000,
        "cache_write_1h": 10_000_000,
        "search": 10_000_000_000,
    },
    tiers={"fast": PriceTerms({"input": 30_000_000, "output": 150_000_000})},
    regions={"us": 1_100},
)


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(100, 10, region="us"), 825),
        (Usage(100, 10, region="global"), 750),
        (Usage(100, 10), 750),
        (Usage(100, 0, cached_input=40, cache_write=30, cache_write_1h=20, region="us"), 503),  # 502.5 + 0.75
        (Usage(100, 10, searches=2, region="us"), 825 + 20_000),
        (Usage(100, 10, service_tier="fast", region="us"), 4_950),
        (Usage(1, 0, region="us"), 6),  # 5.5
    ],
)
def test_a_region_multiplies_the_prices_of_tokens_and_of_nothing_else(usage: Usage, cost: int) -> None:
    assert Price.of(CLAUDE).cost(usage) == cost


def test_each_inference_of_an_answer_is_charged_by_its_own_input_and_model() -> None:
    sonnet = Price.of(PriceTerms({"input": 3_000_000, "output": 15_000_000}, above={1_000: {"input": 6_000_000}}))
    opus = Price.of(CLAUDE)
    executed, advised = [Usage(900, 10), Usage(1_100, 20)], Usage(800, 100, model="opus")
    usage = Usage(2_800, 130, searches=1, parts=(*executed, advised))
    own = 900 * 3 + 10 * 15 + 1_100 * 6 + 20 * 15
    assert sonnet.cost(usage, {"opus": opus}) == own + 800 * 5 + 100 * 25
    assert sonnet.cost(usage, {"haiku": opus}) == own + 800 * 3 + 100 * 15
    assert [(line.name, line.model, line.quantity) for line in sonnet.lines(usage, {"opus": opus})][-2:] == [
        ("input", "opus", 800),
        ("output", "opus", 100),
    ]


def test_what_a_request_costs_by_itself_is_charged_once_for_all_its_inferences() -> None:
    price = Price.of(PriceTerms({"input": MILLION, "request": DOLLAR // 100, "search": DOLLAR // 1_000}))
    assert price.cost(Usage(30, searches=2, parts=(Usage(10), Usage(20)))) == 30 + 10_000 + 2_000


def test_the_parts_of_an_answer_are_rounded_together() -> None:
    half = Price(input=500_000, output=0)
    assert half.cost(Usage(3, parts=(Usage(1), Usage(1), Usage(1)))) == half.cost(Usage(3)) == 2


def test_many_small_requests_cost_what_their_sum_does_but_for_half_a_millionth_each() -> None:
    price = Price.of(PriceTerms({"input": 37_500, "output": 150_000}, regions={"us": 1_100}))
    dice = random.Random(9)
    usages = [Usage(dice.randrange(900), dice.randrange(300), region=dice.choice(["", "us"])) for _ in range(1_000)]
    exact = sum(line.amount for usage in usages for line in price.lines(usage))
    assert abs(sum(map(price.cost, usages)) * FEMTO_PER_MICRO - exact) <= len(usages) * FEMTO_PER_MICRO // 2


def test_costs_are_exact_at_each_step_beside_it_and_where_they_are_rounded() -> None:
    dice = random.Random(411)
    for _ in range(1_500):
        terms = random_terms(dice)
        price = Price.of(terms)
        steps = {0, *terms.above, *(step for tier in terms.tiers.values() for step in tier.above)}
        for entered in {max(0, step + beside) for step in steps for beside in (-1, 0, 1)} | {10**12}:
            usage = msgspec.structs.replace(random_usage(dice), input=entered)
            assert price.cost(usage) == (exact_cost(terms, usage) + Fraction(1, 2)).__floor__(), (terms, usage)
    for halves in range(1, 12):
        half = Price(input=500_000, output=0)  # Half a micro-dollar.
        assert (
            half.cost(Usage(halves))
            == (exact_cost(PriceTerms({"input": 500_000}), Usage(halves)) + Fraction(1, 2)).__floor__()
        )


def reserved(prices: list[Price], asked: str, expected: Usage, output: int) -> int:
    """What is held for a request with these units and so much output, in micro-dollars."""
    rates = rates_at(ceiling(prices, asked), expected.input)
    tokens = (expected.input * rates.input, output * rates.output)
    return rates.without_tokens(expected) - sum(-pico // MILLION for pico in tokens)


SERVED = {
    "": ["", "default", "flex", "priority"],
    "auto": ["", "default", "flex", "priority"],
    "default": ["", "default", "standard", "unheard-of"],
    "unheard-of": ["", "default", "unheard-of"],
    "flex": ["", "default", "flex"],
    "priority": ["", "default", "priority"],
    "fast": ["", "standard", "fast"],
}
"""At which tiers a request may be answered, by the one that it asks for."""


def test_no_request_costs_more_than_what_is_reserved_whichever_route_and_tier_serve_it() -> None:
    dice = random.Random(7)
    compared = 0
    for _ in range(2_500):
        prices = [Price.of(random_terms(dice)) for _ in range(dice.randint(1, 3))]
        asked, most = dice.choice(list(SERVED)), random_usage(dice)
        for used in (random_usage(dice) for _ in range(8)):
            usage = msgspec.structs.replace(
                used,
                images=dice.randint(0, most.images),
                searches=dice.randint(0, most.searches),
                audio_ms=0,
                characters=dice.randint(0, most.characters),
                service_tier=dice.choice(SERVED[asked]),
            )
            if usage.input <= most.input:
                compared += 1
                held = reserved(prices, asked, most, usage.output)
                assert max(price.cost(usage) for price in prices) <= held, (prices, asked, most, usage)
    assert compared > 10_000


@given(st.integers(0, 2 * 10**6), st.integers(0, 10**6))
def test_for_text_alone_the_cost_is_reserved_and_no_more(entered: int, output: int) -> None:
    price = Price(150_000, 600_000)
    held = reserved([price], "", Usage(entered), output)
    assert 0 <= held - price.cost(Usage(entered, output)) <= 2


@pytest.mark.parametrize(
    ("asked", "entered", "input_price", "output_price"),
    [
        ("default", 1_000, 40_000_000, 10_000_000),
        ("default", 200_000, 40_000_000, 10_000_000),
        ("default", 200_001, 40_000_000, 15_000_000),
        ("flex", 1_000, 40_000_000, 10_000_000),
        ("priority", 100, 40_000_000, 10_000_000),
        ("priority", 101, 40_000_000, 30_000_000),
        ("", 101, 40_000_000, 30_000_000),
        ("fast", 101, 40_000_000, 10_000_000),
    ],
)
def test_the_ceiling_is_the_dearest_list_that_may_be_reached(
    asked: str, entered: int, input_price: int, output_price: int
) -> None:
    rates = rates_at(ceiling([Price.of(WRITTEN)], asked), entered)
    assert (rates.input, rates.output) == (input_price, output_price)


def test_a_prompt_may_be_written_to_the_dearest_cache() -> None:
    price = Price.of(PriceTerms({"input": 3 * MILLION, "cache_write": 3_750_000, "cache_write_1h": 6 * MILLION}))
    assert reserved([price], "", Usage(1_000), 0) == price.cost(Usage(1_000, cache_write_1h=1_000)) == 6_000


def test_the_fast_mode_costs_more_only_where_it_is_asked_for() -> None:
    price = Price.of(PriceTerms({"output": 5}, tiers={"fast": PriceTerms({"output": 30})}))
    assert [ceiling([price], asked)[0].output for asked in ("", "auto", "standard_only", "fast")] == [5, 5, 5, 30]


def test_equal_prices_have_equal_hashes() -> None:
    assert hash(Price.of(WRITTEN)) == hash(Price.of(WRITTEN))
    assert len({Price.of(WRITTEN), Price.of(WRITTEN), Price(1, 1)}) == 2
