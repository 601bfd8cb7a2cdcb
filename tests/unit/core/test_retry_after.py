from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.retry_after import read_retry_after

NOW_MS = 1_709_000_000_000  # 2024-02-27T02:13:20Z


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "Tue, 27 Feb 2024 02:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 27 Feb 2024 02:13:00 GMT"}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "inf"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": ""}, 0.0),
        ({"retry-after": "Tue, 27 Feb 99999 02:13:50 GMT"}, 0.0),
    ],
)
def test_a_wait_is_read_in_each_of_its_forms(headers: dict[str, str], seconds: float) -> None:
    assert read_retry_after(headers, NOW_MS) == seconds


@given(st.text(max_size=40))
def test_no_text_is_an_error_or_a_negative_wait(written: str) -> None:
    assert read_retry_after({"retry-after": written}, NOW_MS) >= 0
