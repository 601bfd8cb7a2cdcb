from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from gateway.core.errors import NoTarget
from gateway.core.target import Model, Target
from gateway.stages.pick import pick
from tests.unit.fakes import exchange_of, target


def picked(*targets: Target, seed: int = 0) -> list[str]:
    _, envelope = exchange_of(model=Model("m", targets))
    return [each.upstream.name for each in pick(envelope, Random(seed))]


def test_one_target_is_taken() -> None:
    assert picked(target("only")) == ["only"]


def test_a_model_without_targets_is_served_by_nobody() -> None:
    with pytest.raises(NoTarget) as refused:
        picked()
    assert (refused.value.status, bool(refused.value.retry_after_ms)) == (503, True)


def test_lower_priority_numbers_come_first_whatever_their_weight() -> None:
    targets = [target("last", priority=3, weight=1_000), target("first"), target("second", priority=2, weight=1_000)]
    assert all(picked(*targets, seed=seed) == ["first", "second", "last"] for seed in range(50))


def test_every_target_stands_in_the_order_once() -> None:
    targets = [target(str(number), weight=number + 1, priority=1 + number % 2) for number in range(9)]
    for seed in range(50):
        assert sorted(picked(*targets, seed=seed)) == sorted(str(number) for number in range(9))


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 2, 7), (100, 1)])
def test_weights_are_shares_of_the_first_place(weights: tuple[int, ...]) -> None:
    targets = tuple(target(str(number), weight=weight) for number, weight in enumerate(weights))
    _, envelope = exchange_of(model=Model("m", targets))
    dice, rounds = Random(7), 20_000
    firsts = Counter(pick(envelope, dice)[0].upstream.name for _ in range(rounds))
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        # Five standard deviations of a binomial count.
        assert abs(firsts[str(number)] - rounds * share) < 5 * (rounds * share * (1 - share)) ** 0.5


def test_the_rest_is_shuffled_by_weight_too() -> None:
    targets = (target("a", weight=1), target("b", weight=8), target("c", weight=1))
    _, envelope = exchange_of(model=Model("m", targets))
    dice = Random(3)
    orders = Counter(tuple(each.upstream.name for each in pick(envelope, dice)) for _ in range(6_000))
    assert len(orders) == 6
    # After b, both others are as likely.
    assert abs(orders["b", "a", "c"] - orders["b", "c", "a"]) < 350


def test_a_zero_of_the_dice_harms_nobody() -> None:
    class ZeroDice(Random):
        def random(self) -> float:
            return 0.0

    _, envelope = exchange_of(model=Model("m", (target("a"), target("b"))))
    assert len(pick(envelope, ZeroDice())) == 2
