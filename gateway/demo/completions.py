"""Legacy completions, plain and streamed, as in OpenAI's API reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.demo.chat import usage
from gateway.demo.event import Event
from gateway.demo.turn import Turn

Json = dict[str, Any]


def plain(turn: Turn) -> Json:
    answer = _envelope(turn) | {
        "choices": [_choice(index, "".join(turn.tokens), _finish(turn)) for index in range(turn.choices)]
    }
    if turn.script.usage != "never":
        answer["usage"] = usage(turn.counts())
    return answer


def stream(turn: Turn) -> Iterator[Event]:
    """For each token an event, an end for each choice, and usage if the request asks for it."""
    parsed = _envelope(turn)
    choices = range(turn.choices)
    for token in turn.tokens:
        for index in choices:
            yield Event({**parsed, "choices": [_choice(index, token)]}, tokens=1)
    for index in choices:
        yield Event({**parsed, "choices": [_choice(index, "", _finish(turn))]})
    if turn.script.usage == "always" or (turn.script.usage == "asked" and turn.asks_usage):
        yield Event({**parsed, "choices": [], "usage": usage(turn.counts())}, reports=True)


def _envelope(turn: Turn) -> Json:
    return {
        "id": f"cmpl-{turn.number:024x}",
        "object": "text_completion",
        "created": turn.created,
        "model": turn.asked.model,
    }


def _choice(index: int, text: str, finish: str | None = None) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _finish(turn: Turn) -> str:
    return "length" if turn.capped else "stop"
