from __future__ import annotations

import pytest

from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.reservation import Hold, Holds, LimitStatuses, Settlement, output_share

DAILY = Limit("day", Scope.TEAM, "search", Meter.USD, Per.DAY, 100, 100, "search")


@pytest.mark.parametrize(("left", "enough", "granted"), [(50, 100, 50), (500, 100, 100), (8_000, 100, 1_000)])
def test_a_quota_grants_an_eighth_of_what_is_left_and_enough_where_there_is_so_much(
    left: int, enough: int, granted: int
) -> None:
    assert output_share(left, enough) == granted


def test_what_is_left_is_never_negative() -> None:
    statuses = LimitStatuses([DAILY, DAILY, DAILY], [90, 100, 130], [9, 0, 5], [0, 0, 0])
    assert [status.left for status in statuses] == [1, 0, 0]


@pytest.mark.parametrize(("capped", "charged"), [(False, 70), (True, 50)])
def test_a_shadow_quota_is_charged_no_more_than_the_output_that_it_would_have_granted(
    capped: bool, charged: int
) -> None:
    holds = Holds.of([Hold(DAILY, 50), Hold(DAILY, 50, capped=capped), Hold(DAILY, 50, capped=capped)])
    assert [*Settlement("r", 0, holds, [70, 70, 30], None).charged] == [70, charged, 30]
