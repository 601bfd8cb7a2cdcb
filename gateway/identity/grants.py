"""What operators can do with grants, the temporary raises of limits: one implementation for the admin API and the
command line.

A grant is in two places: in the counters of its limit, where it has its effect (store/in_redis/grants.py), and in the
list that operators see, together with the audit. The list is written first and cleared last. So a grant with an effect
is always listed, and one that the store did not accept can be withdrawn and made again.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from math import gcd
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.errors import FieldInvalid, StoreUnavailable, UrlUnknown
from gateway.core.grants import GRANT_ID_BYTES, total, with_grant
from gateway.core.json_object import JsonObject
from gateway.core.key_ids import JWT_IDS
from gateway.core.limit_status import in_unit
from gateway.core.limits import MICRO, Limit, Meter, Scope
from gateway.core.parameters import refuse_unknown
from gateway.core.snapshot import Caller, ConfigSnapshot
from gateway.core.time_format import rfc3339
from gateway.identity.contract import AuditEntry, GrantStore, NoteChange, RaisedLimits, StoredGrant
from gateway.identity.directory import caller_of, configured_key
from gateway.identity.requests import AdministrationRequest, nothing_at, of_method, written_in
from gateway.identity.written_keys import check_team
from gateway.settings.diagnostics import nearest
from gateway.settings.grants import GrantSettings
from gateway.settings.value_readers import MAX_WHOLE, moment_in

GRANT_DAYS_MAX = 366
"""The longest grant: a grant to a quota per day is written to the counter of each day."""

GRANTS_MAX = 1_000
GRANTS_OF_A_LIMIT_MAX = 16
"""The most grants at a time: admission adds up those of a limit."""

_ATTEMPTS = 16


class GrantAdministration:
    """`limits` has the counters, `keys` the list of grants and the audit; `snapshot` gives the configuration in force,
    `zone` is where its days begin."""

    def __init__(
        self,
        keys: GrantStore,
        limits: RaisedLimits,
        snapshot: Callable[[], ConfigSnapshot],
        zone: ZoneInfo,
        note_change: NoteChange,
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._snapshot = snapshot
        self._zone = zone
        self._note_change = note_change
        self.collection: Mapping[str, Callable[[AdministrationRequest], Awaitable[JsonObject]]] = {
            "GET": self._list,
            "POST": self._create,
        }
        self.member: Mapping[str, Callable[[AdministrationRequest, str], Awaitable[JsonObject]]] = {
            "GET": self._show,
            "DELETE": self._withdraw,
        }
        """The actions below grants/{id}."""

    async def answer(self, request: AdministrationRequest) -> JsonObject:
        """Raises FieldInvalid, BodyUnreadable, UrlUnknown, MethodNotAllowed, StoreUnavailable."""
        kind, slash, grant_id = request.path.partition("/")
        if kind != "grants" or (slash and not grant_id) or "/" in grant_id:
            raise nothing_at(request.path)
        if not slash:
            return await of_method(self.collection, request.method)(request)
        return await of_method(self.member, request.method)(request, grant_id)

    async def _list(self, request: AdministrationRequest) -> JsonObject:
        """The grants that have not ended, in the order of their creation."""
        refuse_unknown(request.query, ("team",))
        team, now_ms = request.query.get("team", ""), await self._keys.time_ms()
        if team:
            check_team(self._snapshot(), team)
        grants = [grant for grant in await self._lasting(now_ms) if team in ("", grant.limit.team)]
        return {"data": [grant_object(grant) for grant in grants], "next": None}

    async def _show(self, request: AdministrationRequest, grant_id: str) -> JsonObject:
        refuse_unknown(request.query, ())
        return grant_object(await self._grant(grant_id))

    async def _create(self, request: AdministrationRequest) -> JsonObject:
        written = written_in(GrantSettings, request)
        now_ms = await self._keys.time_ms()
        limit = await self._limit(written)
        grant = StoredGrant(
            id=secrets.token_hex(GRANT_ID_BYTES),
            limit=limit,
            amount=_amount(written, limit),
            created_ms=now_ms,
            until_ms=self._end(written, now_ms),
            reason=written.why,
            actor=request.actor,
        )
        await self._write(grant)
        try:
            await self._limits.grant(limit, grant.grant)
        except StoreUnavailable as error:
            message = f"{error.message} The grant {grant.id} may not count: withdraw it, and make it again."
            raise StoreUnavailable(message, retry_after_ms=error.retry_after_ms) from None
        return grant_object(grant)

    async def _write(self, grant: StoredGrant) -> None:
        """To the list, where there is room beside the grants that there are at that moment. Raises FieldInvalid,
        StoreUnavailable."""
        entry = AuditEntry(grant.actor, "grant.create", grant.id, None, grant_object(grant))
        for _ in range(_ATTEMPTS):
            every = await self._keys.grants()
            # It is there already where the answer to its writing was lost.
            lasting = [each for each in every if each.until_ms > grant.created_ms and each.id != grant.id]
            _check_room(lasting, grant)
            ended = [each.id for each in every if each.until_ms <= grant.created_ms]
            written = await self._keys.write_grant(grant, entry, ended, [each.id for each in every])
            if written is not None:
                self._note_change(written)
                return
        raise StoreUnavailable("Others are changing the grants. Try again.", retry_after_ms=1000)

    async def _withdraw(self, request: AdministrationRequest, grant_id: str) -> JsonObject:
        refuse_unknown(request.query, ())
        grant = await self._grant(grant_id)
        await self._limits.withdraw(self._present(grant.limit), grant.grant)
        shown = grant_object(grant)
        entry = AuditEntry(request.actor, "grant.withdraw", grant.id, shown, None)
        removed = await self._keys.remove_grant(grant.id, entry)
        if removed is None:
            raise _no_grant(grant_id)
        self._note_change(removed)
        return shown

    async def _lasting(self, now_ms: int) -> list[StoredGrant]:
        return [grant for grant in await self._keys.grants() if grant.until_ms > now_ms]

    async def _grant(self, grant_id: str) -> StoredGrant:
        for grant in await self._lasting(await self._keys.time_ms()):
            if grant.id == grant_id:
                return grant
        raise _no_grant(grant_id)

    async def _limit(self, written: GrantSettings) -> Limit:
        """The limit that the request names. Raises FieldInvalid."""
        limits = await self._limits_of(written)
        for limit in limits:
            if limit.name == written.limit:
                return limit
        names = sorted({limit.name for limit in limits})
        # All of them, not the one with the most similar name: that can count something else, dollars instead of tokens.
        hint = f"it has {', '.join(names)}" if names else "it has no limits of its own"
        raise FieldInvalid(f"'limit' must be a limit of {_whose(written)}; {hint}", param="limit")

    async def _limits_of(self, written: GrantSettings) -> Sequence[Limit]:
        team = written.team or ""
        if team:
            check_team(self._snapshot(), team)
        named = [name for name in ("key", "user", "model") if getattr(written, name) is not None]
        if len(named) > 1 or (team and written.model is not None):
            named = [*(["team"] if team else []), *named]
            raise FieldInvalid(f"A limit is not of {' and '.join(named)} at once: leave one out.", param=named[-1])
        if written.model is not None:
            return self._limits_of_model(written.model)
        if written.key is not None:
            return await self._limits_of_key(written.key, team)
        if written.user is not None:
            if not team:
                raise FieldInvalid("'team' is missing: the end user's limits are those of a team.", param="team")
            user_limits = self._snapshot().teams[team].caller.user_limits
            return [limit.for_user(written.user) for limit in user_limits]
        teams = self._snapshot().teams
        callers = [teams[team].caller] if team else [terms.caller for terms in teams.values()]
        scope = Scope.TEAM if team else Scope.ORGANISATION
        return [limit for caller in callers[:1] for limit in caller.limits if limit.scope is scope]

    def _limits_of_model(self, name: str) -> Sequence[Limit]:
        model = self._snapshot().models.get(name)
        if model is None:
            hint = nearest(name, sorted(self._snapshot().models))
            raise FieldInvalid(f"'model' must be a model of the configuration; {hint}", param="model")
        return model.limits

    async def _limits_of_key(self, key_id: str, team: str) -> Sequence[Limit]:
        if key_id.startswith(JWT_IDS) and team:
            # Which tokens there are is known by those who verify them alone: their limits are those of any key.
            key_limits = self._snapshot().teams[team].key_limits
            return [msgspec.structs.replace(limit, subject=key_id, team=team) for limit in key_limits]
        caller = await self._caller(key_id)
        if caller is None or team not in ("", caller.team):
            of_team = f" of team {team}" if team else ""
            raise FieldInvalid(f"'key': there is no key{of_team} with the id {key_id}.", param="key")
        return [limit for limit in caller.limits if limit.scope is Scope.KEY]

    async def _caller(self, key_id: str) -> Caller | None:
        snapshot = self._snapshot()
        if (configured := configured_key(snapshot, key_id)) is not None:
            return configured
        [key] = await self._keys.get([key_id])
        return None if key is None or key.revoked_ms is not None else caller_of(key, snapshot)

    def _present(self, limit: Limit) -> Limit:
        """The limit as it is configured now: its pace may differ from when it was raised."""
        snapshot = self._snapshot()
        if limit.scope is Scope.USER and limit.team in snapshot.teams:
            user_limits = snapshot.teams[limit.team].caller.user_limits
            configured = [each.for_user(limit.subject) for each in user_limits]
        else:
            configured = snapshot.limits_of(limit.team)
        return next((each for each in configured if each.identity == limit.identity), limit)

    def _end(self, written: GrantSettings, now_ms: int) -> int:
        until = written.until
        if isinstance(until, timedelta):
            until_ms = now_ms + round(until.total_seconds() * 1000)
        else:
            until_ms = round(moment_in(until, self._zone).timestamp() * 1000)
        if until_ms <= now_ms:
            raise FieldInvalid("'until' must be later than now.", param="until")
        if until_ms > now_ms + GRANT_DAYS_MAX * DAY_MS:
            raise FieldInvalid(
                f"'until' must be within {GRANT_DAYS_MAX} days: raise the limit in the configuration instead.",
                param="until",
            )
        return until_ms


def grant_object(grant: StoredGrant) -> JsonObject:
    """The grant as the admin API and the command line show it. Amounts are in the limit's unit, times RFC 3339 in
    UTC."""
    limit = grant.limit
    return {
        "id": grant.id,
        "limit": limit.name,
        "scope": limit.scope.value,
        "subject": limit.subject,
        "team": limit.team or None,
        "meter": limit.meter.value,
        "per": limit.per.value if limit.per else None,
        "amount": in_unit(limit, grant.amount),
        "created_at": rfc3339(grant.created_ms),
        "until": rfc3339(grant.until_ms),
        "why": grant.reason,
        "granted_by": grant.actor,
    }


def _amount(written: GrantSettings, limit: Limit) -> int:
    if limit.meter is Meter.USD:
        return int(written.amount * MICRO)
    if written.amount != int(written.amount):
        raise FieldInvalid(f"'amount' must be a whole number of {limit.meter.value}.", param="amount")
    return int(written.amount)


def _check_room(lasting: Sequence[StoredGrant], new: StoredGrant) -> None:
    """Raises FieldInvalid if there are too many grants, or if the raised limit is too large to be counted exactly."""
    if len(lasting) >= GRANTS_MAX:
        raise FieldInvalid(f"There are {GRANTS_MAX} grants already: withdraw some.")
    of_limit = [each for each in lasting if each.limit.identity == new.limit.identity]
    if len(of_limit) >= GRANTS_OF_A_LIMIT_MAX:
        raise FieldInvalid(
            f"The limit has {GRANTS_OF_A_LIMIT_MAX} grants already: withdraw one, or raise it in the configuration.",
            param="limit",
        )
    grants = with_grant(tuple(sorted([each.grant for each in of_limit], key=lambda grant: grant.until_ms)), new.grant)
    period_ms = (new.limit.per.rate_ms if new.limit.per else None) or 1
    # Grants end one after the other: until then the rate has a pace, and parts, of its own.
    for ended in range(len(grants)):
        raised = new.limit.raised(total(grants[ended:]))
        if raised.burst > MAX_WHOLE // (period_ms // gcd(raised.amount, period_ms)):
            raise FieldInvalid("'amount': the raised limit is too large to be counted exactly.", param="amount")


def _whose(written: GrantSettings) -> str:
    for kind in ("model", "user", "key", "team"):
        if (name := getattr(written, kind)) is not None:
            return f"{kind} {name}"
    return "the organisation"


def _no_grant(grant_id: str) -> UrlUnknown:
    return UrlUnknown(f"There is no grant with the id {grant_id[:64]!r}: it has ended, or was withdrawn.")
