"""How an error looks to a client: one renderer for every answer and every stream."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import GatewayError, MethodNotAllowed
from gateway.core.sink import Headers

JSON = ("content-type", "application/json")


def error_body(error: GatewayError) -> bytes:
    """`{"error": {…}}` as OpenAI's API has it; beside it a 429's `limit` object."""
    told: dict[str, Any] = {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    }
    if error.limit is not None:
        told["limit"] = error.limit
    return msgspec.json.encode(told)


def error_headers(error: GatewayError) -> Headers:
    """`retry-after` in whole seconds, rounded up, and `retry-after-ms`, where another try can succeed."""
    headers = [JSON]
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
    return headers
