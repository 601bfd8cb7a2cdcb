"""Renders errors to clients, for every answer and every stream, in the endpoint's dialect."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.endpoints import Dialect
from gateway.core.errors import GatewayError, LimitRefusal, QuotaSpent
from gateway.core.response import Headers
from gateway.core.sse import event_of

JSON = ("content-type", "application/json")
SERVER = "inducta-gateway"
"""What every answer calls the server."""

_ANTHROPIC, _GEMINI = Dialect.ANTHROPIC, Dialect.GEMINI  # Slow to reach through the class in Python 3.11.
_ENCODER = msgspec.json.Encoder()

_SHOWN_WAIT_MAX_MS = 60_000
"""The longest `retry-after` of an error that must not be retried: agents wait in silence for as long as it says."""

# The types of Anthropic's API by status (its reference, "Errors"); others are api_error.
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    426: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


# The statuses of Gemini's API (google.rpc.Code); of others, below 500 INVALID_ARGUMENT, else INTERNAL.
_GEMINI_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    426: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error_body(error: GatewayError, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """The error as JSON; beside it a 429's `limit` object."""
    body: dict[str, Any]
    if dialect is _GEMINI:
        body = {"error": _gemini_error(error)}
    elif dialect is _ANTHROPIC:
        spent = isinstance(error, QuotaSpent)
        kind = "billing_error" if spent else _ANTHROPIC_TYPES.get(error.status, "api_error")
        body = {"type": "error", "error": {**_plain(error), "type": kind}}
    else:
        body = {"error": _plain(error)}
    if error.limit is not None:
        body["limit"] = error.limit
    return _ENCODER.encode(body)


def error_event(error: GatewayError, dialect: Dialect) -> bytes:
    """The error as the last event of a stream."""
    if dialect is Dialect.RESPONSES:
        return event_of(msgspec.json.encode({**_plain(error), "type": "error"}), b"error")
    return event_of(error_body(error, dialect), b"error" if dialect is Dialect.ANTHROPIC else b"")


def error_headers(error: GatewayError) -> Headers:
    """`retry-after` in whole seconds, rounded up, and `retry-after-ms`, if another try can succeed. An error that must
    not be retried has only `retry-after`, and only if the wait is short."""
    headers = [JSON, *error.headers]
    wait_ms, final = error.retry_after_ms, error.should_retry is False
    if wait_ms is not None:
        if not final:
            headers.append(("retry-after-ms", str(wait_ms)))
        if not final or wait_ms <= _SHOWN_WAIT_MAX_MS:
            headers.append(("retry-after", str(-(-wait_ms // 1000))))
    if final:
        headers.append(("x-should-retry", "false"))
    return headers


_GOOGLE = "type.googleapis.com/google.rpc"
"""https://cloud.google.com/apis/design/errors#error_payloads"""


def _gemini_error(error: GatewayError) -> dict[str, Any]:
    status = _GEMINI_STATUSES.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
    details: list[dict[str, Any]] = [
        {
            "@type": f"{_GOOGLE}.ErrorInfo",
            "reason": error.code,
            "metadata": {"param": error.param} if error.param else {},
        }
    ]
    if isinstance(error, LimitRefusal) and error.should_retry is False:
        # Gemini's clients give up at once where a violation is of a day's quota.
        name = (error.limit or {}).get("name", "")
        violation = {"quotaId": f"{name}-PerDay", "description": error.message}
        details.append({"@type": f"{_GOOGLE}.QuotaFailure", "violations": [violation]})
    elif error.retry_after_ms is not None:
        details.append({"@type": f"{_GOOGLE}.RetryInfo", "retryDelay": f"{error.retry_after_ms / 1000:g}s"})
    return {"code": error.status, "message": error.message, "status": status, "details": details}


def _plain(error: GatewayError) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
