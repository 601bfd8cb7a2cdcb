"""The fuzzing targets hold for their corpus, and for what hypothesis makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = {name: sorted((Path(__file__).parent / "corpus" / name).iterdir()) for name in TARGETS}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_corpus(name: str) -> None:
    assert CORPUS[name], "a target without a corpus begins from nothing"
    for file in CORPUS[name]:
        TARGETS[name](file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_what_is_like_its_corpus(name: str) -> None:
    texts = [file.read_bytes() for file in CORPUS[name]]

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(texts), st.integers(0, 4000), st.integers(0, 20), st.binary(max_size=20))
    def holds(text: bytes, place: int, dropped: int, added: bytes) -> None:
        TARGETS[name](text[:place] + added + text[place + dropped :])

    holds()
