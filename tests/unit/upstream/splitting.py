"""Bytes cut into pieces, at any places."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

cuts = st.lists(st.integers(0, 1_000), max_size=12)


def split(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(places)]
