"""What the OpenAPI 3.1 documents of both listeners share (https://spec.openapis.org/oas/v3.1.1): their errors, and the
objects that both listeners show.

Errors come from the tree in `core/errors.py`: a status of an answer lists the codes that it can have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from gateway import __version__
from gateway.core.errors import ClientGone, GatewayError
from gateway.core.limits import Meter, Mode, Per, Scope

PATH = "/openapi.json"

Schema = dict[str, Any]
Operation = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
AMOUNT: Schema = {"type": "number"}
TIME: Schema = {"type": "string", "format": "date-time"}
ANYTHING: Schema = {}


def document(title: str, description: str, paths: Mapping[str, Any], components: Mapping[str, Any]) -> bytes:
    info = {"title": title, "version": __version__, "description": description}
    return msgspec.json.encode({"openapi": "3.1.1", "info": info, "paths": paths, "components": components})


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def an_object(**properties: Schema) -> Schema:
    """An object whose members are always present; it may have more."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def a_list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def answer(description: str, schema: Schema, content_type: str = "application/json") -> Schema:
    return {"description": description, "content": {content_type: {"schema": schema}}}


def errors_of(serves: Callable[[type[GatewayError]], bool], schema: str = "Error") -> dict[str, Schema]:
    """The answers with an error of this schema, by status."""
    codes: dict[int, dict[str, None]] = {}
    for kind in _leaves(GatewayError):
        # No client reads what is logged of a client that left.
        if kind is not ClientGone and serves(kind):
            codes.setdefault(kind.status, {})[kind.code] = None
    return {
        str(status): answer(f"The error's code is {' or '.join(codes[status])}.", reference(schema))
        for status in sorted(codes)
    }


def _leaves(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    kinds = root.__subclasses__()
    for kind in kinds:
        yield from _leaves(kind)
    if not kinds:
        yield root


def _raisable(limit: Schema) -> Schema:
    """The limit with the member that it has while a grant lasts."""
    return limit | {"properties": {**limit["properties"], "granted": _GRANTED}}


_ERROR = an_object(message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT))
_LIMIT: Schema = {
    "name": TEXT,
    "scope": {"enum": [scope.value for scope in Scope]},
    "subject": TEXT,
    "meter": {"enum": [meter.value for meter in Meter]},
    "per": or_null({"enum": [per.value for per in Per]}),
    "amount": AMOUNT,
    "used": AMOUNT,
    "held": AMOUNT,
    "resets_at": or_null(TIME),
}
_GRANTED: Schema = {**AMOUNT, "description": "What grants add to the amount for a while; left out where nothing."}

SHARED_SCHEMAS: Mapping[str, Schema] = {
    "Error": {
        "type": "object",
        "properties": {"error": _ERROR, "limit": reference("Limit")},
        "required": ["error"],
        "description": "The message says what to do. `limit` is there in a 429.",
    },
    "Limit": _raisable(an_object(**_LIMIT, requested=AMOUNT, retry_after_ms=or_null(COUNT))),
    "LimitStatus": _raisable(
        an_object(**_LIMIT, left=AMOUNT, mode={"enum": [mode.value for mode in Mode]}, runs_out_at=or_null(TIME))
    ),
}
