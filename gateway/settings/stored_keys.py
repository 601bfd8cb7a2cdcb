"""The JSON that operators write for a key in the store: the same settings as those of a key in the file.

A member that is left out keeps its value, or has its default; null restores the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway.core.key_ids import KEY_ID
from gateway.core.limits import Meter
from gateway.core.networks import Network
from gateway.settings.diagnostics import Diagnostic, SettingsInvalid
from gateway.settings.request_section import Checked, RequestSection, SectionOf, read_members
from gateway.settings.value_readers import (
    MODEL_PATTERN,
    SHORT_NAME,
    TextForm,
    read_amount,
    read_count,
    read_duration,
    read_expiry,
    read_moment,
    read_network,
    read_sha256,
    read_switch,
)
from gateway.settings.written_limit import WrittenLimit, limit_faults

METADATA_MAX = 32

_METADATA_VALUE = TextForm(r"[^\x00-\x1f\x7f-\x9f]{0,500}", "must be text of at most 500 characters")
_COUNTED_AS = TextForm(KEY_ID, "must be the id of a key: 12 hexadecimal digits")

Amount = Annotated[Decimal, Checked(read_amount)]
Count = Annotated[int, Checked(read_count)]
Duration = Annotated[timedelta, Checked(read_duration)]
Expiry = Annotated[date | datetime | timedelta, Checked(read_expiry)]
ModelPattern = Annotated[str, Checked(MODEL_PATTERN.read)]
Moment = Annotated[date | datetime, Checked(read_moment)]
IpNetwork = Annotated[Network, Checked(read_network)]
ShortName = Annotated[str, Checked(SHORT_NAME.read)]
Switch = Annotated[bool, Checked(read_switch)]


class RequestLimit(WrittenLimit, RequestSection, frozen=True, kw_only=True, dict=True):
    """As LimitSettings of the configuration, which has the same members and defaults, and says what they are."""

    requests: Count | None = None
    tokens: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    usd: Amount | None = None
    concurrent: Count | None = None
    per: Literal["second", "minute", "hour", "day", "week", "month", "total"] | None = None
    burst: Amount | None = None
    name: ShortName | None = None
    models: Annotated[tuple[ModelPattern, ...], Meta(min_length=1)] | None = None
    mode: Literal["enforce", "shadow"] = "enforce"
    when_spent: Literal["finish", "stop"] = "finish"


class KeyChangeSettings(RequestSection, frozen=True, kw_only=True):
    """What can be changed of a key; docs/admin-api.md explains the members."""

    name: ShortName | None = None
    models: Annotated[tuple[ModelPattern, ...], Meta(min_length=1)] | None = None
    limits: tuple[RequestLimit, ...] | None = None
    networks: tuple[IpNetwork, ...] | None = None
    metadata: (
        Annotated[dict[ShortName, Annotated[str, Checked(_METADATA_VALUE.read)]], Meta(max_length=METADATA_MAX)] | None
    ) = None
    expires_at: Expiry | None = None
    disabled: Switch | None = None


class NewKeySettings(KeyChangeSettings, frozen=True, kw_only=True):
    name: ShortName
    team: ShortName


class ImportedKeySettings(NewKeySettings, frozen=True, kw_only=True):
    """`created_at` is now where it is left out; `counted_as` is the id that the key's limits are counted under."""

    sha256: Annotated[str, Checked(read_sha256)]
    created_at: Moment | None = None
    revoked_at: Moment | None = None
    counted_as: Annotated[str, Checked(_COUNTED_AS.read)] | None = None


class RotationSettings(RequestSection, frozen=True, kw_only=True):
    """`overlap` is how long the old key goes on; the new one stops working at `expires_at`, or when the old one would
    have."""

    overlap: Duration = timedelta(hours=24)
    expires_at: Expiry | None = None


def read_section(kind: type[SectionOf], written: Mapping[str, Any]) -> SectionOf:
    """Raises SettingsInvalid."""
    section = read_members(kind, written)
    limits: tuple[RequestLimit, ...] | None = getattr(section, "limits", None)
    if faults := list(_limit_faults(limits or ())):
        raise SettingsInvalid(faults)
    return section


def _limit_faults(limits: Iterable[RequestLimit]) -> Iterator[Diagnostic]:
    titles: set[str] = set()
    for place, limit in enumerate(limits):
        path = ("limits", place)
        if len(limit.meters) != 1:
            yield Diagnostic(path, f"needs exactly one meter of {', '.join(Meter)}")
            continue
        for fault in limit_faults(limit):
            yield fault._replace(path=(*path, *fault.path))
        if limit.title in titles:
            yield Diagnostic(path, f"has the same name as another one here, {limit.title}; give one a `name`")
        titles.add(limit.title)
