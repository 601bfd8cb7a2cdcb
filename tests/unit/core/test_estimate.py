from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.estimate import (
    ESTIMATORS_MAX,
    LESSONS_TO_SHARE,
    OUTPUT_AT_FIRST,
    TOKENS_PER_SECOND_AT_FIRST,
    Estimates,
    EstimateSubject,
    Estimator,
    LearnedEstimate,
    merged,
)
from gateway.core.input_size import InputSize


def taught(*answers: int, size: int = 0, input_tokens: int = 0) -> Estimator:
    estimator = Estimator()
    for output in answers:
        estimator.learn(InputSize(size), input_tokens, output)
    return estimator


def test_a_new_model_has_four_bytes_a_token_and_answers_of_1024() -> None:
    estimator = Estimator()
    assert (estimator.input_tokens(InputSize(4_000)), estimator.output_tokens()) == (1_000, OUTPUT_AT_FIRST)


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_tokens_are_rounded_up(size: int, tokens: int) -> None:
    assert Estimator().input_tokens(InputSize(size)) == tokens


def test_the_ratio_is_learned_from_what_requests_needed() -> None:
    estimator = taught(*[10] * 300, size=3_000, input_tokens=1_000)
    assert estimator.input_tokens(InputSize(3_000)) == pytest.approx(1_000, abs=1)


def test_one_odd_request_moves_the_ratio_little_and_never_past_its_bounds() -> None:
    once = taught(1, size=10_000_000, input_tokens=1)
    assert once.input_tokens(InputSize(4_000)) > 850
    absurd = taught(*[1] * 1_000, size=10_000_000, input_tokens=1)
    assert absurd.input_tokens(InputSize(1_600)) >= 100
    dense = taught(*[1] * 1_000, size=1, input_tokens=10_000_000)
    assert dense.input_tokens(InputSize(1_000)) <= 1_000


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
    estimator.learn(InputSize(0), 5, 0)
    estimator.learn(InputSize(5), 0, 0)
    assert (estimator.input_tokens(InputSize(400)), estimator.output_tokens()) == (100, OUTPUT_AT_FIRST)


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7)), max_size=60))
def test_estimates_stay_whole_and_positive(lessons: list[tuple[int, int, int]]) -> None:
    estimator = Estimator()
    for lesson in lessons:
        size, entered, output = lesson
        estimator.learn(InputSize(size), entered, output)
    assert 100 <= estimator.input_tokens(InputSize(1_600)) <= 1_600
    assert estimator.output_tokens() >= 1


def test_what_one_team_or_model_teaches_binds_no_other() -> None:
    estimates = Estimates()
    one, other = estimates.of("search", "a"), estimates.of("ads", "a")
    for _ in range(40):
        one.learn(InputSize(100), 100, 30_000)
    assert estimates.of("search", "a") is one is not other
    for untaught in (other, estimates.of("search", "b")):
        assert (untaught.input_tokens(InputSize(400)), untaught.output_tokens()) == (100, OUTPUT_AT_FIRST)
    assert one.input_tokens(InputSize(400)) > 100


def test_the_estimators_that_are_remembered_are_bounded() -> None:
    estimates = Estimates()
    first = estimates.of("team", "model")
    for number in range(ESTIMATORS_MAX):
        estimates.of("team", str(number))
    assert estimates.of("team", "model") is not first


def test_attachments_count_and_teach_nothing() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimator.learn(InputSize(100, attached=1_000), 50_000, 5)
    assert estimator.input_tokens(InputSize(400, attached=1_000)) == 1_100


def test_whatever_may_change_an_estimate_makes_another_revision_of_it() -> None:
    estimator = Estimator()
    seen = [estimator.revision]
    estimator.learn(InputSize(4_000), 2_000, 0)
    seen.append(estimator.revision)
    for _ in range(16):
        estimator.learn(InputSize(0), 0, 7)
    seen.append(estimator.revision)
    estimator.begin_with(learned(2.0))
    seen.append(estimator.revision)
    assert len(set(seen)) == 4
    assert estimator.input_tokens(InputSize(4_000)) == 2_000
    assert estimator.revision == seen[-1]


def test_how_fast_a_model_writes_is_learned() -> None:
    estimator = Estimator()
    assert estimator.output_within(2.0) == int(2 * TOKENS_PER_SECOND_AT_FIRST)
    for _ in range(100):
        estimator.learn(InputSize(100), 25, 500, 5.0)
    assert estimator.output_within(2.0) == pytest.approx(200, abs=2)


SUBJECT = EstimateSubject("search", "a")


def learned(ratio: float, lessons: float = 100, output: float = 50, speed: float = 20) -> LearnedEstimate:
    return LearnedEstimate(lessons, 0, ratio, 4.0, output, speed)


def test_an_estimator_goes_on_where_another_one_ended() -> None:
    teacher = taught(*[80] * 40, size=2_000, input_tokens=1_000)
    pupil = Estimator(teacher.learned)
    assert pupil.input_tokens(InputSize(2_000)) == teacher.input_tokens(InputSize(2_000)) < 1_000
    assert pupil.output_tokens() == teacher.output_tokens() == 80
    assert (pupil.lessons, teacher.lessons) == (0, 40)


def test_what_is_shared_is_what_has_changed_and_was_learned_from_enough() -> None:
    estimates = Estimates()
    much, little = estimates.of(*SUBJECT), estimates.of("ads", "a")
    little.learn(InputSize(100), 100, 5)
    for _ in range(LESSONS_TO_SHARE):
        much.learn(InputSize(100), 100, 5)
    shared = estimates.to_share()
    assert shared == {SUBJECT: much.learned}
    assert estimates.to_share() == shared  # It could not be written.
    estimates.shared(shared)
    assert estimates.to_share() == {}
    much.learn(InputSize(100), 100, 5)
    assert list(estimates.to_share()) == [SUBJECT]


def test_what_others_have_learned_is_where_an_estimator_begins_that_has_learned_nothing() -> None:
    estimates = Estimates()
    asked, taught_itself = estimates.of(*SUBJECT), estimates.of("ads", "a")
    taught_itself.learn(InputSize(400), 100, 5)
    estimates.begin_with({SUBJECT: learned(2.0), EstimateSubject("ads", "a"): learned(1.0)})
    assert asked.input_tokens(InputSize(400)) == 200
    assert taught_itself.input_tokens(InputSize(400)) == 100
    estimates.begin_with({EstimateSubject("new", "a"): learned(8.0)})
    assert estimates.of("new", "a").input_tokens(InputSize(400)) == 50
    assert estimates.of("other", "a").input_tokens(InputSize(400)) == 100


@pytest.mark.parametrize("absurd", [0.0, -1e300, 1.0, 16.0, 1e300, float("nan"), float("inf")])
def test_one_process_does_not_decide_what_all_begin_with(absurd: float) -> None:
    estimates = [
        learned(4.0),
        learned(4.2),
        learned(4.4),
        LearnedEstimate(1e300, 1e300, absurd, absurd, absurd, absurd),
    ]
    result = merged(estimates)
    assert result is not None
    assert 4.0 <= result.characters_per_token <= 4.4
    assert result.output == 50
    assert result.tokens_per_second == 20


def test_who_has_hardly_learned_weighs_less() -> None:
    result = merged([learned(8.0, lessons=4), learned(3.0, lessons=150), learned(9.0, lessons=4)])
    assert result is not None
    assert result.characters_per_token == 3.0


figures = st.floats() | st.floats(0.1, 20_000)


@given(st.lists(st.builds(LearnedEstimate, *[figures] * 6), max_size=8))
def test_whatever_was_written_estimates_stay_within_their_bounds(written: list[LearnedEstimate]) -> None:
    result = merged(written)
    if result is not None:
        assert result.bounded() is not None
        assert 1 <= result.characters_per_token <= 16
        estimator = Estimator(result)
        assert 100 <= estimator.input_tokens(InputSize(1_600)) <= 1_600
        assert estimator.output_tokens() >= 1
        assert 0 <= estimator.output_within(2) <= 20_000


def test_wide_scripts_have_a_ratio_of_their_own() -> None:
    """A team that asks in two languages is estimated well in both."""
    estimator = Estimator()
    for _ in range(100):
        estimator.learn(InputSize(450), 100, 5)
        estimator.learn(InputSize(250, is_wide=True), 100, 5)
    assert estimator.input_tokens(InputSize(450)) == pytest.approx(100, abs=1)
    assert estimator.input_tokens(InputSize(250, is_wide=True)) == pytest.approx(100, abs=1)
    again = Estimator(estimator.learned)
    assert again.input_tokens(InputSize(250, is_wide=True)) == estimator.input_tokens(InputSize(250, is_wide=True))


def test_who_has_not_learned_of_a_script_has_no_say_in_it() -> None:
    result = merged([learned(4.4), learned(4.5), LearnedEstimate(2, 40, 4.6, 2.0, 50, 20)])
    assert result is not None
    assert (result.characters_per_token, result.wide_characters_per_token) == (4.5, 2.0)
