from __future__ import annotations

import msgspec
import pytest

from gateway.core.limits import Limit, Meter, Mode, Per, Scope, WhenSpent, charged_by_use

MONTHLY = Limit("month", Scope.TEAM, "search", Meter.TOKENS, Per.MONTH, 1_000, 1_000, "search")


@pytest.mark.parametrize(
    ("per", "is_rate", "is_quota"),
    [(Per.SECOND, True, False), (Per.HOUR, True, False), (Per.DAY, False, True), (Per.TOTAL, False, True),
     (None, False, False)],
)  # fmt: skip
def test_a_limit_is_a_rate_or_a_quota_by_its_window(per: Per | None, is_rate: bool, is_quota: bool) -> None:
    limit = msgspec.structs.replace(MONTHLY, per=per)
    assert (limit.is_rate, limit.is_quota) == (is_rate, is_quota)


def test_grants_add_to_the_amount_and_to_the_burst() -> None:
    raised = msgspec.structs.replace(MONTHLY, burst=1_200).raised(50)
    assert (raised.amount, raised.burst, raised.granted) == (1_050, 1_250, 50)
    assert MONTHLY.raised(0) is MONTHLY


def test_another_amount_or_mode_keeps_the_counter_and_another_meter_begins_a_new_one() -> None:
    changed = msgspec.structs.replace(MONTHLY.raised(50), mode=Mode.SHADOW, when_spent=WhenSpent.STOP, notify_at=(80,))
    assert changed.identity == MONTHLY.identity
    for other in ({"name": "m"}, {"subject": "ann"}, {"meter": Meter.USD}, {"per": Per.DAY}, {"models": ("m",)}):
        assert msgspec.structs.replace(MONTHLY, **other).identity != MONTHLY.identity


def test_only_an_enforced_limit_ends_a_stream() -> None:
    stops = msgspec.structs.replace(MONTHLY, when_spent=WhenSpent.STOP)
    assert (MONTHLY.stops, stops.stops) == (False, True)
    assert not msgspec.structs.replace(stops, mode=Mode.SHADOW).stops


@pytest.mark.parametrize("meters", [[], [Meter.USD], [Meter.REQUESTS], list(Meter), [Meter.OUTPUT_TOKENS] * 2])
def test_each_limit_is_charged_by_its_meter_however_many_there_are(meters: list[Meter]) -> None:
    charges = {Meter.TOKENS: 57, Meter.INPUT_TOKENS: 12, Meter.OUTPUT_TOKENS: 45, Meter.USD: 9}
    charged = charged_by_use([msgspec.structs.replace(MONTHLY, meter=meter) for meter in meters])
    assert list(charged((0, 57, 12, 45, 9))) == [charges.get(meter, 0) for meter in meters]
