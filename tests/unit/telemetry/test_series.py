from __future__ import annotations

import pytest

from gateway.telemetry.series import Observations

BOUNDS = (0.5, 1.0, 2.0)


def counts_of(*values: float) -> list[int]:
    observations = Observations([0] * (len(BOUNDS) + 1))
    observations.add_all(BOUNDS, values)
    assert observations.total == sum(values)
    return observations.counts


@pytest.mark.parametrize(
    "values",
    [
        (),
        (0.5,),
        (2.0, 0.0, 0.5, 0.5, 1.0, 0.75),
        (3.0, 2.0, 2.5, 9.0),
        (1.5, 1.5, 1.25, 7.0, 0.1),
    ],
)
def test_several_values_are_counted_as_one_by_one(values: tuple[float, ...]) -> None:
    one_by_one = Observations([0] * (len(BOUNDS) + 1))
    for value in values:
        one_by_one.add(BOUNDS, value)
    assert counts_of(*values) == one_by_one.counts


def test_a_bound_is_within_its_own_count() -> None:
    assert counts_of(0.5, 1.0, 2.0, 2.1) == [1, 1, 1, 1]
