"""What a stream may deliver before a quota with `when_spent: stop` is spent."""

from __future__ import annotations

import msgspec

from gateway.core.endpoints import StreamFormat
from gateway.core.estimate import streamed_tokens
from gateway.core.stream_format import ending_at_cap, event_weight
from gateway.core.usage import Usage, UsageSource


class OutputBudget:
    """Counts the text of a stream, says when the next event is too much, and writes the end of the stream.

    `output` is in tokens over all choices, `input` is the estimate of the request's. Tokens are estimated from the
    text of each event. An upstream that keeps to the cap that it was given ends by itself before the budget does.
    """

    def __init__(self, shape: StreamFormat, *, output: int, input_tokens: int, choices: int = 1) -> None:
        self._shape = shape
        self._output = output
        self._input = input_tokens
        self._choices = choices
        self._events = 0
        self._weight = 0
        self._opening: bytes | None = None

    @property
    def delivered(self) -> int:
        """Tokens of the events that were admitted."""
        return streamed_tokens(self._events, self._weight)

    def admits(self, data: bytes) -> bool:
        """Whether the event with this data may be delivered; if so, it is counted."""
        if self._opening is None:
            self._opening = data
        weight = event_weight(self._shape, data)
        if not weight:
            return True
        if streamed_tokens(self._events + 1, self._weight + weight) > self._output:
            return False
        self._events += 1
        self._weight += weight
        return True

    def usage(self, so_far: Usage) -> Usage:
        """What the stream has used: its output as it was delivered, its input as it was reported `so_far` or else the
        estimate, and all that has its own price, such as cached input, as far as it is known."""
        output = self.delivered
        audio = min(so_far.audio_output, output)
        return msgspec.structs.replace(
            so_far,
            input=so_far.input or self._input,
            output=output,
            reasoning=min(so_far.reasoning, output),
            audio_output=audio,
            image_output=min(so_far.image_output, output - audio),
            source=UsageSource.ESTIMATED,
            parts=(),
        )

    def ending(self, data: bytes, usage: Usage, *, merge: bool) -> bytes:
        """The events that end the stream in place of the event with this data."""
        return ending_at_cap(self._shape, self._opening or b"", data, usage, choices=self._choices, merge=merge)
