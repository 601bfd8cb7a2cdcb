"""The first page of the console in one answer: `GET /admin/v1/overview`.

Each part has the shape and the figures of the page that it is taken from: `traffic`, `upstreams`, three times `usage`,
from one reading of the ledger, of `limits` the quotas that are nearly used up, and `losses` without what other
processes have counted in the last minute. `at` is the time at which the answer was begun. Operators need the page most
when something is down: while the store is out its parts are null, and `problem` says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import date

from gateway.core.calendar import date_of
from gateway.core.errors import StoreUnavailable
from gateway.core.json_object import JsonObject
from gateway.core.time_format import rfc3339
from gateway.pipeline import Services
from gateway.store.operator_reports import quotas_running_out, usage_overview

Part = Callable[[Services, Mapping[str, str]], Awaitable[JsonObject]]

_WITHOUT_STORE: JsonObject = dict.fromkeys(("today", "days", "teams", "limits"))


def overview_page(traffic: Part, upstreams: Part, losses: Callable[[], Awaitable[JsonObject]]) -> Part:
    """The page, made of these and of what the store knows. Raises FieldInvalid."""

    async def content(services: Services, query: Mapping[str, str]) -> JsonObject:
        now_ms = services.clock.now_ms()
        today = date_of(services.zone, now_ms)
        measured = {"traffic": await traffic(services, query), "upstreams": await upstreams(services, {})}
        try:
            stored, problem = await _stored(services, today), None
        except StoreUnavailable as error:
            stored, problem = _WITHOUT_STORE, error.message
        return {"at": rfc3339(now_ms), **measured, **stored, "losses": await losses(), "problem": problem}

    return content


async def _stored(services: Services, today: date) -> JsonObject:
    """Raises StoreUnavailable."""
    snapshot = await services.directory.with_stored_keys("")
    usage = await usage_overview(services.store, today)
    return {**usage, "limits": await quotas_running_out(services.store, snapshot)}
