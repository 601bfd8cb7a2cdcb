from collections.abc import Callable

import pytest

from gateway.core.remembered import remembered


class Squares:
    """Computes squares, of numbers that are not negative, and notes of which."""

    def __init__(self, most: int) -> None:
        self.asked: list[int] = []
        self.square: Callable[[int], int] = remembered(most)(self._compute)

    def _compute(self, number: int) -> int:
        self.asked.append(number)
        if number < 0:
            raise ValueError(f"{number} is negative")
        return number * number


def test_a_value_is_computed_once() -> None:
    squares = Squares(most=2)
    assert [squares.square(each) for each in (3, 0, 3, 0)] == [9, 0, 9, 0]
    assert squares.asked == [3, 0]


def test_no_more_values_are_held_than_may_be() -> None:
    squares = Squares(most=2)
    assert [squares.square(each) for each in (1, 2, 3, 3, 1)] == [1, 4, 9, 9, 1]
    # The third was one too many: all before it are forgotten.
    assert squares.asked == [1, 2, 3, 1]


def test_what_comes_again_and_again_is_seldom_computed_among_ever_new_arguments() -> None:
    squares = Squares(most=100)
    for other in range(1, 1_000):
        squares.square(0)
        squares.square(other)
    assert squares.asked.count(0) <= 11


def test_an_error_is_not_remembered() -> None:
    squares = Squares(most=2)
    for _ in range(2):
        with pytest.raises(ValueError, match="is negative"):
            squares.square(-1)
    assert squares.asked == [-1, -1]


def test_what_is_not_to_be_remembered_is_computed_each_time() -> None:
    asked: list[str] = []

    @remembered(1, lambda text: len(text) < 3)
    def shouted(text: str) -> str:
        asked.append(text)
        return text.upper()

    assert [shouted(each) for each in ("ab", "abc", "abc", "ab")] == ["AB", "ABC", "ABC", "AB"]
    assert asked == ["ab", "abc", "abc"]
