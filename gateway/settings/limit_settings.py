"""A limit as it is written: one meter with its amount, a window, and which models it counts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from gateway.core.limits import Meter
from gateway.settings.base_section import BaseSection, setting
from gateway.settings.types import (
    Amount,
    Count,
    ModelPattern,
    ShortName,
)
from gateway.settings.written_limit import WrittenLimit

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


class LimitSettings(WrittenLimit, BaseSection):
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


Limits = tuple[LimitSettings, ...]
