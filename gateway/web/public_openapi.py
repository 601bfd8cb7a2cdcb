"""The OpenAPI document of the public listener, which /openapi.json answers. It is made from the endpoint table, the
fields that are read of a request, the pages and the tree of errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import msgspec

from gateway.core.endpoints import (
    CREATE_CONVERSATION,
    ENDPOINTS,
    GEMINI_MODEL,
    GEMINI_MODELS,
    LIMITS,
    ME_KEY,
    ME_LIMITS,
    ME_SESSION,
    ME_USAGE,
    MODEL,
    MODELS,
    OBJECT_ENDPOINTS,
    OPENAPI,
    ROOT,
    USAGE,
    Dialect,
    Endpoint,
)
from gateway.core.errors import AdminForbidden, GatewayError, NoWorker
from gateway.web.openapi import (
    ANYTHING,
    COUNT,
    FLAG,
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
from gateway.web.session_cookies import ME_COOKIE

HEALTH_PATH = "/healthz"

_DESCRIPTION = (
    "OpenAI's API, Anthropic's Messages and Gemini's API, in front of many model servers. The schemas of requests have "
    "what the gateway reads; every other member is passed on unchanged. So are the answers of a model server and its "
    "4xx errors. Each path under /v1 is also served without /v1, under /openai/v1 and under /openai, and for a "
    "model that the path names under /openai/deployments/{model}."
)
_KEY_SCHEMES: Mapping[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    **{name: {"type": "apiKey", "in": "header", "name": name} for name in ("x-api-key", "api-key", "x-goog-api-key")},
}
_NEEDS_KEY: list[Schema] = [{name: []} for name in _KEY_SCHEMES]
_SESSION_SCHEME = {"session": {"type": "apiKey", "in": "cookie", "name": ME_COOKIE.name}}
_DATED = {"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT}
_SIZES = {"context_window": COUNT, "max_output_tokens": COUNT}
_MODEL: Schema = {
    "description": "In Anthropic's shape if the request has the header anthropic-version.",
    "anyOf": [
        {**an_object(**_DATED), "properties": {**_DATED, **_SIZES}},
        {**an_object(type={"const": "model"}, id=TEXT, display_name=TEXT, created_at=TEXT)},
    ],
}
_GEMINI_MODEL: Schema = an_object(name=TEXT, version=TEXT, displayName=TEXT, supportedGenerationMethods=a_list(TEXT))
_SESSION = an_object(signed_in=FLAG, expires_at=or_null(TIME), version=TEXT)
_CLIENT = an_object(key=TEXT, name=TEXT, variable=TEXT, base_url=TEXT)
_OWN_KEY = an_object(
    id=TEXT, name=TEXT, team=TEXT, expires_at=or_null(TIME), models=a_list(TEXT), clients=a_list(_CLIENT)
)
_PAGES: Mapping[str, tuple[str, Schema]] = {
    MODELS.path: ("The models that the key may use.", an_object(data=a_list(reference("Model")))),
    MODEL.path: ("One of these models.", reference("Model")),
    GEMINI_MODELS.path: ("The same in Gemini's shape.", an_object(models=a_list(reference("GeminiModel")))),
    GEMINI_MODEL.path: ("One of these models in Gemini's shape.", reference("GeminiModel")),
    LIMITS.path: ("The caller's limits and their use.", an_object(data=a_list(reference("LimitStatus")))),
    USAGE.path: (
        "What the caller's own key has used.",
        an_object(rows=a_list({"type": "object"}), total={"type": "object"}),
    ),
    ROOT.path: ("The base URL for each client.", an_object(service=TEXT, base_urls={"type": "object"})),
    OPENAPI.path: ("This description.", {"type": "object"}),
    ME_SESSION.path: ("Whether the browser is signed in to /me.", _SESSION),
    ME_KEY.path: (
        "The key of the session, and the base URL for each client.",
        _OWN_KEY,
    ),
    ME_LIMITS.path: (
        "As /v1/limits, by the cookie of /me/session.",
        an_object(data=a_list(reference("LimitStatus"))),
    ),
    ME_USAGE.path: (
        "As /v1/usage, by the cookie of /me/session.",
        an_object(rows=a_list({"type": "object"}), total={"type": "object"}),
    ),
    HEALTH_PATH: ("200 while the gateway accepts requests, 503 while it drains.", an_object(status={"const": "ok"})),
}
_IDS = ("response_id", "conversation_id", "item_id")
_WITHOUT_KEY = {ROOT.path, OPENAPI.path, HEALTH_PATH, ME_SESSION.path}
_BY_SESSION = {ME_KEY.path, ME_LIMITS.path, ME_USAGE.path}
_CHANGES: Mapping[tuple[str, str], tuple[str, list[Schema]]] = {
    (ME_SESSION.path, "post"): ("Signs the browser in to /me by the key: it gets a cookie.", _NEEDS_KEY),
    (ME_SESSION.path, "delete"): ("Signs the browser out of /me.", []),
}
"""The pages that have other methods than GET."""
_ANTHROPIC_ERROR: Schema = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": reference("AnthropicErrorDetail"),
        "limit": reference("Limit"),
    },
    "required": ["type", "error"],
}

_GEMINI_ERROR = an_object(error=an_object(code=COUNT, message=TEXT, status=TEXT, details=a_list(ANYTHING)))
_ERROR_OF_ANY_API: Schema = {
    "description": "The error of a page has the shape of the API that the client's headers show.",
    "anyOf": [reference("Error"), reference("AnthropicError"), reference("GeminiError")],
}


_ERRORS = {Dialect.ANTHROPIC: "AnthropicError", Dialect.GEMINI: "GeminiError"}


@cache
def public_document() -> bytes:
    """The document, which is the same for every caller and every configuration."""
    rows = list(ENDPOINTS.values())
    schemas, read = msgspec.json.schema_components(
        [row.fields for row in rows if row.fields is not None], ref_template="#/components/schemas/{name}"
    )
    bodies = dict(zip((row.path for row in rows if row.fields is not None), schemas, strict=True))
    paths: dict[str, Operation] = {row.path: {"post": _endpoint(row, bodies[row.path])} for row in rows}
    for row in OBJECT_ENDPOINTS:
        paths.setdefault(row.path, {})[row.method.lower()] = _object_endpoint(row)
        if row.method == "GET":
            paths[row.path]["head"] = _object_endpoint(row, of_head=True)
    for path in _PAGES:
        paths[path] = {"get": _page(path, "get"), "head": _page(path, "head")}
    for (path, method), (summary, security) in _CHANGES.items():
        paths[path][method] = {**_page(path, method), "summary": summary, "security": security}
    components = {
        "securitySchemes": {**_KEY_SCHEMES, **_SESSION_SCHEME},
        "schemas": {
            **SHARED_SCHEMAS,
            **read,
            "Model": _MODEL,
            "GeminiModel": _GEMINI_MODEL,
            "AnthropicError": _ANTHROPIC_ERROR,
            "AnthropicErrorDetail": an_object(type=TEXT, message=TEXT),
            "GeminiError": _GEMINI_ERROR,
            "ErrorOfAnyApi": _ERROR_OF_ANY_API,
        },
    }
    return document("inducta-gateway", _DESCRIPTION, paths, components)


def _endpoint(row: Endpoint, body: Schema) -> Operation:
    content = {"application/json": {"schema": body}}
    if row.takes_form:
        parts = {"allOf": [body, {"properties": {"file": {"type": "string", "format": "binary"}}}]}
        content["multipart/form-data"] = {"schema": parts}
    served = {"application/json": {"schema": ANYTHING}}
    if row.stream_format is not None or row.terminal_events:
        served["text/event-stream"] = {"schema": ANYTHING}  # Tools differ in what an event is to a schema.
    if row.stream_format is None:
        served["*/*"] = {"schema": ANYTHING}  # Audio, images and subtitles are relayed as they come.
    schema = _ERRORS.get(row.dialect, "Error")
    return {
        "operationId": row.name,
        "summary": f"Forwarded to a model server: {row.name}.",
        "security": _NEEDS_KEY,
        "parameters": list(_parameters(row.path)),
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "The model server's answer.", "content": served},
            **errors_of(_serves, schema),
            "4XX": {"description": "A refusal of the model server, unchanged."},
        },
    }


def _object_endpoint(row: Endpoint, *, of_head: bool = False) -> Operation:
    """The body is not read, so it may be any object, or none."""
    served = {"application/json": {"schema": ANYTHING}}
    if row.terminal_events:
        served["text/event-stream"] = {"schema": ANYTHING}
    operation: Operation = {
        "operationId": row.name + (".head" if of_head else ""),
        "summary": f"Forwarded to the model server that has the {row.about}: {row.name}.",
        "security": _NEEDS_KEY,
        "parameters": list(_parameters(row.path)),
        "responses": {
            "200": {"description": "The model server's answer.", "content": served},
            **errors_of(_serves, _ERRORS.get(row.dialect, "Error")),
            "4XX": {"description": "A refusal of the model server, unchanged."},
        },
    }
    if row.method == "POST":
        operation["requestBody"] = {"content": {"application/json": {"schema": {"type": "object"}}}}
    return operation


def _page(path: str, method: str) -> Operation:
    summary, schema = _PAGES[path]
    operation: Operation = {
        "summary": summary,
        "security": [] if path in _WITHOUT_KEY else [{"session": []}] if path in _BY_SESSION else _NEEDS_KEY,
        "parameters": list(_parameters(path)),
        "responses": {"200": answer(summary, schema), **errors_of(_serves, "ErrorOfAnyApi")},
    }
    if path == ROOT.path:
        operation["responses"]["200"]["content"]["text/html"] = {"schema": TEXT}
    if method == "head":
        operation["summary"] += " Only its head."
    return operation


def _parameters(path: str) -> Iterable[Schema]:
    if "{model}" in path:
        yield {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name in _IDS:
        if f"{{{name}}}" in path:
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    if path == CREATE_CONVERSATION.path:
        whose = "The model whose model server makes it; left out: the first model whose server can."
        yield {"name": "model", "in": "query", "description": whose, "schema": TEXT}
    if path == GEMINI_MODELS.path:
        yield {"name": "pageSize", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}}
        yield {"name": "pageToken", "in": "query", "schema": TEXT}
    if path == MODELS.path:
        needs = "Read if the request has the header anthropic-version."
        number = {"type": "integer", "minimum": 1, "maximum": 1000}
        for name, schema in (("limit", number), ("after_id", TEXT), ("before_id", TEXT)):
            yield {"name": name, "in": "query", "description": needs, "schema": schema}


def _serves(kind: type[GatewayError]) -> bool:
    return not issubclass(kind, AdminForbidden | NoWorker)
