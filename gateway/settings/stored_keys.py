"""The JSON that operators write for a key in the store: the same settings as those of a key in the file.

A member that is left out keeps its value, or has its default; null restores the default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import ValidationError

from gateway.core.limits import Meter
from gateway.settings.base_section import REQUIRED, RequestSection, setting
from gateway.settings.checks import limit_faults
from gateway.settings.diagnostics import Diagnostic, SettingsInvalid
from gateway.settings.limit_settings import Limits
from gateway.settings.loading import diagnostic_of
from gateway.settings.types import (
    Duration,
    IpNetwork,
    ModelPattern,
    Moment,
    Sha256,
    ShortName,
    Switch,
    read_expiry,
    text_of,
    value_type,
)

METADATA_MAX = 32

Expiry = Annotated[date | datetime | timedelta, *value_type(read_expiry, type="string")]
MetadataValue = Annotated[str, *text_of(r"[^\x00-\x1f\x7f-\x9f]{0,500}", "must be text of at most 500 characters")]


class KeyChangeSettings(RequestSection):
    """What can be changed of a key."""

    name: ShortName | None = setting(None, "The key's name in logs and reports.")
    models: tuple[ModelPattern, ...] | None = setting(None, "The models that it may use, as globs.", min_length=1)
    limits: Limits | None = setting(None, "Limits on this key only.")
    networks: tuple[IpNetwork, ...] | None = setting(None, "From where it may be used.")
    metadata: dict[ShortName, MetadataValue] | None = setting(None, "Notes.", max_length=METADATA_MAX)
    expires_at: Expiry | None = setting(None, "When it stops working: a time, a day or a duration from now.")
    disabled: Switch | None = setting(None, "Whether it is refused.")


class NewKeySettings(KeyChangeSettings):
    name: ShortName = setting(REQUIRED, "The key's name in logs and reports.")
    team: ShortName = setting(REQUIRED, "The team that it is of.")


class ImportedKeySettings(NewKeySettings):
    sha256: Sha256 = setting(REQUIRED, "The SHA-256 of the key.")
    created_at: Moment | None = setting(None, "When it was made; left out: now.")
    revoked_at: Moment | None = setting(None, "When it was revoked.")
    counted_as: str | None = setting(None, "The id that its limits are counted under.", pattern="^[0-9a-f]{12}$")


class RotationSettings(RequestSection):
    overlap: Duration = setting("24h", "How long the old key goes on.")
    expires_at: Expiry | None = setting(None, "When the new key stops working; left out: when the old one would have.")


SectionOf = TypeVar("SectionOf", bound=RequestSection)


def read_section(kind: type[SectionOf], written: Mapping[str, Any]) -> SectionOf:
    """Raises SettingsInvalid."""
    try:
        section = kind.model_validate(dict(written))
    except ValidationError as invalid:
        errors: list[Any] = invalid.errors(include_url=False)
        raise SettingsInvalid(diagnostic_of(error, kind) for error in errors) from None
    limits: Limits | None = getattr(section, "limits", None)
    if faults := list(_limit_faults(limits or ())):
        raise SettingsInvalid(faults)
    return section


def _limit_faults(limits: Limits) -> Iterator[Diagnostic]:
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
