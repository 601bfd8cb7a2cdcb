"""The admin API under /admin/v1: reports of a running gateway as JSON, and actions of operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from gateway.core.calendar import date_of
from gateway.core.errors import FieldInvalid, GatewayError, UrlUnknown
from gateway.core.health import ModelStatus, UpstreamStatus
from gateway.core.json_object import JsonObject
from gateway.core.parameters import number_of, refuse_unknown
from gateway.core.snapshot import ConfigSnapshot
from gateway.core.time_format import rfc3339
from gateway.identity.requests import AdministrationRequest, of_method
from gateway.pipeline import Services
from gateway.store.operator_reports import REPORTS, Report, json_list
from gateway.telemetry.traffic import HISTORY_MINUTES, TrafficHistory
from gateway.web.admin_access import SESSION, AdminAccess, actor_of
from gateway.web.admin_catalogue import models, teams
from gateway.web.admin_openapi import PREFIX
from gateway.web.admin_routes import AdminRequest, AdminResponse, error_response, json_response, long_json_response
from gateway.web.month_closing import close_and_note

Reload = Callable[[str], Awaitable[list[str]]]
"""Reloads the configuration file for the caller that is named, and returns what is wrong with it."""

Action = Callable[[AdminRequest], Awaitable[AdminResponse]]

Administer = Callable[[AdministrationRequest], Awaitable[JsonObject]]

_TRAFFIC_MINUTES = 180

Content = Callable[[Services, Mapping[str, str]], Awaitable[JsonObject]]
"""The JSON of a page by its query. Raises FieldInvalid, StoreUnavailable."""


class AdminApi:
    """Everything under PREFIX. `pages` are those that need more than `services`."""

    def __init__(
        self,
        services: Services,
        access: AdminAccess,
        administered: Mapping[str, Administer],
        pages: Mapping[str, Content],
    ) -> None:
        """`administered` answers for every method, by the first part of a path."""
        self.reload: Reload | None = None
        """None if there is no file."""

        self.actions: Mapping[str, Action] = {"reload": self._reload, "usage/close": self._close_month}
        """The action of a POST, by path."""

        self.pages = {**PAGES, **pages}
        """The content of a GET, by path."""

        self._services = services
        self._access = access
        self._administered = administered

    async def answer(self, request: AdminRequest) -> AdminResponse:
        try:
            return await self._answer(request)
        except GatewayError as error:
            return error_response(error)

    async def refuse_stranger(self, request: AdminRequest) -> AdminResponse | None:
        """The refusal of a request without the token, which is decided before a body is read."""
        try:
            await self._access.check(request)
        except GatewayError as error:
            return error_response(error)
        return None

    async def _answer(self, request: AdminRequest) -> AdminResponse:
        path = request.path.removeprefix(PREFIX)
        if path == SESSION:
            return await self._access.answer_session(request)
        await self._access.check(request)
        administer = self._administered.get(path.partition("/")[0])
        if administer is not None:
            asked = AdministrationRequest(request.method, path, request.query, request.body, actor_of(request))
            return await long_json_response(await administer(asked))
        action = self.actions.get(path)
        if action is not None:
            return await of_method({"POST": action}, request.method)(request)
        content = self.pages.get(path)
        if content is None:
            known = ", ".join(PREFIX + page for page in (*self.pages, *self._administered))
            raise UrlUnknown(f"There is nothing at {request.path[:200]!r}; there are {known}.")
        shown = of_method({"GET": content}, request.method)
        return await long_json_response(await shown(self._services, request.query))

    async def _reload(self, request: AdminRequest) -> AdminResponse:
        refuse_unknown(request.query, ())
        if self.reload is None:
            raise FieldInvalid("This gateway was started without a configuration file.")
        problems = await self.reload(actor_of(request))
        return json_response(400 if problems else 200, {"taken_up": not problems, "problems": problems})

    async def _close_month(self, request: AdminRequest) -> AdminResponse:
        note = self._access.note_audit
        closed = await close_and_note(self._services.store, request.query, actor_of(request), note)
        return json_response(200, closed)


def _reported(report: Report) -> Content:
    async def content(services: Services, query: Mapping[str, str]) -> JsonObject:
        today = date_of(services.zone, services.clock.now_ms())
        snapshot = services.snapshot
        if report is REPORTS["limits"] and query.get("scope", "") in ("", "key"):
            snapshot = await services.directory.with_stored_keys(query.get("team", ""))
        return await report(services.store, snapshot, query, today)

    return content


def traffic_page(history: TrafficHistory) -> Content:
    """The samples of the last `minutes`."""

    async def content(_services: Services, query: Mapping[str, str]) -> JsonObject:
        refuse_unknown(query, ("minutes",))
        return history.report(number_of(query, "minutes", most=HISTORY_MINUTES, default=_TRAFFIC_MINUTES))

    return content


async def upstreams(services: Services, query: Mapping[str, str]) -> JsonObject:
    refuse_unknown(query, ())
    now = services.clock.monotonic()
    began_ms = services.clock.now_ms() - now * 1000
    seen = services.upstream.routing.health.view(services.snapshot.upstreams(), now)
    return json_list([_upstream_object(upstream, services.snapshot, now, began_ms) for upstream in seen])


def _upstream_object(seen: UpstreamStatus, snapshot: ConfigSnapshot, now: float, began_ms: float) -> JsonObject:
    every = {model.name: model for model in snapshot.models.values()}.values()
    serves = [model.name for model in every if any(target.upstream.name == seen.name for target in model.targets)]
    circuits = [_circuit_object(each, now, began_ms) for each in seen.models]
    return {
        "name": seen.name,
        "up": seen.up,
        "failed_checks": dict(seen.failed_checks),
        "in_flight": seen.in_flight,
        "models": serves,
        "circuits": circuits,
    }


def _circuit_object(seen: ModelStatus, now: float, began_ms: float) -> JsonObject:
    """`began_ms` is the wall clock's time when `now` was 0."""

    def at(monotonic: float) -> str:
        return rfc3339(round(began_ms + monotonic * 1000))

    opening = seen.opening
    return {
        "model": seen.model,
        "state": seen.state.value,
        "key": seen.key or None,
        "share": round(seen.share, 3),
        "wait_s": round(seen.wait_s, 3),
        "next_try_at": at(now + seen.wait_s) if seen.wait_s else None,
        "opened_at": at(opening.at) if opening is not None else None,
        "why": dict(opening.reasons) if opening is not None else {},
        "cooling": [{"team": team, "until": at(now + rest_s)} for team, rest_s in seen.cooling.items()],
    }


PAGES: dict[str, Content] = {
    **{name: _reported(report) for name, report in REPORTS.items()},
    "teams": teams,
    "models": models,
    "upstreams": upstreams,
}
