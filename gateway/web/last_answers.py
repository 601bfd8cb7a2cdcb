"""The answers of connections that have no request, ready to be written."""

from __future__ import annotations

from http import HTTPStatus

from gateway.core.errors import GatewayError, Overloaded, RequestMalformed
from gateway.web.errors import error_body, error_fields
from gateway.web.response_head import SERVER, field_lines


def _last_answer(error: GatewayError) -> bytes:
    body = error_body(error)
    own = field_lines([("server", SERVER), ("connection", "close"), ("content-length", str(len(body)))])
    first = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"
    return f"{first}{error_fields(error)}{own}\r\n\r\n".encode() + body


TURNED_AWAY = _last_answer(
    Overloaded("All connections of the gateway are in use. Try again soon.", retry_after_ms=1000)
)
HEAD_TOO_LARGE = _last_answer(RequestMalformed("The request is not valid HTTP: its head does not end."))
