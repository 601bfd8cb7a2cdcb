from __future__ import annotations

from itertools import count

import pytest

from gateway.core.traces import RequestTrace, TraceParent, read_traceparent
from tests.unit.fakes import target

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("header", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_a_traceparent_says_the_trace_and_whether_it_is_kept(header: str, is_sampled: bool) -> None:
    assert read_traceparent(header) == TraceParent(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_no_traceparent_is_none(header: str) -> None:
    assert read_traceparent(header) is None


def test_each_attempt_is_told_to_its_upstream_by_an_id_of_its_own() -> None:
    ids = count(1)
    trace = RequestTrace(TRACE, SPAN, lambda: f"{next(ids):016x}")
    told = [trace.begin_attempt(target(name), 1.0) for name in ("one", "other")]
    assert told == [f"00-{TRACE}-{number:016x}-01" for number in (2, 3)]
    assert [attempt.target.upstream.name for attempt in trace.attempts] == ["one", "other"]
