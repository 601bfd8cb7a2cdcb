"""How an error looks to a client: one renderer for every answer and every stream, in the endpoint's dialect."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.endpoints import Dialect
from gateway.core.errors import EncodingUnsupported, GatewayError, MethodNotAllowed
from gateway.core.response import Headers
from gateway.core.sse import event_of

JSON = ("content-type", "application/json")
CODINGS = "gzip, deflate, br, zstd"
"""Content codings in which a request's body may come."""

# The types of Anthropic's API by status (its reference, "Errors"); others are api_error.
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: GatewayError, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """The error as JSON; beside it a 429's `limit` object."""
    body: dict[str, Any] = {"error": _plain(error)}
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        body = {"type": "error", "error": {**_plain(error), "type": kind}}
    if error.limit is not None:
        body["limit"] = error.limit
    return msgspec.json.encode(body)


def error_event(error: GatewayError, dialect: Dialect) -> bytes:
    """The error as the last event of a stream."""
    if dialect is Dialect.RESPONSES:
        return event_of(msgspec.json.encode({**_plain(error), "type": "error"}), b"error")
    return event_of(error_body(error, dialect), b"error" if dialect is Dialect.ANTHROPIC else b"")


def error_headers(error: GatewayError) -> Headers:
    """`retry-after` in whole seconds, rounded up, and `retry-after-ms`, where another try can succeed."""
    headers = [JSON, *error.headers]
    if error.retry_after_ms is not None and error.should_retry is not False:
        headers.append(("retry-after-ms", str(error.retry_after_ms)))
    if error.retry_after_ms is not None:
        headers.append(("retry-after", str(-(-error.retry_after_ms // 1000))))
    if error.should_retry is False:
        headers.append(("x-should-retry", "false"))
    if error.status == 401:
        headers.append(("www-authenticate", "Bearer"))  # RFC 9110, section 15.5.2.
    if isinstance(error, MethodNotAllowed):
        headers.append(("allow", error.allow))
    if isinstance(error, EncodingUnsupported):
        headers.append(("accept-encoding", CODINGS))  # RFC 9110, section 15.5.16.
    return headers


def _plain(error: GatewayError) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
