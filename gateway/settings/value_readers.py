"""Reads what the configuration and operators' requests have in common: names, amounts, durations, times.

Each reads the text of a file, or a plain value. If it cannot, it raises ValueError with what is allowed, and never with
what it was given.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from gateway.core.networks import Network

MAX_WHOLE = 2**53
"""The largest exact amount: a double, which Redis' Lua counts in, holds no more."""


MAX_WORKERS = 512
"""The most workers: more than any machine has cores for."""


MONEY_DECIMALS = 6
"""Dollars are kept as whole micro-dollars, prices as whole pico-dollars a token."""


WHOLE = r"[0-9]{1,16}(_[0-9]{1,16}){0,9}"

_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class TextForm(NamedTuple):
    """Text that fits a pattern as a whole. A number or a switch is not text: only the JSON of operators can have one,
    since the file's values are all read as they are written."""

    pattern: str
    allowed: str

    def read(self, given: Any) -> str:
        """Raises ValueError: what is allowed."""
        if isinstance(given, int | float):
            raise ValueError(f"{self.allowed}; this is not text: put it in quotes")
        return matched(self.pattern, given, self.allowed)[0]


_MODEL = r"[^\x00-\x1f\x7f-\x9f]{1,256}"

SHORT_NAME = TextForm(
    "[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "must be 1 to 64 letters, digits, dots, dashes and underscores, no dot first"
)
MODEL_NAME = TextForm(_MODEL, "must be 1 to 256 characters, none of them a control character")
MODEL_PATTERN = TextForm(_MODEL, "must be a model's name or a glob such as openai/*")


def is_model_name(text: str) -> bool:
    return re.fullmatch(_MODEL, text) is not None


def matched(pattern: str, given: Any, allowed: str) -> re.Match[str]:
    """The whole text. Raises ValueError."""
    found = re.fullmatch(pattern, given) if isinstance(given, str) else None
    if found is None:
        raise ValueError(allowed)
    return found


def whole_number(digits: str, allowed: str) -> int:
    number = int(digits.replace("_", ""))
    if number > MAX_WHOLE:
        raise ValueError(allowed)
    return number


def read_count(given: Any) -> int:
    allowed = f"must be a whole number from 1 to {MAX_WHOLE}; digits may be grouped with _"
    number = given if type(given) is int else whole_number(matched(WHOLE, given, allowed)[0], allowed)
    if not 1 <= number <= MAX_WHOLE:
        raise ValueError(allowed)
    return number


Workers = int | Literal["auto"]


def read_workers(given: Any) -> Workers:
    """Raises ValueError: what is allowed."""
    if given == "auto":
        return "auto"
    allowed = f"must be a number of processes from 1 to {MAX_WORKERS}, or auto"
    number = given if type(given) is int else int(matched("[0-9]{1,3}", given, allowed)[0])
    if not 1 <= number <= MAX_WORKERS:
        raise ValueError(allowed)
    return number


def read_switch(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    return matched("true|false", given, "must be true or false")[0] == "true"


def read_duration(given: Any) -> timedelta:
    if isinstance(given, timedelta):
        return given
    allowed = "must be a duration such as 250ms, 5s, 15m, 24h or 90d, and at most 3650d"
    parts = matched(rf"({WHOLE})(ms|s|m|h|d)", given, allowed)
    milliseconds = whole_number(parts[1], allowed) * _MS[parts[3]]
    if milliseconds > 3650 * _MS["d"]:
        raise ValueError(allowed)
    return timedelta(milliseconds=milliseconds)


def decimal_in(given: Any, allowed: str, decimals: int = MONEY_DECIMALS) -> Decimal:
    """A number that is not negative, exactly as written: 0.15 is 15 hundredths, not a float near it."""
    is_number = isinstance(given, int | float | Decimal) and not isinstance(given, bool)
    # In digits alone: Python writes 0.0000001 as 1e-07.
    text = f"{Decimal(str(given)):f}" if is_number else given
    number = Decimal(matched(rf"{WHOLE}(\.[0-9]{{1,30}})?", text, allowed)[0].replace("_", ""))
    if number > MAX_WHOLE or number != round(number, decimals):
        raise ValueError(allowed)
    return number


def read_amount(given: Any) -> Decimal:
    allowed = "must be a number above 0 with at most 6 decimals; digits may be grouped with _"
    number = decimal_in(given, allowed)
    if not number:
        raise ValueError(allowed)
    return number


def read_network(given: Any) -> Network:
    if isinstance(given, Network):
        return given
    allowed = "must be an address or a network such as 10.0.0.0/8 or fd00::/8, without bits set after the prefix"
    try:
        return ip_network(matched("[0-9A-Fa-f:./]{2,50}", given, allowed)[0])
    except ValueError:
        raise ValueError(allowed) from None


def read_moment(given: Any) -> date | datetime:
    if isinstance(given, date):
        return given
    allowed = "must be a date such as 2027-01-01 or a time such as 2027-01-01T18:00:00Z (RFC 3339)"
    written = matched(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.]+([Zz]|[+-][0-9]{2}:[0-9]{2})?)?", given, allowed)
    try:
        return datetime.fromisoformat(written[0].upper()) if written[1] else date.fromisoformat(written[0])
    except ValueError:
        raise ValueError(allowed) from None


def read_expiry(given: Any) -> date | datetime | timedelta:
    """A moment, or a duration from now. Raises ValueError: what is allowed."""
    for read in (read_duration, read_moment):
        try:
            return read(given)
        except ValueError:
            continue
    raise ValueError("must be a duration such as 90d, a date such as 2027-01-01 or a time such as 2027-01-01T18:00:00Z")


def read_sha256(given: Any) -> str:
    allowed = 'must be the SHA-256 of a key: 64 hexadecimal digits (printf %s "$KEY" | sha256sum)'
    return matched("[0-9A-Fa-f]{64}", given, allowed)[0].lower()


def moment_in(written: date, timezone: ZoneInfo) -> datetime:
    """A day is its first moment; what names no offset is in `timezone`."""
    moment = written if isinstance(written, datetime) else _midnight(written)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 the caller sets the zone
