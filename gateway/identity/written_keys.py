"""Makes stored keys of what operators write, and checks it against the configuration in force: a key of no team, or one
whose models or limits bind nothing, is an error, as in the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import date, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.errors import FieldInvalid
from gateway.core.key_ids import key_id_of
from gateway.core.limits import Limit, Meter, Scope
from gateway.core.snapshot import ConfigSnapshot, matches
from gateway.identity.contract import StoredKey
from gateway.identity.requests import section
from gateway.settings.diagnostics import nearest
from gateway.settings.stored_keys import ImportedKeySettings, KeyChangeSettings, NewKeySettings, RotationSettings
from gateway.settings.value_readers import moment_in


class Rotation(NamedTuple):
    """The key that ends, and the one that takes its place."""

    ended: StoredKey
    new: StoredKey


class WrittenKeys:
    """`snapshot` gives the configuration in force, `zone` is where its days begin. Every method raises FieldInvalid."""

    def __init__(self, snapshot: Callable[[], ConfigSnapshot], zone: ZoneInfo) -> None:
        self._snapshot = snapshot
        self._zone = zone

    def created(self, written: NewKeySettings, digest: str, now_ms: int) -> StoredKey:
        blank = StoredKey(key_id_of(digest), digest, written.name, written.team, now_ms, counted_as=key_id_of(digest))
        return self.applied(blank, written, written.given, now_ms)

    def rotated(self, old: StoredKey, written: RotationSettings, digest: str, now_ms: int) -> Rotation:
        if old.expires_ms is not None and old.expires_ms <= now_ms:
            raise FieldInvalid(f"The key {old.id} has expired. Create another one.", param="id")
        new = msgspec.structs.replace(
            old,
            id=key_id_of(digest),
            sha256=digest,
            created_ms=now_ms,
            revision=1,
            expires_ms=old.expires_ms if written.expires_at is None else self._end_ms(written.expires_at, now_ms),
            rotated_from=old.id,
        )
        ends_ms = now_ms + round(written.overlap.total_seconds() * 1000)
        ended = msgspec.structs.replace(
            old,
            revision=old.revision + 1,
            expires_ms=min(ends_ms, old.expires_ms or ends_ms),
            revoked_ms=None if written.overlap else now_ms,
        )
        return Rotation(ended, new)

    def imported(self, item: Any, place: str, now_ms: int) -> StoredKey:
        if not isinstance(item, dict):
            raise FieldInvalid(f"{place} must be a key as `gateway keys export` writes it.", param=place)
        written = section(ImportedKeySettings, item, f"{place}.")
        digest = written.sha256
        created = now_ms if written.created_at is None else self._moment(written.created_at, now_ms)
        revoked = None if written.revoked_at is None else self._moment(written.revoked_at, now_ms)
        key_id = key_id_of(digest)
        blank = StoredKey(key_id, digest, written.name, written.team, created, written.counted_as or key_id)
        key = self.applied(blank, written, written.given, None)
        return msgspec.structs.replace(key, revoked_ms=revoked)

    def applied(
        self, key: StoredKey, written: KeyChangeSettings, names: Collection[str], now_ms: int | None
    ) -> StoredKey:
        """The key with the written values of these settings. Without a time, it may have expired already."""
        check_team(self._snapshot(), key.team)
        changes: dict[str, Any] = {}
        if "name" in names:
            changes["name"] = written.name or key.name
        if "models" in names:
            changes["models"] = written.models
            self._check_models(key.team, written.models or ())
        if "limits" in names:
            limits = tuple(limit.limit(Scope.KEY) for limit in written.limits or ())
            self._check_limits(key.team, changes.get("models", key.models), limits)
            changes["limits"] = limits
        if "networks" in names:
            changes["networks"] = tuple(str(network) for network in written.networks or ())
        if "metadata" in names:
            changes["metadata"] = written.metadata or {}
        if "expires_at" in names:
            changes["expires_ms"] = None if written.expires_at is None else self._end_ms(written.expires_at, now_ms)
        if "disabled" in names:
            changes["disabled"] = bool(written.disabled)
        return msgspec.structs.replace(key, **changes)

    def _end_ms(self, written: date | timedelta, now_ms: int | None) -> int:
        """When a key stops working. Without a time, it may have stopped already."""
        end_ms = self._moment(written, now_ms or 0)
        if now_ms is not None and end_ms <= now_ms:
            raise FieldInvalid("'expires_at' must be later than now.", param="expires_at")
        return end_ms

    def _moment(self, written: date | timedelta, now_ms: int) -> int:
        if isinstance(written, timedelta):
            return now_ms + round(written.total_seconds() * 1000)
        return round(moment_in(written, self._zone).timestamp() * 1000)

    def _check_models(self, team: str, patterns: Iterable[str]) -> None:
        usable = [model.name for model in self._snapshot().models_of(self._snapshot().teams[team].caller)]
        for pattern in patterns:
            if not any(matches(name, (pattern,)) for name in usable):
                raise FieldInvalid(
                    f"'models': {pattern[:100]!r} matches no model that team {team} may use.", param="models"
                )

    def _check_limits(self, team: str, patterns: tuple[str, ...] | None, limits: Iterable[Limit]) -> None:
        """Check the key's limits: one that can bind nothing, or has nothing to count by, is an error, as in the
        configuration."""
        snapshot = self._snapshot()
        usable = [
            model
            for model in snapshot.models_of(snapshot.teams[team].caller)
            if patterns is None or matches(model.name, patterns)
        ]
        for limit in limits:
            counted = [model for model in usable if not limit.models or matches(model.name, limit.models)]
            if not counted:
                raise FieldInvalid(f"'limits': {limit.name} matches no model that the key may use.", param="limits")
            free = [model.name for model in counted if len(model.prices) < len(model.targets)]
            if limit.meter is Meter.USD and free:
                raise FieldInvalid(
                    f"'limits': {limit.name} counts models without a price: {', '.join(free[:5])}.", param="limits"
                )


def check_team(snapshot: ConfigSnapshot, team: str) -> None:
    """Raises FieldInvalid."""
    if team not in snapshot.teams:
        hint = nearest(team, sorted(snapshot.teams)) if snapshot.teams else "the configuration has none"
        raise FieldInvalid(f"'team' must be a team of the configuration; {hint}", param="team")
