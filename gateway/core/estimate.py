"""How many tokens a request will need, learned from what requests needed.

Input is estimated from its size (input_size.py) with a ratio; output is a high quantile of recent answers. Both
are learned for each model and team by itself: what one team asks must not change what another team's requests
reserve. Both are only the reservation: settlement charges what the upstream reports.
"""

from __future__ import annotations

from collections import deque

from gateway.core.input_size import InputSize

CHARACTERS_PER_TOKEN = 4.0
"""Where an estimator begins: English text in common tokenizers has about four characters a token."""

CHARACTERS_PER_STREAMED_TOKEN = 5
"""Of text alone. English in recent tokenizers has a little less, code has fewer."""

OUTPUT_AT_FIRST = 1024
"""Tokens of output to expect before a model has answered anything."""

TOKENS_PER_SECOND_AT_FIRST = 30.0
"""How fast a model is taken to write before it has answered anything."""

ESTIMATORS_MAX = 10_000
"""Pairs of team and model that are remembered; of more the one that was used longest ago is forgotten."""

_RECENT = 200
_QUANTILE = 0.95
_RECOUNT_EVERY = 16
_RATIO_STEP = 0.05
_RATIO_BOUNDS = (1.0, 16.0)
_SPEED_STEP = 0.1
_SPEED_MAX = 10_000.0


class Estimator:
    """What one team's requests to one model have needed."""

    def __init__(self) -> None:
        self._characters_per_token = CHARACTERS_PER_TOKEN
        self._outputs: deque[int] = deque(maxlen=_RECENT)
        self._output = OUTPUT_AT_FIRST
        self._since_recount = 0
        self._tokens_per_second = TOKENS_PER_SECOND_AT_FIRST

    def input_tokens(self, size: InputSize) -> int:
        """Tokens in an input of this size, rounded up."""
        return size.attached - int(-size.text // self._characters_per_token)

    def output_tokens(self) -> int:
        """Tokens that nearly all recent answers stayed within."""
        return self._output

    def output_within(self, seconds: float) -> int:
        """Tokens that the model writes in so many seconds."""
        return int(seconds * self._tokens_per_second)

    def learn(self, size: InputSize, input_tokens: int, output_tokens: int, seconds: float = 0.0) -> None:
        """Take in what one request needed, as its upstream reported it, and how long the answer took. Attachments
        say nothing of the text beside them."""
        if size.text and input_tokens and not size.attached:
            low, high = _RATIO_BOUNDS
            seen = min(max(size.text / input_tokens, low), high)
            self._characters_per_token += _RATIO_STEP * (seen - self._characters_per_token)
        if not output_tokens:
            return
        if seconds > 0:
            speed = min(output_tokens / seconds, _SPEED_MAX)
            self._tokens_per_second += _SPEED_STEP * (speed - self._tokens_per_second)
        self._outputs.append(output_tokens)
        self._since_recount += 1
        if self._since_recount >= _RECOUNT_EVERY:
            self._recount()

    def _recount(self) -> None:
        self._since_recount = 0
        ranked = sorted(self._outputs)
        self._output = ranked[min(len(ranked) - 1, int(len(ranked) * _QUANTILE))]


class Estimates:
    """An estimator for each team and model."""

    def __init__(self) -> None:
        self._estimators: dict[tuple[str, str], Estimator] = {}

    def of(self, team: str, model: str) -> Estimator:
        estimator = self._estimators.pop((team, model), None)
        if estimator is None:
            estimator = Estimator()
            if len(self._estimators) >= ESTIMATORS_MAX:
                del self._estimators[next(iter(self._estimators))]
        self._estimators[team, model] = estimator
        return estimator


def least_tokens(size: InputSize) -> int:
    """Tokens that an input of this size has at the least, whatever its tokenizer."""
    return size.attached - int(-size.text // _RATIO_BOUNDS[1])


def streamed_tokens(events: int, weight: int) -> int:
    """Tokens in what a stream delivered: servers send an event a token, or several tokens in a longer one, as with
    speculative decoding. `weight` is that of the events' text, in plain characters."""
    return max(events, weight // CHARACTERS_PER_STREAMED_TOKEN)
