"""Keys and audit entries as JSON, for the admin API and the command line. Never a secret."""

from __future__ import annotations

from typing import Any

from gateway.core.json_object import JsonObject
from gateway.core.limits import MICRO, Limit, Meter, Mode, Scope, WhenSpent
from gateway.core.snapshot import Caller, ConfigSnapshot
from gateway.core.time_format import rfc3339
from gateway.identity.contract import AuditEntry, StoredKey


def stored_key_object(key: StoredKey, snapshot: ConfigSnapshot, now_ms: int, used_ms: int | None) -> JsonObject:
    team = snapshot.teams.get(key.team)
    models = key.models if key.models is not None else [*(team.caller.models if team else ())]
    found = {
        "id": key.id,
        "name": key.name,
        "team": key.team,
        "models": sorted(_flat(models)),
        "limits": [limit_terms(limit) for limit in key.limits],
        "networks": list(key.networks),
        "metadata": key.metadata,
        "created_at": rfc3339(key.created_ms),
        "expires_at": _time(key.expires_ms),
        "last_used_at": _time(used_ms),
        "status": status_of(key, now_ms),
        "source": "store",
    }
    if key.rotated_from:
        found["rotated_from"] = key.rotated_from
    return found


def config_key_object(caller: Caller, now_ms: int) -> JsonObject:
    """A key of the configuration, whose creation and last use are not known."""
    expired = caller.expires_ms is not None and caller.expires_ms <= now_ms
    return {
        "id": caller.key_id,
        "name": caller.key_name,
        "team": caller.team,
        "models": sorted(_flat(caller.models)),
        "limits": [limit_terms(limit) for limit in caller.limits if limit.scope is Scope.KEY],
        "networks": [str(network) for network in caller.networks],
        "metadata": {},
        "created_at": None,
        "expires_at": _time(caller.expires_ms),
        "last_used_at": None,
        "status": "disabled" if caller.disabled else "expired" if expired else "active",
        "source": "config",
    }


def exported_key(key: StoredKey) -> JsonObject:
    """Everything that another store needs to import it: its hash, not the key."""
    return {
        "sha256": key.sha256,
        "name": key.name,
        "team": key.team,
        "models": None if key.models is None else list(key.models),
        "limits": [limit_terms(limit) for limit in key.limits],
        "networks": list(key.networks),
        "metadata": key.metadata,
        "created_at": rfc3339(key.created_ms),
        "expires_at": _time(key.expires_ms),
        "disabled": key.disabled,
        "revoked_at": _time(key.revoked_ms),
        "counted_as": key.counted_as,
    }


def audit_object(entry: AuditEntry) -> JsonObject:
    return {
        "id": entry.id,
        "at": rfc3339(entry.at_ms),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "before": entry.before,
        "after": entry.after,
    }


def status_of(key: StoredKey, now_ms: int) -> str:
    if key.revoked_ms is not None:
        return "revoked"
    if key.disabled:
        return "disabled"
    return "expired" if key.expires_ms is not None and key.expires_ms <= now_ms else "active"


def limit_terms(limit: Limit) -> JsonObject:
    """The limit as it is written in the configuration."""
    unit = MICRO if limit.meter is Meter.USD else 1
    found: JsonObject = {"name": limit.name, limit.meter.value: _figure(limit.amount, unit)}
    if limit.per is not None:
        found["per"] = limit.per.value
    if limit.burst != limit.amount:
        found["burst"] = _figure(limit.burst, unit)
    if limit.models:
        found["models"] = list(limit.models)
    if limit.mode is not Mode.ENFORCE:
        found["mode"] = limit.mode.value
    if limit.when_spent is not WhenSpent.FINISH:
        found["when_spent"] = limit.when_spent.value
    return found


def _figure(amount: int, unit: int) -> int | float:
    return amount if unit == 1 else amount // unit if amount % unit == 0 else amount / unit


def _flat(models: Any) -> set[str]:
    """Globs, or lists of them."""
    return {glob for each in models for glob in ([each] if isinstance(each, str) else each)}


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
