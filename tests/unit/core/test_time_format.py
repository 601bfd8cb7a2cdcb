from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.time_format import duration_text, rfc3339


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (120, "120ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (1_500, "1.5s"),
        (8_640, "8.64s"),
        (59_001, "59.001s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (90_500, "1m30.5s"),
        (3_600_000, "1h0m0s"),
        (259_200_000, "72h0m0s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(milliseconds: int, text: str) -> None:
    assert duration_text(milliseconds) == text


@given(st.integers(-(10**18), 10**18))
def test_every_time_can_be_written(ms: int) -> None:
    assert rfc3339(ms).endswith("Z")
    assert "T" in rfc3339(ms)


def test_a_time_is_written_to_the_millisecond_in_utc() -> None:
    assert rfc3339(1_793_880_000_007) == "2026-11-05T12:00:00.007Z"
