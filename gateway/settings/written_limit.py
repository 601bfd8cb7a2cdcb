"""A limit as it is written, in the configuration or in an operator's request: its name, its meaning, its faults."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING

from gateway.core.limits import MICRO, Limit, Meter, Mode, Per, Scope, WhenSpent
from gateway.settings.diagnostics import Diagnostic, Path
from gateway.settings.value_readers import MAX_WHOLE

_METERS = tuple(Meter)


class WrittenLimit:
    """One meter with its amount, a window, and which models it counts. The settings are those of its subclasses."""

    if TYPE_CHECKING:  # pydantic would take them for its fields.
        per: str | None
        burst: Decimal | None
        name: str | None
        models: tuple[str, ...] | None
        mode: str
        when_spent: str

        @property
        def path(self) -> Path: ...

    @property
    def meters(self) -> tuple[Meter, ...]:
        """The meters that are set: exactly one in a limit that is valid."""
        return tuple(meter for meter in _METERS if getattr(self, meter) is not None)

    @cached_property
    def meter(self) -> Meter:
        return self.meters[0]

    @cached_property
    def window(self) -> Per | None:
        return Per(self.per) if self.per else None

    @cached_property
    def amount(self) -> int:
        """In the meter's unit: requests, tokens or micro-dollars."""
        return self._units(getattr(self, self.meter))

    @property
    def bucket(self) -> int:
        """The size of a rate's bucket, in the meter's unit; the amount for other kinds."""
        return self.amount if self.burst is None else self._units(self.burst)

    @cached_property
    def title(self) -> str:
        """Its name. A generated one does not depend on the amount, because counters are kept under it: a limit that is
        raised keeps what was used."""
        return self.name or self._generated_title()

    def limit(self, scope: Scope, subject: str = "", team: str = "") -> Limit:
        """The limit that binds requests."""
        return Limit(
            name=self.title,
            scope=scope,
            subject=subject,
            meter=self.meter,
            per=self.window,
            amount=self.amount,
            burst=self.bucket,
            team=team,
            models=self.models or (),
            mode=Mode(self.mode),
            when_spent=WhenSpent(self.when_spent),
        )

    def _generated_title(self) -> str:
        meter = self.meter.replace("_", "-")
        kind = {None: meter, Per.TOTAL: f"{meter}-in-total"}.get(self.window, f"{meter}-per-{self.per}")
        return f"{kind}:{','.join(sorted(set(self.models)))}" if self.models else kind

    def _units(self, written: int | Decimal) -> int:
        return int(written * MICRO) if self.meter is Meter.USD else int(written)


def limit_faults(limit: WrittenLimit) -> Iterator[Diagnostic]:
    """Checks of one limit with one meter: a window that does not fit it, an amount that cannot be kept."""
    yield from _window(limit)
    yield from _size(limit)


def _window(limit: WrittenLimit) -> Iterator[Diagnostic]:
    if limit.meter is Meter.CONCURRENT and limit.per is not None:
        yield Diagnostic((*limit.path, "per"), "has no meaning for `concurrent`, which counts requests in flight")
    if limit.meter is not Meter.CONCURRENT and limit.per is None:
        yield Diagnostic((*limit.path, "per"), f"is missing; it must be one of {', '.join(Per)}")
    is_rate = limit.window is not None and limit.window.rate_ms is not None
    if limit.when_spent == "stop" and (is_rate or limit.window is None):
        yield Diagnostic((*limit.path, "when_spent"), "applies only to quotas (per day, week, month or total)")
    if limit.burst is not None and not is_rate:
        yield Diagnostic((*limit.path, "burst"), "applies only to rates (per second, minute or hour)")


def _size(limit: WrittenLimit) -> Iterator[Diagnostic]:
    """Quotas are kept in units, rates in the parts of one that flow back in a millisecond; both must stay exact."""
    if limit.burst is not None and limit.meter is not Meter.USD and limit.burst != int(limit.burst):
        yield Diagnostic((*limit.path, "burst"), f"must be a whole number of {limit.meter}")
    period_ms = (limit.window.rate_ms if limit.window else None) or 1
    most = MAX_WHOLE // (period_ms // gcd(int(limit.amount), period_ms))
    unit = "micro-dollars" if limit.meter is Meter.USD else limit.meter.value
    for name, amount in ((limit.meter.value, limit.amount), ("burst", limit.bucket)):
        if amount > most and (name != "burst" or limit.burst is not None):
            yield Diagnostic((*limit.path, name), f"is too large to be kept exactly; at most {most} {unit}")
