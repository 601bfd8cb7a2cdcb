"""How limits are reported: the 429's `limit` object, the refusal's message, the rate and quota headers.

Amounts are in the unit of the configuration: requests, tokens, US dollars.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.core.endpoints import Dialect
from gateway.core.errors import LimitRefusal, QuotaSpent, RateExceeded, RequestExceedsLimit
from gateway.core.limits import MICRO, Limit, Meter, Mode, Per, Scope
from gateway.core.remembered import remembered
from gateway.core.reservation import LimitStatus, LimitStatuses, Refusal, RefusalReason
from gateway.core.time_format import duration_text, rfc3339

_UNITS = {Meter.REQUESTS: "requests", Meter.USD: "USD", Meter.CONCURRENT: "requests at a time"}


_TOKENS = (Meter.TOKENS, Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS)
_OF_OUTPUT = (Meter.TOKENS, Meter.OUTPUT_TOKENS, Meter.USD)
_NOUNS = {Meter.REQUESTS: "requests", Meter.USD: "usd", **dict.fromkeys(_TOKENS, "tokens")}


_PLACES = 6
"""Decimals of a dollar."""


class LimitHeader(NamedTuple):
    """How a limit appears in the head of an answer: the limit's `place` among those of the request, and its lines, each
    with a line break in front of it. `before_left` is what comes before the amount that is left: the line that never
    changes, and the next one's name. `before_reset` is what comes before the time until it is whole again."""

    place: int
    capacity: int
    before_left: str
    before_reset: str
    in_dollars: bool

    @property
    def fields(self) -> _HeaderFields:
        return self.place, self.capacity, self.before_left, self.before_reset, self.in_dollars


_Shown = tuple[Meter, bool, Mode, int, int]
"""What of a limit is in headers: its meter, whether it is a rate, its mode, amount and burst."""

_HeaderFields = tuple[int, int, str, str, bool]
"""The fields of a `LimitHeader`. Each answer takes some apart: of a tuple with names each would be asked for by
itself."""


class LimitHeaders:
    """What reports the limits of a request in the head of its answer: `x-ratelimit-*` for the tightest rates and
    `x-quota-*` for the tightest quotas, those with the least left. Which limits share a header is found once, for each
    number of limits whose status is known, and for all keys whose limits differ in what they are called alone."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        shown = [(limit.meter, limit.is_rate, limit.mode, limit.amount, limit.burst) for limit in limits]
        self._known = _headers_alike(tuple(shown))
        self.last_error: LimitRefusal | None = None
        """Of a refusal by one of the limits."""

    def lines(self, statuses: LimitStatuses, now_ms: int) -> str:
        """The headers as lines, each with a line break in front of it. `statuses` are those of the limits, in the same
        order; the last ones may be missing."""
        used, held, resets_ms = statuses.used, statuses.held, statuses.resets_ms
        known = self._known[len(used)]
        headers: Sequence[_HeaderFields] | None = known.fields
        if headers is None:
            headers = _all_tightest(known.alternatives, used, held)
        lines = ""
        for place, capacity, before_left, before_reset, in_dollars in headers:
            left = capacity - used[place] - held[place]
            if left < 0:
                left = 0
            amount = _dollars(left) if in_dollars else left
            if reset_ms := resets_ms[place]:
                lines = f"{lines}{before_left}{amount}{before_reset}{duration_text(reset_ms - now_ms)}"
            else:
                lines = f"{lines}{before_left}{amount}"
        return lines

    def resets(self, statuses: LimitStatuses) -> dict[str, int]:
        """What of `lines` time alone changes: what comes before the time until a limit is whole again, with the moment
        at which it is."""
        used, held, resets_ms = statuses.used, statuses.held, statuses.resets_ms
        known = self._known[len(used)]
        headers = _all_tightest(known.alternatives, used, held)
        return {each.before_reset: resets_ms[each.place] for each in headers if resets_ms[each.place]}


class KnownHeaders:
    """The headers of as many limits: `alternatives` are those of limits that share them, `fields` those of all where no
    limits share one."""

    __slots__ = ("alternatives", "fields")

    def __init__(self, headers: Iterable[LimitHeader]) -> None:
        by_lines: dict[str, list[LimitHeader]] = {}
        for header in headers:
            by_lines.setdefault(header.before_reset, []).append(header)
        self.alternatives = alternatives = tuple(map(tuple, by_lines.values()))
        is_shared = any(len(each) > 1 for each in alternatives)
        self.fields = None if is_shared else [each[0].fields for each in alternatives]


@remembered(4_096)
def _headers_alike(shown: tuple[_Shown, ...]) -> tuple[KnownHeaders, ...]:
    """By how many of the limits have a status, the headers of these."""
    headers = list(map(_header_of, range(len(shown)), shown))
    return tuple([KnownHeaders(filter(None, headers[:known])) for known in range(len(shown) + 1)])


def _all_tightest(
    alternatives: Sequence[Sequence[LimitHeader]], used: Sequence[int], held: Sequence[int]
) -> list[LimitHeader]:
    return [_tightest(each, used, held) for each in alternatives]


def _tightest(headers: Sequence[LimitHeader], used: Sequence[int], held: Sequence[int]) -> LimitHeader:
    """That of the limit with the least left."""
    if len(headers) == 1:
        return headers[0]
    return min(headers, key=lambda each: each.capacity - used[each.place] - held[each.place])


def _header_of(place: int, shown: _Shown) -> LimitHeader | None:
    """None for a limit without headers: `concurrent`, a rate of dollars, and a shadow limit, for which no client is
    to slow down."""
    meter, is_rate, mode, amount, burst = shown
    noun = _NOUNS.get(meter)
    if noun is None or mode is Mode.SHADOW or (is_rate and meter is Meter.USD):
        return None
    prefix = "x-ratelimit" if is_rate else "x-quota"
    in_dollars = meter is Meter.USD
    of = _dollars(amount) if in_dollars else amount
    return LimitHeader(
        place=place,
        capacity=burst,
        before_left=f"\r\n{prefix}-limit-{noun}: {of}\r\n{prefix}-remaining-{noun}: ",
        before_reset=f"\r\n{prefix}-reset-{noun}: ",
        in_dollars=in_dollars,
    )


def refusal_error(refusal: Refusal, headers: LimitHeaders | None = None, thinking_budget: int = 0) -> LimitRefusal:
    """A refusal as the error that its caller gets. `headers` are those of its limits, where they are known and not
    raised. `thinking_budget`: tokens that a quota must pay for, and more."""
    if headers is None or refusal.limit_statuses.are_raised:
        headers = LimitHeaders(refusal.limit_statuses.limits)
    last = headers.last_error
    written = last.written if last is not None else None
    if last is None or written is None or not written.tells(refusal, thinking_budget):
        written = WrittenRefusal(refusal, headers, thinking_budget)
    elif last.refusal is refusal:
        return last
    error = headers.last_error = written.error(refusal)
    return error


class WrittenRefusal:
    """What a refusal's error says, except for the time that is left. A client that asks again at once gets the same
    error, with less time left; one that floods the gateway asks several times in a millisecond, in which all of it is
    the same.

    `before` and `after` are what its message has around this time, where it `waits`; `limit` is the 429's `limit`
    object without it. `bodies` has the answer's body for each API and `logged` what the log says of it, once
    web/errors.py and telemetry/log.py have written them.
    """

    def __init__(self, refusal: Refusal, headers: LimitHeaders, thinking_budget: int) -> None:
        limit, statuses = refusal.limit_status.limit, refusal.limit_statuses
        self._refusal = refusal.repeats or refusal
        self._thinking_budget = thinking_budget
        self._kind = _kind(refusal)
        self._type = QuotaSpent.type if self._kind is QuotaSpent else limit.meter.family
        self._resets = headers.resets(statuses)
        timeless = msgspec.structs.replace(statuses, resets_ms=(0,) * len(statuses))
        self._lines = headers.lines(timeless, refusal.at_ms)
        budget = ""
        if thinking_budget and limit.is_quota and limit.meter in _OF_OUTPUT:
            budget = f" This includes a thinking budget of {thinking_budget:,} tokens: a lower one needs less."
        self.waits = refusal.retry_after_ms > 0
        self.before = f"{_message(refusal)} Try again in " if self.waits else _message(refusal)
        self.after = f".{budget}" if self.waits else budget
        self.limit = limit_object(refusal.limit_status) | {"requested": in_unit(limit, refusal.requested)}
        self.bodies: dict[Dialect, bytes] = {}
        self.logged = b""

    def tells(self, refusal: Refusal, thinking_budget: int) -> bool:
        """Whether it is the same refusal, at whichever time."""
        return (refusal.repeats or refusal) is self._refusal and thinking_budget == self._thinking_budget

    def error(self, refusal: Refusal) -> LimitRefusal:
        """The error of this refusal, or of one that repeats it."""
        at_ms, retry_after_ms = refusal.at_ms, refusal.retry_after_ms
        left = duration_text(retry_after_ms) if self.waits else ""
        lines = self._lines
        for before_reset, reset_ms in self._resets.items():
            reset_in_ms = reset_ms - at_ms
            # A spent quota lets requests pass again when its window ends: one of the headers says the same.
            is_left = self.waits and reset_in_ms == retry_after_ms
            lines += before_reset + (left if is_left else duration_text(reset_in_ms))
        error = self._kind(f"{self.before}{left}{self.after}", retry_after_ms=retry_after_ms or None)
        error.type, error.refusal, error.written, error.left = self._type, refusal, self, left
        error.limit_lines, error.bodies = lines, {}
        return error


def limit_object(limit_status: LimitStatus) -> dict[str, Any]:
    """A limit and its state, as the API shows it (times in RFC 3339, UTC). `granted` is what of its amount grants add;
    it is left out where they add nothing."""
    limit = limit_status.limit
    shown = {
        "name": limit.name,
        "scope": limit.scope.value,
        "subject": limit.subject,
        "meter": limit.meter.value,
        "per": limit.per.value if limit.per else None,
        "amount": in_unit(limit, limit.amount),
        "used": in_unit(limit, limit_status.used),
        "held": in_unit(limit, limit_status.held),
        "resets_at": rfc3339(limit_status.resets_ms) if limit_status.resets_ms else None,
    }
    if limit.granted:
        shown["granted"] = in_unit(limit, limit.granted)
    return shown


def limit_status_object(limit_status: LimitStatus) -> dict[str, Any]:
    """A limit as `GET /v1/limits` and operators see it: with its state, what is left, whether it binds, and the time at
    which a quota will be used up."""
    limit = limit_status.limit
    return {
        **limit_object(limit_status),
        "left": in_unit(limit, limit_status.left),
        "mode": limit.mode.value,
        "runs_out_at": rfc3339(limit_status.runs_out_ms) if limit_status.runs_out_ms else None,
    }


def in_unit(limit: Limit, amount: int) -> int | float:
    """An amount as the configuration writes it: micro-dollars become dollars."""
    return round(amount / MICRO, 6) if limit.meter is Meter.USD else amount


def _kind(refusal: Refusal) -> type[LimitRefusal]:
    if refusal.why is RefusalReason.NEVER:
        return RequestExceedsLimit
    if refusal.why is RefusalReason.SPENT and refusal.limit_status.limit.is_quota:
        return QuotaSpent
    return RateExceeded


def _message(refusal: Refusal) -> str:
    """Which limit refuses and why."""
    limit_status = refusal.limit_status
    limit = limit_status.limit
    unit = _UNITS.get(limit.meter, limit.meter.value.replace("_", " "))
    per = " in total" if limit.per is Per.TOTAL else f" per {limit.per.value}" if limit.per else ""
    raised = f", {_figure(limit, limit.granted)} of them granted for a while" if limit.granted else ""
    what = f"limit {limit.name!r} of {whose_limit(limit)} ({_figure(limit, limit.amount)} {unit}{per}{raised})"
    requested = _figure(limit, refusal.requested)
    if refusal.why is RefusalReason.NEVER:
        return f"The {what} never holds as much as this request needs: {requested}. Send fewer or shorter messages."
    figures = (
        f"{_figure(limit, limit_status.used)} used and {_figure(limit, limit_status.held)} held by requests in flight"
    )
    if limit.meter is Meter.CONCURRENT:
        figures = f"{limit_status.held} in flight"
    return f"The {what} does not let this request pass: {figures}, this request needs {requested}."


def whose_limit(limit: Limit) -> str:
    return "the organisation" if limit.scope is Scope.ORGANISATION else f"{limit.scope.value} {limit.subject!r}"


def _figure(limit: Limit, amount: int) -> str:
    """An amount in decimal digits, in groups of three: a small one in dollars is not `1e-06`."""
    if limit.meter is not Meter.USD:
        return f"{amount:,}"
    return f"{in_unit(limit, amount):,.6f}".rstrip("0").rstrip(".")


def _dollars(micro_dollars: int) -> str:
    """The same without groups. The digits are cut: to divide, and to write both parts, takes twice as long."""
    digits = f"{micro_dollars}"
    if len(digits) <= _PLACES:
        digits = digits.zfill(_PLACES + 1)
    rest = digits[-_PLACES:].rstrip("0")
    return f"{digits[:-_PLACES]}.{rest}" if rest else digits[:-_PLACES]
