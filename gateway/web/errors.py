"""Renders errors to clients, for every answer and every stream, in the endpoint's dialect."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.endpoints import Dialect
from gateway.core.errors import GatewayError, LimitRefusal, QuotaSpent
from gateway.core.limit_status import WrittenRefusal
from gateway.core.response import Headers
from gateway.core.sse import event_of
from gateway.web.response_head import field_lines

JSON = ("content-type", "application/json")

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


_LEFT, _DELAY, _WAIT_MS = b"\x01", b"\x02", b"\x03"
"""Where a body is to have the time that is left: as its message has it, as Gemini's delay, and in milliseconds. No
text in JSON has these characters."""
_NAMED_GAPS = ((_LEFT, b"%(left)b"), (_DELAY, b"%(delay)b"), (_WAIT_MS, b"%(ms)d"))


def error_body(error: GatewayError, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """The error as JSON; beside it a 429's `limit` object. That of a refusal by a limit is written once: when it is
    repeated, the time that is left is put in. `error.bodies` has it for those who get the same error."""
    if not isinstance(error, LimitRefusal) or (written := error.written) is None:
        body = _ENCODER.encode(_content(error, error.message, dialect))
        if error.is_shared:
            error.bodies = {**error.bodies, dialect: body}
        return body
    form = written.bodies.get(dialect)
    if form is None:
        form = written.bodies[dialect] = _form(error, written, dialect)
    gaps: dict[bytes, bytes | int] = {b"left": error.left.encode(), b"ms": error.retry_after_ms or 0}
    if dialect is _GEMINI:
        gaps[b"delay"] = _delay_text(error).encode()
    body = error.bodies[dialect] = form % gaps
    return body


def _form(error: LimitRefusal, written: WrittenRefusal, dialect: Dialect) -> bytes:
    """The body of a refusal with gaps for the time that is left."""
    before, after = _ENCODER.encode(written.before), _ENCODER.encode(written.after)
    message = msgspec.Raw(before[:-1] + (_LEFT if written.waits else b"") + after[1:])
    body = _content(error, message, dialect, msgspec.Raw(b'"%b"' % _DELAY))
    body["limit"] = {**written.limit, "retry_after_ms": msgspec.Raw(_WAIT_MS)}
    form = _ENCODER.encode(body).replace(b"%", b"%%")
    for gap, named in _NAMED_GAPS:
        form = form.replace(gap, named)
    return form


def _content(
    error: GatewayError, message: str | msgspec.Raw, dialect: Dialect, delay: msgspec.Raw | None = None
) -> dict[str, Any]:
    """`delay` is the time until another try as Gemini's API has it, where it is not the error's own."""
    if dialect is _GEMINI:
        return {"error": _gemini_error(error, message, delay)}
    plain = {"message": message, "type": error.type, "param": error.param, "code": error.code}
    if dialect is _ANTHROPIC:
        spent = isinstance(error, QuotaSpent)
        plain["type"] = "billing_error" if spent else _ANTHROPIC_TYPES.get(error.status, "api_error")
        return {"type": "error", "error": plain}
    return {"error": plain}


def error_event(error: GatewayError, dialect: Dialect) -> bytes:
    """The error as the last event of a stream."""
    if dialect is Dialect.RESPONSES:
        plain = {"message": error.message, "type": "error", "param": error.param, "code": error.code}
        return event_of(_ENCODER.encode(plain), b"error")
    return event_of(error_body(error, dialect), b"error" if dialect is Dialect.ANTHROPIC else b"")


def error_fields(error: GatewayError) -> str:
    """`error_headers` as lines, with those of the caller's limits. `error.fields` has them for those who get the same
    error."""
    fields = field_lines(error_headers(error)) + error.limit_lines
    if error.is_shared or isinstance(error, LimitRefusal):
        error.fields = fields
    return fields


def error_headers(error: GatewayError) -> Headers:
    """`retry-after` in whole seconds, rounded up, and `retry-after-ms`, if another try can succeed. An error that must
    not be retried has only `retry-after`, and only if the wait is short."""
    return [JSON, *error.headers, *_headers_to_retry(error)]


def _headers_to_retry(error: GatewayError) -> list[tuple[str, str]]:
    headers = []
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


def _gemini_error(error: GatewayError, message: str | msgspec.Raw, delay: msgspec.Raw | None) -> dict[str, Any]:
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
        name = error.written.limit["name"] if error.written is not None else ""
        violation = {"quotaId": f"{name}-PerDay", "description": message}
        details.append({"@type": f"{_GOOGLE}.QuotaFailure", "violations": [violation]})
    elif error.retry_after_ms is not None:
        details.append({"@type": f"{_GOOGLE}.RetryInfo", "retryDelay": delay or _delay_text(error)})
    return {"code": error.status, "message": message, "status": status, "details": details}


def _delay_text(error: GatewayError) -> str:
    return f"{(error.retry_after_ms or 0) / 1000:g}s"
