"""The admin listener's description: what /openapi.json answers there. A supervisor answers it too, so this knows the
routes by a table of its own, which a house test compares with them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from gateway.core.errors import (
    AdminForbidden,
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
from gateway.web.openapi import (
    AMOUNT,
    COUNT,
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
    *(AdminForbidden, FieldInvalid, InternalError, KeyUnknown, MethodNotAllowed, NoWorker, RequestMalformed),
    *(StoreUnavailable, TooLarge, TransferCodingUnsupported, UrlUnknown, VersionUnsupported),
)


class _DescribedPage(NamedTuple):
    summary: str
    schema: Schema
    parameters: tuple[str, ...] = ()
    method: str = "get"
    content_type: str = "application/json"


def _listed(schema: Schema) -> Schema:
    return an_object(data=a_list(schema), next=or_null(TEXT))


_STATE = an_object(status=TEXT)
_FLAG: Schema = {"type": "boolean"}
ROUTES: Mapping[str, _DescribedPage] = {
    "/metrics": _DescribedPage("Metrics, as Prometheus reads them.", TEXT, content_type="text/plain"),
    "/healthz": _DescribedPage("Whether the gateway lives; 503 says why it has to be restarted.", _STATE),
    "/readyz": _DescribedPage("Whether the gateway wants traffic; 503 says why not.", _STATE),
    PATH: _DescribedPage("This description.", {"type": "object"}),
    f"{PREFIX}usage": _DescribedPage(
        "What the ledger holds, by group.",
        an_object(rows=a_list(reference("Usage")), total=reference("Usage")),
        ("by", "since", "until", "month", "team", "key", "model", "user", "upstream", "cost_center", "sort", "top"),
    ),
    f"{PREFIX}usage/close": _DescribedPage(
        "Closes a month and those before it: they do not change any more.",
        an_object(month=an_object(name=TEXT, final=_FLAG)),
        ("month",),
        method="post",
    ),
    f"{PREFIX}limits": _DescribedPage("Every limit, and how it stands.", _listed(reference("LimitStatus")), ("team",)),
    f"{PREFIX}teams": _DescribedPage(
        "The teams and the ids of their keys.", _listed(an_object(name=TEXT, keys=a_list(TEXT)))
    ),
    f"{PREFIX}keys": _DescribedPage("The keys, never a secret.", _listed(reference("Key")), ("team",)),
    f"{PREFIX}keys/{{id}}": _DescribedPage("One key.", reference("Key")),
    f"{PREFIX}upstreams": _DescribedPage("The model servers and their health.", _listed(reference("Upstream"))),
    f"{PREFIX}reload": _DescribedPage(
        "Reloads the configuration file; 400 says what is wrong with it.",
        an_object(taken_up=_FLAG, problems=a_list(TEXT)),
        method="post",
    ),
}

_KEY = an_object(
    id=TEXT,
    name=TEXT,
    team=TEXT,
    models=a_list(TEXT),
    limits=a_list(TEXT),
    expires_at=or_null(TIME),
    status={"enum": ["active", "expired", "disabled"]},
    source={"enum": ["config"]},
)
_CIRCUIT = an_object(
    model=TEXT,
    state={"enum": ["closed", "open", "half_open", "recovering"]},
    key=or_null(TEXT),
    share=AMOUNT,
    wait_s=AMOUNT,
    next_try_at=or_null(TIME),
    opened_at=or_null(TIME),
    why={"type": "object", "additionalProperties": COUNT},
    cooling=a_list(an_object(team=TEXT, until=TIME)),
)
_UPSTREAM = an_object(name=TEXT, up=_FLAG, in_flight=COUNT, models=a_list(TEXT), circuits=a_list(_CIRCUIT))
_USAGE = an_object(
    requests=COUNT,
    input_tokens=COUNT,
    cached_input_tokens=COUNT,
    cache_write_tokens=COUNT,
    cache_write_1h_tokens=COUNT,
    output_tokens=COUNT,
    reasoning_tokens=COUNT,
    estimated_tokens=COUNT,
    audio_input_tokens=COUNT,
    image_input_tokens=COUNT,
    audio_output_tokens=COUNT,
    image_output_tokens=COUNT,
    images=COUNT,
    searches=COUNT,
    audio_ms=COUNT,
    characters=COUNT,
    usd=AMOUNT,
)


@cache
def admin_document() -> bytes:
    paths = {path: {route.method: _operation(path, route)} for path, route in ROUTES.items()}
    for path, route in ROUTES.items():
        if not path.startswith(PREFIX):
            paths[path]["head"] = _operation(path, route)
    components = {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {**SHARED_SCHEMAS, "Key": _KEY, "Upstream": _UPSTREAM, "Usage": _USAGE},
    }
    description = "Metrics, health and, with the token of admin.token, what operators may know and do."
    return document("inducta-gateway, for operators", description, paths, components)


def _operation(path: str, route: _DescribedPage) -> Operation:
    known: list[Schema] = [{"name": name, "in": "query", "schema": TEXT} for name in route.parameters]
    if path.endswith("{id}"):
        known.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    responses = {"200": answer(route.summary, route.schema, route.content_type), **errors_of(_serves)}
    if route.schema is _STATE:
        responses["503"] = answer(route.summary, an_object(status=TEXT, because=a_list(TEXT)))
    if route.method == "post":
        either = {"anyOf": [route.schema, reference("Error")]}
        responses["400"] = answer("It cannot be done, or the file is not valid.", either)
    security: list[Schema] = [{"token": []}] if path.startswith(PREFIX) else []
    return {"summary": route.summary, "security": security, "parameters": known, "responses": responses}


def _serves(kind: type[GatewayError]) -> bool:
    return kind in _SERVED
