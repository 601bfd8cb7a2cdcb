"""What a limit is: a meter, an amount, a window and whom it binds.

Amounts are whole numbers in the meter's unit: requests, tokens, or micro-dollars for `usd`.
The arithmetic of buckets and quotas is in `core/buckets.py`, of calendar windows in `core/calendar.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from operator import itemgetter
from typing import Any

import msgspec

from gateway.core.remembered import remembered

MICRO = 1_000_000
"""Micro-dollars of a dollar."""


class Meter(StrEnum):
    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    USD = "usd"
    CONCURRENT = "concurrent"

    @property
    def family(self) -> str:
        """The `type` of a refusal: requests, tokens or concurrency (as OpenAI's 429 names them)."""
        return _FAMILIES.get(self, "tokens")


_FAMILIES = {Meter.REQUESTS: "requests", Meter.CONCURRENT: "concurrency"}


class Per(StrEnum):
    """The window. Rates refill continuously, quotas count over calendar windows."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"

    @property
    def rate_ms(self) -> int | None:
        """The period of a rate in milliseconds; None for a quota's window."""
        return _RATE_MS.get(self)


_RATE_MS = {Per.SECOND: 1_000, Per.MINUTE: 60_000, Per.HOUR: 3_600_000}
_RATES = tuple(_RATE_MS)
"""A tuple, since the hash of a member of an enum takes far longer than to compare it with three."""


class Scope(StrEnum):
    ORGANISATION = "organisation"
    MODEL = "model"
    TEAM = "team"
    KEY = "key"
    USER = "user"


class Mode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


class WhenSpent(StrEnum):
    FINISH = "finish"
    STOP = "stop"


class Limit(msgspec.Struct, frozen=True, gc=False):
    """One limit on one subject.

    `subject` is the team's name, the key's id, the model's name, the end user (for scope user,
    filled in when a request names one), or "" for the organisation. `team` is set for team, key and
    user limits: counters of one team live together. `per` is None for `concurrent` alone.
    `burst` is what a rate's bucket holds; for other kinds it equals `amount`. `granted` is what of both
    is there for a while alone.
    """

    name: str
    scope: Scope
    subject: str
    meter: Meter
    per: Per | None
    amount: int
    burst: int
    team: str = ""
    models: tuple[str, ...] = ()
    mode: Mode = Mode.ENFORCE
    when_spent: WhenSpent = WhenSpent.FINISH
    notify_at: tuple[int, ...] = ()
    """Of a quota, the parts of its amount, in percent and ascending, at which operators are notified."""
    granted: int = 0

    @property
    def is_rate(self) -> bool:
        return self.per in _RATES

    @property
    def is_quota(self) -> bool:
        return self.per is not None and self.per not in _RATES

    @property
    def stops(self) -> bool:
        """Whether a running stream ends when this limit is spent."""
        return self.when_spent is WhenSpent.STOP and self.mode is Mode.ENFORCE

    @property
    def identity(self) -> tuple[object, ...]:
        """What identifies its counter: amounts and mode may change without losing the count."""
        return (self.name, self.scope, self.team, self.subject, self.meter, self.per, self.models)

    def for_user(self, user: str) -> Limit:
        """The same limit for one end user by itself."""
        return msgspec.structs.replace(self, subject=user)

    def raised(self, by: int) -> Limit:
        """The same limit with so much more of its unit, by grants."""
        if not by:
            return self
        return msgspec.structs.replace(self, amount=self.amount + by, burst=self.burst + by, granted=by)


_USED = {Meter.TOKENS: 1, Meter.INPUT_TOKENS: 2, Meter.OUTPUT_TOKENS: 3, Meter.USD: 4}
"""Of requests and of concurrent ones nothing is left to be charged when a request has ended."""

ChargedByUse = Callable[[tuple[int, ...]], Sequence[int]]
"""Gives what each of several limits is charged for what was used: nothing (0), tokens, those of input, those of output,
micro-dollars, in this order."""


def charged_by_use(limits: Sequence[Limit]) -> ChargedByUse:
    return _picking(tuple([_USED.get(limit.meter, 0) for limit in limits]))


@remembered(4_096)
def _picking(places: tuple[int, ...]) -> ChargedByUse:
    """The same object for the keys of all whose limits have these meters."""
    if len(places) > 1:
        # Of one alone it would give no sequence.
        several: Callable[[Any], Sequence[int]] = itemgetter(*places)
        return several
    return lambda used: tuple([used[place] for place in places])
