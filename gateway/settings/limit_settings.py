"""A limit as it is written: one meter with its amount, a window, and which models it counts."""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict

from gateway.core.limits import MICRO, Limit, Meter, Mode, Per, Scope, WhenSpent
from gateway.settings.base_section import BaseSection, setting
from gateway.settings.types import (
    Amount,
    Count,
    ModelPattern,
    ShortName,
)

_METERS = tuple(Meter)
_GIVEN: dict[str, Any] = {"not": {"type": "null"}}


def _given(name: str) -> dict[str, Any]:
    """A setting that is there and is not null."""
    return {"required": [name], "properties": {name: _GIVEN}}


_ONE_METER: dict[str, Any] = {
    "oneOf": [_given(meter.value) for meter in Meter],
    "if": _given(Meter.CONCURRENT.value),
    "then": {"properties": {"per": {"type": "null"}}},
    "else": _given("per"),
}
"""In the schema: one meter, and a window wherever the meter is not a number of requests in flight."""


class LimitSettings(BaseSection):
    """One meter with its amount, a window, and which models it counts."""

    model_config = ConfigDict(json_schema_extra=_ONE_METER)

    requests: Count | None = setting(None, "Requests in each window.")
    tokens: Count | None = setting(None, "Tokens of input and output together in each window.")
    input_tokens: Count | None = setting(None, "Tokens of input in each window.")
    output_tokens: Count | None = setting(None, "Tokens of output in each window.")
    usd: Amount | None = setting(None, "US dollars in each window, by the models' prices.")
    concurrent: Count | None = setting(None, "Requests in flight at any time; has no `per`.")
    per: Literal["second", "minute", "hour", "day", "week", "month", "total"] | None = setting(
        None,
        "The window: second, minute and hour make a rate that refills continuously; "
        "day, week, month and total a quota over the calendar window.",
    )
    burst: Amount | None = setting(None, "What a rate's bucket holds at most; left out: the amount.")
    name: ShortName | None = setting(None, "What it is called; left out: generated from meter, window and models.")
    models: tuple[ModelPattern, ...] | None = setting(
        None, "The models whose requests it counts, as globs; left out: all that its scope may use.", min_length=1
    )
    mode: Literal["enforce", "shadow"] = setting("enforce", "`shadow`: it counts and is shown, but refuses no request.")
    when_spent: Literal["finish", "stop"] = setting(
        "finish", "Of quotas: whether a running stream may finish its answer, or is stopped where the quota ends."
    )

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


Limits = tuple[LimitSettings, ...]
