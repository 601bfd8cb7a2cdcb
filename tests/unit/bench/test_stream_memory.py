from __future__ import annotations

from bench.stream_memory import added
from bench.weighed import Held


def test_what_streams_added_is_told_for_each_with_the_most_bytes_first() -> None:
    before = {"list": Held(10, 1_000), "dict": Held(5, 500)}
    after = {"list": Held(30, 2_000), "dict": Held(5, 500), "Stream": Held(10, 4_000)}
    assert added(before, after, streams=10) == [(400, 1, "Stream"), (100, 2, "list"), (0, 0, "dict")]
