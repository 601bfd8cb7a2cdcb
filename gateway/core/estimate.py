"""How many tokens a request will need, learned from what requests needed.

Input is estimated from its size (input_size.py) with a ratio, one for wide scripts and one for all others; output is a
high quantile of recent answers. All are learned for each model and team by itself: what one team asks must not change
what another team's requests reserve. Both are only the reservation: settlement charges what the upstream reports.

What an estimator has learned is a `LearnedEstimate`. Processes share theirs, so that one that starts does not have to
learn again: it begins with the median of what others have learned, and goes on with what it sees itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import NamedTuple

import msgspec

from gateway.core.input_size import InputSize

CHARACTERS_PER_TOKEN = 4.0
"""The ratio at which an estimator begins: English text in common tokenizers has about four characters a token."""

CHARACTERS_PER_STREAMED_TOKEN = 5
"""Characters a token of text only. English in recent tokenizers has a little less, code has fewer."""

OUTPUT_AT_FIRST = 1024
"""Tokens of output to expect before a model has answered anything."""

TOKENS_PER_SECOND_AT_FIRST = 30.0
"""The assumed speed of a model that has not answered anything yet."""

ESTIMATORS_MAX = 10_000
"""Pairs of team and model that are remembered; beyond that, the one that was used longest ago is forgotten."""

_RECENT = 200
_QUANTILE = 0.95
_RECOUNT_EVERY = 16
_RATIO_STEP = 0.05
_LEAST_RATIO, _MOST_RATIO = 1.0, 16.0
_SPEED_STEP = 0.1
_SPEED_MAX = 10_000.0
_OUTPUT_MAX = 1_000_000

LESSONS_TO_SHARE = _RECOUNT_EVERY
"""Requests that an estimator has learned from before others begin with what it has learned."""

_LESSONS_MAX = 1_000_000
_VOTE = LESSONS_TO_SHARE
"""The most that a process weighs in a median, so that one that has learned from more, or says so, does not outvote
others."""


class EstimateSubject(NamedTuple):
    """The team and the model whose requests are estimated."""

    team: str
    model: str


class LearnedEstimate(msgspec.Struct, frozen=True):
    """What an estimator has learned from so many requests, and from so many in wide scripts."""

    lessons: float
    wide_lessons: float
    characters_per_token: float
    wide_characters_per_token: float
    output: float
    tokens_per_second: float

    @property
    def all_lessons(self) -> float:
        return self.lessons + self.wide_lessons

    def bounded(self) -> LearnedEstimate | None:
        """With every figure within its bounds; None where one is no number. For what other processes wrote."""
        if not all(map(isfinite, msgspec.structs.astuple(self))):
            return None
        low, high = _LEAST_RATIO, _MOST_RATIO
        return LearnedEstimate(
            lessons=min(max(self.lessons, 0.0), _LESSONS_MAX),
            wide_lessons=min(max(self.wide_lessons, 0.0), _LESSONS_MAX),
            characters_per_token=min(max(self.characters_per_token, low), high),
            wide_characters_per_token=min(max(self.wide_characters_per_token, low), high),
            output=min(max(self.output, 1.0), _OUTPUT_MAX),
            tokens_per_second=min(max(self.tokens_per_second, 0.0), _SPEED_MAX),
        )


_NOTHING_LEARNED = LearnedEstimate(
    lessons=0,
    wide_lessons=0,
    characters_per_token=CHARACTERS_PER_TOKEN,
    wide_characters_per_token=CHARACTERS_PER_TOKEN,
    output=OUTPUT_AT_FIRST,
    tokens_per_second=TOKENS_PER_SECOND_AT_FIRST,
)


class Estimator:
    """The estimator for one team's requests to one model."""

    def __init__(self, begins_with: LearnedEstimate = _NOTHING_LEARNED) -> None:
        self._lessons = self._wide_lessons = 0
        """Requests whose input it has learned from by itself."""

        self.revision = 0
        """Another one whenever what it estimates may have changed."""
        self._outputs: deque[int] = deque(maxlen=_RECENT)
        self._since_recount = 0
        self.begin_with(begins_with)

    def begin_with(self, learned: LearnedEstimate) -> None:
        """Estimate by what others have learned, until it has learned more."""
        self.revision += 1
        self._ratio, self._wide_ratio = learned.characters_per_token, learned.wide_characters_per_token
        self._output = int(learned.output)
        self._tokens_per_second = learned.tokens_per_second

    @property
    def lessons(self) -> int:
        """Requests that it has learned from by itself."""
        return self._lessons + self._wide_lessons

    @property
    def learned(self) -> LearnedEstimate:
        lessons, ratios = (self._lessons, self._wide_lessons), (self._ratio, self._wide_ratio)
        return LearnedEstimate(*lessons, *ratios, self._output, self._tokens_per_second)

    def input_tokens(self, size: InputSize) -> int:
        """Tokens in an input of this size, rounded up."""
        return size.attached - int(-size.text // (self._wide_ratio if size.is_wide else self._ratio))

    def output_tokens(self) -> int:
        """Tokens that nearly all recent answers stayed within."""
        return self._output

    def output_within(self, seconds: float) -> int:
        """Tokens that the model writes in so many seconds."""
        return int(seconds * self._tokens_per_second)

    def learn(self, size: InputSize, input_tokens: int, output_tokens: int, seconds: float = 0.0) -> None:
        """Take in what one request needed, as its upstream reported it, and how long the answer took. Attachments
        say nothing of the text beside them."""
        self.revision += 1
        text = size.text
        if text and input_tokens and not size.attached:
            seen = text / input_tokens
            seen = _LEAST_RATIO if seen < _LEAST_RATIO else _MOST_RATIO if seen > _MOST_RATIO else seen
            if size.is_wide:
                self._wide_ratio += _RATIO_STEP * (seen - self._wide_ratio)
                self._wide_lessons += 1
            else:
                self._ratio += _RATIO_STEP * (seen - self._ratio)
                self._lessons += 1
        if not output_tokens:
            return
        if seconds > 0:
            speed = output_tokens / seconds
            speed = speed if speed < _SPEED_MAX else _SPEED_MAX
            self._tokens_per_second += _SPEED_STEP * (speed - self._tokens_per_second)
        self._outputs.append(output_tokens)
        self._since_recount += 1
        if self._since_recount >= _RECOUNT_EVERY:
            self._recount()

    def _recount(self) -> None:
        self._since_recount = 0
        ranked = sorted(self._outputs)
        self._output = ranked[int(len(ranked) * _QUANTILE)]


class Estimates:
    """An estimator for each team and model."""

    def __init__(self) -> None:
        self._estimators: dict[tuple[str, str], Estimator] = {}
        self._begin_with: Mapping[EstimateSubject, LearnedEstimate] = {}
        self._shared: dict[tuple[str, str], int] = {}

    def of(self, team: str, model: str) -> Estimator:
        estimator = self._estimators.pop((team, model), None)
        if estimator is None:
            estimator = Estimator(self._begin_with.get(EstimateSubject(team, model), _NOTHING_LEARNED))
            if len(self._estimators) >= ESTIMATORS_MAX:
                forgotten = next(iter(self._estimators))
                del self._estimators[forgotten]
                self._shared.pop(forgotten, None)
        self._estimators[team, model] = estimator
        return estimator

    def to_share(self) -> dict[EstimateSubject, LearnedEstimate]:
        """What is worth sharing, and has changed since it was last shared."""
        return {
            EstimateSubject(*subject): estimator.learned
            for subject, estimator in self._estimators.items()
            if estimator.lessons >= LESSONS_TO_SHARE and self._shared.get(subject) != estimator.lessons
        }

    def shared(self, learned: Mapping[EstimateSubject, LearnedEstimate]) -> None:
        """These have been shared."""
        self._shared |= {subject: int(estimate.all_lessons) for subject, estimate in learned.items()}

    def begin_with(self, learned: Mapping[EstimateSubject, LearnedEstimate]) -> None:
        """Let the estimators that have learned nothing yet begin with what others have learned: a process trusts its
        own figures more."""
        self._begin_with = learned
        for subject, estimator in self._estimators.items():
            known = learned.get(EstimateSubject(*subject))
            if known is not None and not estimator.lessons:
                estimator.begin_with(known)


def merged(estimates: Iterable[LearnedEstimate]) -> LearnedEstimate | None:
    """The median of what several processes have learned, figure by figure, each with one vote. So no single process,
    whatever it wrote, takes the result beyond what several others have. None where nothing can be used."""
    usable = [known for known in (each.bounded() for each in estimates) if known is not None and known.all_lessons]
    if not usable:
        return None
    return LearnedEstimate(
        lessons=sum(each.lessons for each in usable),
        wide_lessons=sum(each.wide_lessons for each in usable),
        characters_per_token=_median([_Weighted(each.characters_per_token, each.lessons) for each in usable]),
        wide_characters_per_token=_median(
            [_Weighted(each.wide_characters_per_token, each.wide_lessons) for each in usable]
        ),
        output=_median([_Weighted(each.output, each.all_lessons) for each in usable]),
        tokens_per_second=_median([_Weighted(each.tokens_per_second, each.all_lessons) for each in usable]),
    )


class _Weighted(NamedTuple):
    figure: float
    weight: float


def _median(figures: Iterable[_Weighted]) -> float:
    """The least figure that has half of the weight at or below it; where nothing weighs anything, the least."""
    ranked = sorted(figures)
    half, below = sum(min(each.weight, _VOTE) for each in ranked) / 2, 0.0
    for each in ranked:
        below += min(each.weight, _VOTE)
        if below >= half:
            return each.figure
    return ranked[-1].figure


def least_tokens(size: InputSize) -> int:
    """Tokens that an input of this size has at the least, whatever its tokenizer."""
    return size.attached - int(-size.text // _MOST_RATIO)


def streamed_tokens(events: int, weight: int) -> int:
    """Tokens in what a stream delivered: servers send an event a token, or several tokens in a longer one, as with
    speculative decoding. `weight` is that of the events' text, in plain characters."""
    return max(events, weight // CHARACTERS_PER_STREAMED_TOKEN)
