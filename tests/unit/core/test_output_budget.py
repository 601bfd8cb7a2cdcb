"""A budget admits the text that it pays for, and what has no text."""

from __future__ import annotations

import msgspec

from gateway.core.endpoints import StreamFormat
from gateway.core.output_budget import OutputBudget
from gateway.core.usage import Usage, UsageSource

WORD = b'{"choices":[{"index":0,"delta":{"content":"word"}}]}'
ROLE = b'{"choices":[{"index":0,"delta":{"role":"assistant"}}]}'


def test_as_much_text_is_admitted_as_the_budget_has_tokens() -> None:
    budget = OutputBudget(StreamFormat.CHAT, output=2, input_tokens=7)
    assert [budget.admits(WORD) for _ in range(4)] == [True, True, False, False]
    assert budget.delivered == 2


def test_an_event_without_text_is_admitted_by_a_spent_budget() -> None:
    budget = OutputBudget(StreamFormat.CHAT, output=0, input_tokens=7)
    assert (budget.admits(WORD), budget.admits(ROLE), budget.delivered) == (False, True, 0)


def test_the_input_is_what_was_reported_or_else_the_estimate() -> None:
    budget = OutputBudget(StreamFormat.CHAT, output=2, input_tokens=7)
    assert budget.admits(WORD)
    for reported, entered in ((Usage(), 7), (Usage(0, 5), 7), (Usage(21, 5), 21)):
        assert budget.usage(reported) == Usage(entered, 1, source=UsageSource.ESTIMATED)


def test_what_has_a_price_of_its_own_stays_as_it_was_reported() -> None:
    budget = OutputBudget(StreamFormat.CHAT, output=2, input_tokens=7)
    assert budget.admits(WORD)
    reported = Usage(
        900, 40, cached_input=500, cache_write=30, cache_write_1h=20, audio_input=10, image_input=5, reasoning=30,
        audio_output=8, image_output=9, images=1, searches=2, service_tier="priority", region="us",
    )  # fmt: skip
    bounded = {"output": 1, "reasoning": 1, "audio_output": 1, "image_output": 0, "source": UsageSource.ESTIMATED}
    assert budget.usage(reported) == msgspec.structs.replace(reported, **bounded)
