from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.estimate import (
    ATTACHMENT_TOKENS,
    BYTES_PER_TOKEN,
    OUTPUT_AT_FIRST,
    Estimates,
    Estimator,
    readable_size,
)

IMAGE = base64.b64encode(bytes(range(256)) * 400)


def taught(*answers: int, size: int = 0, input_tokens: int = 0) -> Estimator:
    estimator = Estimator()
    for output in answers:
        estimator.learn(size, input_tokens, output)
    return estimator


def test_a_new_model_has_four_bytes_a_token_and_answers_of_1024() -> None:
    estimator = Estimator()
    assert (estimator.input_tokens(4_000), estimator.output_tokens()) == (1_000, OUTPUT_AT_FIRST)


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_tokens_are_rounded_up(size: int, tokens: int) -> None:
    assert Estimator().input_tokens(size) == tokens


def test_the_ratio_is_learned_from_what_requests_needed() -> None:
    estimator = taught(*[10] * 300, size=3_000, input_tokens=1_000)
    assert estimator.input_tokens(3_000) == pytest.approx(1_000, abs=1)


def test_one_odd_request_moves_the_ratio_little_and_never_past_its_bounds() -> None:
    once = taught(1, size=10_000_000, input_tokens=1)
    assert once.input_tokens(4_000) > 850
    absurd = taught(*[1] * 1_000, size=10_000_000, input_tokens=1)
    assert absurd.input_tokens(1_600) >= 100
    dense = taught(*[1] * 1_000, size=1, input_tokens=10_000_000)
    assert dense.input_tokens(1_000) <= 1_000


def test_output_is_a_high_quantile_of_recent_answers() -> None:
    estimator = taught(*range(1, 201))
    assert 180 <= estimator.output_tokens() <= 200


def test_few_answers_do_not_count_yet() -> None:
    assert taught(*[5] * 15).output_tokens() == OUTPUT_AT_FIRST
    assert taught(*[5] * 16).output_tokens() == 5


def test_old_answers_are_forgotten() -> None:
    assert taught(*[100_000] * 100, *[50] * 208).output_tokens() == 50


def test_one_giant_does_not_raise_the_quantile() -> None:
    assert taught(*[50] * 63, 1_000_000).output_tokens() == 50


def test_a_request_without_figures_teaches_nothing() -> None:
    estimator = taught(*[0] * 100, size=0, input_tokens=0)
    estimator.learn(0, 5, 0)
    estimator.learn(5, 0, 0)
    assert (estimator.input_tokens(400), estimator.output_tokens()) == (100, OUTPUT_AT_FIRST)


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7)), max_size=60))
def test_estimates_stay_whole_and_positive(lessons: list[tuple[int, int, int]]) -> None:
    estimator = Estimator()
    for lesson in lessons:
        estimator.learn(*lesson)
    assert 100 <= estimator.input_tokens(1_600) <= 1_600
    assert estimator.output_tokens() >= 1


def test_each_model_has_its_own_estimator() -> None:
    estimates = Estimates()
    estimates.of("a").learn(100, 100, 5)
    assert estimates.of("a") is estimates.of("a")
    assert estimates.of("b").input_tokens(400) == 100 < estimates.of("a").input_tokens(400)


def body_with(url: str) -> bytes:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    return json.dumps([{"role": "user", "content": parts}]).encode()


def test_an_image_in_base64_weighs_as_an_image_not_as_its_letters() -> None:
    body = body_with(f"data:image/png;base64,{IMAGE.decode()}")
    assert readable_size(body) == len(body) - len(IMAGE) + ATTACHMENT_TOKENS * BYTES_PER_TOKEN


def test_an_encoder_may_escape_the_slashes_of_base64() -> None:
    letters = base64.b64encode(b"\xff" * 100_000).decode()
    assert letters.count("/") > 1_000
    escaped = body_with(f"data:image/png;base64,{letters}").replace(b"/", b"\\/").replace(b"image\\/", b"image/")
    assert readable_size(escaped) < 10_000


def test_a_sound_is_an_attachment_too() -> None:
    body = b'[{"input_audio":{"data": "' + IMAGE + b'","format":"wav"}}]'
    assert readable_size(body) < 5_000


def test_each_attachment_counts() -> None:
    one, two = (b",".join([body_with(f"data:image/png;base64,{IMAGE.decode()}")] * count) for count in (1, 2))
    assert readable_size(two) - readable_size(one) > ATTACHMENT_TOKENS * BYTES_PER_TOKEN


@given(st.binary(max_size=3_000))
def test_text_counts_by_its_bytes(text: bytes) -> None:
    if b"base64" not in text and b'"data"' not in text:
        assert readable_size(text) == len(text)


def test_words_about_base64_are_words() -> None:
    text = b"the header says ;base64, and then " + b"many words " * 1_000
    assert readable_size(text) == len(text)


@pytest.mark.parametrize(
    "piece",
    [b";base64,", b'"data": "', b";base64," + b"A" * 2_047, b";base64," + b"A" * 2_047 + b'"', b";base64,\\", b"AAAA"],
)
def test_a_hostile_text_costs_no_more_than_its_length(piece: bytes) -> None:
    # A search that looks at each byte again and again does not end in the time that a test may take.
    text = b";base64," + piece * (8_000_000 // len(piece))
    assert 0 < readable_size(text) <= len(text)
