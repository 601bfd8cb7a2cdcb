"""The OpenAPI document of the admin listener, which /openapi.json answers.

A supervisor answers it, too, without the code that serves the routes. So the routes are a table of their own here, and
a house test compares it with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from gateway.core.errors import (
    AdminForbidden,
    BodyUnreadable,
    FieldInvalid,
    GatewayError,
    InternalError,
    KeyUnknown,
    MethodNotAllowed,
    NoWorker,
    RequestMalformed,
    StoreUnavailable,
    TooLarge,
    TransferCodingUnsupported,
    UrlUnknown,
    VersionUnsupported,
)
from gateway.web.admin_schemas import ADMIN_SCHEMAS
from gateway.web.openapi import (
    AMOUNT,
    ANYTHING,
    COUNT,
    FLAG,
    PATH,
    SHARED_SCHEMAS,
    TEXT,
    TIME,
    Operation,
    Schema,
    a_list,
    an_object,
    answer,
    document,
    errors_of,
    or_null,
    reference,
)

PREFIX = "/admin/v1/"

_SERVED = (
    *(
        AdminForbidden,
        BodyUnreadable,
        FieldInvalid,
        InternalError,
        KeyUnknown,
        MethodNotAllowed,
        NoWorker,
        RequestMalformed,
    ),
    *(StoreUnavailable, TooLarge, TransferCodingUnsupported, UrlUnknown, VersionUnsupported),
)


class _DescribedPage(NamedTuple):
    path: str
    summary: str
    schema: Schema
    parameters: tuple[str, ...] = ()
    method: str = "get"
    content_type: str = "application/json"
    body: Schema | None = None


def _listed(schema: Schema) -> Schema:
    return an_object(data=a_list(schema), next=or_null(TEXT))


_STATE = an_object(status=TEXT)


def _some_of(properties: Mapping[str, Schema], required: list[str] | None = None) -> Schema:
    """The body of a request, which may have no other member."""
    found: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return found | {"required": required} if required else found


_CHANGEABLE: Mapping[str, Schema] = {
    "name": TEXT,
    "models": or_null(a_list(TEXT)),
    "limits": or_null(a_list({"type": "object"})),
    "networks": or_null(a_list(TEXT)),
    "metadata": or_null({"type": "object", "additionalProperties": TEXT}),
    "expires_at": or_null(TEXT),
    "disabled": FLAG,
}
_EXPORTED: Mapping[str, Schema] = {
    **_CHANGEABLE,
    "team": TEXT,
    "sha256": TEXT,
    "created_at": or_null(TIME),
    "revoked_at": or_null(TIME),
    "counted_as": TEXT,
}
_NEW_GRANT: Mapping[str, Schema] = {
    "limit": TEXT,
    "team": or_null(TEXT),
    "key": or_null(TEXT),
    "user": or_null(TEXT),
    "model": or_null(TEXT),
    "amount": AMOUNT,
    "until": TEXT,
    "why": TEXT,
}
_MADE: Schema = {"allOf": [reference("Key"), an_object(key=TEXT)]}

_SESSION_PATH = f"{PREFIX}session"
_SESSION = an_object(signed_in=FLAG, expires_at=or_null(TIME), version=TEXT)
_CONFIG = an_object(hash=or_null(TEXT), file=or_null(TEXT), loaded_at=TIME, text=or_null(TEXT))
_PROBLEM = an_object(file=TEXT, line=COUNT, path=TEXT, message=TEXT)
_CHANGE = an_object(
    path=TEXT,
    change={"enum": ["added", "removed", "changed", "renamed"]},
    before=ANYTHING,
    after=ANYTHING,
    note=TEXT,
)
_BUCKETS = an_object(duration=a_list(AMOUNT), first_token=a_list(AMOUNT))
_TRAFFIC = an_object(data=a_list(reference("TrafficSample")), next=or_null(TEXT), buckets=_BUCKETS)
_USAGE_REPORT = an_object(rows=a_list(reference("Usage")), total=reference("Usage"))
_PROCESSES = an_object(asked=COUNT, answered=COUNT)
_CANCELLED_LIST: Mapping[str, Schema] = {
    "data": a_list(reference("RequestInFlight")),
    "next": or_null(TEXT),
    "processes": _PROCESSES,
    "problem": or_null(TEXT),
}
_NOTIFICATION_LIST: Mapping[str, Schema] = {
    "data": a_list(reference("DeliveredNotification")),
    "next": or_null(TEXT),
    "waiting": COUNT,
}
_LOSS_COUNTS: Mapping[str, Schema] = {"last_day": COUNT, "total": COUNT}
_LOSSES: Mapping[str, Schema] = {
    "at": TIME,
    "counted_since": TIME,
    "last_day_since": TIME,
    "lost": an_object(**_LOSS_COUNTS),
    "waiting": an_object(now=COUNT, highest=COUNT, highest_at=or_null(TIME)),
    "store": an_object(problem=or_null(TEXT), out_s=COUNT, times=a_list(an_object(at=TIME, seconds=COUNT))),
    "journal_fails": FLAG,
    "data": a_list(reference("Loss")),
    "next": or_null(TEXT),
    "charged_tokens": an_object(**_LOSS_COUNTS),
    "processes": _PROCESSES,
    "problem": or_null(TEXT),
}
_IN_FLIGHT_LIST: Mapping[str, Schema] = {**_CANCELLED_LIST, "total": COUNT}

ROUTES = (
    _DescribedPage("/metrics", "The metrics, in Prometheus' text format.", TEXT, content_type="text/plain"),
    _DescribedPage("/healthz", "200 while the process works; 503 says why it has to be restarted.", _STATE),
    _DescribedPage("/readyz", "200 while the gateway should get requests; 503 says why not.", _STATE),
    _DescribedPage(PATH, "This description.", {"type": "object"}),
    _DescribedPage(
        f"{PREFIX}usage",
        "Tokens, requests and cost of the ledger, by group.",
        _USAGE_REPORT,
        ("by", "since", "until", "month", "team", "key", "model", "user", "upstream", "cost_center", "sort", "top"),
    ),
    _DescribedPage(
        f"{PREFIX}usage/close",
        "Closes a month and those before it: they do not change afterwards.",
        an_object(month=an_object(name=TEXT, final=FLAG)),
        ("month",),
        method="post",
    ),
    _DescribedPage(
        f"{PREFIX}limits",
        "Each limit and its use.",
        _listed(reference("LimitStatus")),
        ("team", "scope"),
    ),
    _DescribedPage(
        f"{PREFIX}teams", "The teams, what they may use, and the ids of their keys.", _listed(reference("Team"))
    ),
    _DescribedPage(
        f"{PREFIX}keys",
        "The keys, never a secret: those of the configuration, then those of the store in the order of creation.",
        _listed(reference("Key")),
        ("team", "status", "source", "unused", "limit", "cursor"),
    ),
    _DescribedPage(
        f"{PREFIX}keys",
        "Makes a key. Only this answer has its secret.",
        _MADE,
        method="post",
        body=_some_of({**_CHANGEABLE, "team": TEXT}, ["name", "team"]),
    ),
    _DescribedPage(
        f"{PREFIX}keys/export",
        "The keys of the store with their hashes, for another store.",
        _listed(_some_of(_EXPORTED, ["sha256", "name", "team"])),
        ("team", "limit", "cursor"),
    ),
    _DescribedPage(
        f"{PREFIX}keys/import",
        "Imports exported keys; existing ones stay as they are.",
        an_object(imported=a_list(TEXT), skipped=a_list(TEXT)),
        method="post",
        body=an_object(keys=a_list(_some_of(_EXPORTED, ["sha256", "name", "team"]))),
    ),
    _DescribedPage(f"{PREFIX}keys/{{id}}", "One key.", reference("Key")),
    _DescribedPage(
        f"{PREFIX}keys/{{id}}",
        "Changes a key: a member that is left out keeps its value, null restores the default.",
        reference("Key"),
        method="patch",
        body=_some_of(_CHANGEABLE),
    ),
    _DescribedPage(
        f"{PREFIX}keys/{{id}}", "Revokes a key permanently, in every gateway.", reference("Key"), method="delete"
    ),
    _DescribedPage(
        f"{PREFIX}keys/{{id}}/rotate",
        "Makes a key that replaces this one; both are valid for the overlap (24h). Only this answer has its secret.",
        _MADE,
        method="post",
        body=_some_of({"overlap": TEXT, "expires_at": TEXT}),
    ),
    _DescribedPage(
        f"{PREFIX}grants",
        "The grants that have not ended, in the order in which they were made.",
        _listed(reference("Grant")),
        ("team",),
    ),
    _DescribedPage(
        f"{PREFIX}grants",
        "Raises a limit until the grant's end: of a team, of a key, of an end user of a team, of a model, else of the"
        " organisation.",
        reference("Grant"),
        method="post",
        body=_some_of(_NEW_GRANT, ["limit", "amount", "until", "why"]),
    ),
    _DescribedPage(f"{PREFIX}grants/{{id}}", "One grant.", reference("Grant")),
    _DescribedPage(f"{PREFIX}grants/{{id}}", "Ends a grant now.", reference("Grant"), method="delete"),
    _DescribedPage(
        f"{PREFIX}audit",
        "Who changed what, the newest first.",
        _listed(reference("AuditEntry")),
        ("limit", "cursor"),
    ),
    _DescribedPage(
        f"{PREFIX}notifications",
        "The notifications that wait, the next to be tried first, then the last attempts.",
        {**_listed(reference("DeliveredNotification")), "properties": _NOTIFICATION_LIST},
        ("limit",),
    ),
    _DescribedPage(
        f"{PREFIX}losses",
        "What was lost or is at risk in every gateway of the store, in the last 24 hours and since counting began.",
        an_object(**_LOSSES),
    ),
    _DescribedPage(f"{PREFIX}models", "The models with their routes and prices.", _listed(reference("RoutedModel"))),
    _DescribedPage(
        f"{PREFIX}traffic",
        "Traffic of this gateway in the last hours, a sample for each minute.",
        _TRAFFIC,
        ("minutes",),
    ),
    _DescribedPage(
        f"{PREFIX}overview",
        "The first page of the console in one answer: traffic, upstreams, usage today, by day and of the most expensive"
        " teams this month, the quotas that are nearly used up, and what was lost.",
        an_object(
            at=TIME,
            traffic=_TRAFFIC,
            upstreams=_listed(reference("Upstream")),
            today=or_null(_USAGE_REPORT),
            days=or_null(_USAGE_REPORT),
            teams=or_null(_USAGE_REPORT),
            limits=or_null(_listed(reference("LimitStatus"))),
            losses=an_object(**_LOSSES),
            problem=or_null(TEXT),
        ),
        ("minutes",),
    ),
    _DescribedPage(_SESSION_PATH, "Whether the browser that asks is signed in.", _SESSION),
    _DescribedPage(_SESSION_PATH, "Signs the browser in by the token: it gets a cookie.", _SESSION, method="post"),
    _DescribedPage(_SESSION_PATH, "Signs the browser out.", _SESSION, method="delete"),
    _DescribedPage(f"{PREFIX}upstreams", "The model servers and their health.", _listed(reference("Upstream"))),
    _DescribedPage(
        f"{PREFIX}requests",
        "The requests in flight in every process of every gateway of the store, the oldest first.",
        {**_listed(reference("RequestInFlight")), "properties": _IN_FLIGHT_LIST},
        ("team",),
    ),
    _DescribedPage(
        f"{PREFIX}requests/{{id}}",
        "What happened to a request, and where it is in flight. Clients can choose the id, so there can be several.",
        an_object(
            id=TEXT,
            in_flight=a_list(reference("RequestInFlight")),
            records=a_list(reference("RequestRecord")),
            problem=or_null(TEXT),
        ),
        ("team",),
    ),
    _DescribedPage(
        f"{PREFIX}requests/{{id}}",
        "Ends a request in flight, as a shutdown would: what was delivered is charged.",
        {**_listed(reference("RequestInFlight")), "properties": _CANCELLED_LIST},
        ("team",),
        method="delete",
    ),
    _DescribedPage(f"{PREFIX}config", "The text of the configuration in force, without secrets and comments.", _CONFIG),
    _DescribedPage(
        f"{PREFIX}config/diff",
        "The errors of a configuration, and what it would change. Nothing is changed.",
        an_object(valid=FLAG, problems=a_list(_PROBLEM), changes=a_list(_CHANGE)),
        method="post",
        body=_some_of({"text": TEXT}, ["text"]),
    ),
    _DescribedPage(
        f"{PREFIX}reload",
        "Reloads the configuration file; 400 says what is wrong with it.",
        an_object(taken_up=FLAG, problems=a_list(TEXT)),
        method="post",
    ),
)


_PARAMETERS: Mapping[str, str] = {
    "by": "Groups of the rows, with commas: day, month, team, key, model, upstream, cost_center, late, user.",
    "since": "The first day: 2026-11-01, 7d (today and the six days before it) or month (the first day of this one).",
    "until": "The day after the last one, written as since.",
    "month": "A month such as 2026-10; in a query of usage, in place of since and until.",
    "team": "Only this team.",
    "key": "Only this key, by its id.",
    "model": "Only this model.",
    "user": "Only this end user.",
    "upstream": "Only this upstream.",
    "cost_center": "Only teams of this cost centre.",
    "sort": "A figure, the largest first: usd, requests, input_tokens and so on.",
    "top": "The number of rows.",
    "scope": "Only limits of this scope: organisation, model, team or key.",
    "status": "Only keys with this status: active, expired, revoked or disabled.",
    "source": "Only keys of the configuration (config), or of the store (store).",
    "unused": "Only keys that were not used for this long, such as 30d.",
    "limit": "The most entries in the answer.",
    "cursor": "The next of the page before.",
    "minutes": "The number of minutes, up to now.",
}
"""What each parameter of a query means."""


@cache
def admin_document() -> bytes:
    paths: dict[str, dict[str, Operation]] = {}
    for route in ROUTES:
        methods = paths.setdefault(route.path, {})
        methods[route.method] = _operation(route)
        if route.method == "get":
            methods["head"] = _operation(route)
    components = {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {**SHARED_SCHEMAS, **ADMIN_SCHEMAS},
    }
    description = "Metrics, health and, with the token of admin.token, the reports and actions for operators."
    return document("inducta-gateway, for operators", description, paths, components)


def _operation(route: _DescribedPage) -> Operation:
    known: list[Schema] = [
        {"name": name, "in": "query", "description": _PARAMETERS[name], "schema": TEXT} for name in route.parameters
    ]
    if "{id}" in route.path:
        known.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    responses = {"200": answer(route.summary, route.schema, route.content_type), **errors_of(_serves)}
    if route.schema is _STATE:
        responses["503"] = answer(route.summary, an_object(status=TEXT, because=a_list(TEXT)))
    if route.method == "post":
        either = {"anyOf": [route.schema, reference("Error")]}
        responses["400"] = answer("It cannot be done, or the file is not valid.", either)
    is_open = not route.path.startswith(PREFIX) or (route.path == _SESSION_PATH and route.method != "post")
    security: list[Schema] = [] if is_open else [{"token": []}]
    operation = {"summary": route.summary, "security": security, "parameters": known, "responses": responses}
    if route.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": route.body}}}
    return operation


def _serves(kind: type[GatewayError]) -> bool:
    return kind in _SERVED
