"""The APIs that the demo upstream speaks, as one table: a path and how its answers look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gateway.demo import chat
from gateway.demo.event import Event
from gateway.demo.turn import Turn


class Shape(NamedTuple):
    """`done` is the payload of the last event of a stream, empty where the API has none."""

    plain: Callable[[Turn], dict[str, Any]]
    stream: Callable[[Turn], Iterator[Event]]
    error: Callable[[int, str], dict[str, Any]]
    done: bytes = b"[DONE]"


SHAPES: dict[str, Shape] = {
    "/v1/chat/completions": Shape(chat.plain, chat.stream, chat.error),
}
