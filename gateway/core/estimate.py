"""How many tokens a request will need, learned from what requests needed.

Input is estimated from bytes with a ratio for each model; output is a high quantile of the model's
recent answers. Both are only the reservation: settlement charges what the upstream reports.
"""

from __future__ import annotations

import re
from collections import deque

BYTES_PER_TOKEN = 4.0
"""Where a model begins: English text in common tokenizers has about four bytes a token."""

OUTPUT_AT_FIRST = 1024
"""Tokens of output to expect before a model has answered anything."""

ATTACHMENT_TOKENS = 1_000
"""What an image or a sound in base64 counts for, whatever its bytes (OpenAI's vision guide: 85 to 1,445 an image)."""

BYTES_PER_STREAMED_TOKEN = 5
"""Of text alone. English in recent tokenizers has a little less, other languages and code have fewer."""

_RECENT = 200
_QUANTILE = 0.95
_RECOUNT_EVERY = 16
_RATIO_STEP = 0.05
_RATIO_BOUNDS = (1.0, 16.0)
_ATTACHMENT = re.compile(rb'(?:;base64,|"data": ?")([A-Za-z0-9+/\\=_-]{2048,})')
"""Base64 in a JSON string, where some encoders write a backslash before a slash."""


class Estimator:
    """What one model's requests have needed."""

    def __init__(self) -> None:
        self._bytes_per_token = BYTES_PER_TOKEN
        self._outputs: deque[int] = deque(maxlen=_RECENT)
        self._output = OUTPUT_AT_FIRST
        self._since_recount = 0

    def input_tokens(self, size: int) -> int:
        """Tokens in so many bytes of input, rounded up."""
        return -int(-size // self._bytes_per_token)

    def output_tokens(self) -> int:
        """Tokens that nearly all recent answers stayed within."""
        return self._output

    def learn(self, size: int, input_tokens: int, output_tokens: int) -> None:
        """Take in what one request needed, as its upstream reported it."""
        if size and input_tokens:
            low, high = _RATIO_BOUNDS
            seen = min(max(size / input_tokens, low), high)
            self._bytes_per_token += _RATIO_STEP * (seen - self._bytes_per_token)
        if output_tokens:
            self._outputs.append(output_tokens)
            self._since_recount += 1
            if self._since_recount >= _RECOUNT_EVERY:
                self._recount()

    def _recount(self) -> None:
        self._since_recount = 0
        ranked = sorted(self._outputs)
        self._output = ranked[min(len(ranked) - 1, int(len(ranked) * _QUANTILE))]


class Estimates:
    """One estimator for each model's name; the names come from the configuration, so they are few."""

    def __init__(self) -> None:
        self._models: dict[str, Estimator] = {}

    def of(self, model: str) -> Estimator:
        estimator = self._models.get(model)
        if estimator is None:
            estimator = self._models[model] = Estimator()
        return estimator


def streamed_tokens(events: int, text_bytes: int) -> int:
    """Tokens in what a stream delivered: servers send an event a token, or several tokens in a longer one, as with
    speculative decoding."""
    return max(events, text_bytes // BYTES_PER_STREAMED_TOKEN)


def readable_size(text: bytes) -> int:
    """Bytes that count as text: long runs of base64 weigh as the attachments that they are."""
    if len(text) < 2048 or (b"base64" not in text and b'"data"' not in text):
        return len(text)
    runs = [len(run) for run in _ATTACHMENT.findall(text)]
    return len(text) - sum(runs) + len(runs) * int(ATTACHMENT_TOKENS * BYTES_PER_TOKEN)
