"""Ask a gateway that runs already, over its admin listener."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode

import msgspec

from gateway.core.address import Address
from gateway.core.errors import FieldInvalid

_PATIENCE_S = 10.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # What listens everywhere listens here, too.


class NotAnswered(Exception):
    """The gateway that runs does not tell; the text says why, and what to do."""


def ask_running(admin: Address, token: str, page: str, query: Mapping[str, str]) -> dict[str, Any]:
    """What GET /admin/v1/PAGE gives. Raises NotAnswered, FieldInvalid."""
    host = _EVERYWHERE.get(admin.host, admin.host)
    asked = f"http://{Address(host, admin.port)}/admin/v1/{page}"
    connection = HTTPConnection(host, admin.port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", f"/admin/v1/{page}?{urlencode(query)}", headers={"authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        body = answer.read()
        told: dict[str, Any] = msgspec.json.decode(body)
    except (OSError, HTTPException, msgspec.DecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise NotAnswered(f"No gateway answers at {asked}: {why}. Is it running, with this configuration?") from None
    finally:
        connection.close()
    if answer.status == 200:
        return told
    message = str(told["error"]["message"])
    raise FieldInvalid(message) if answer.status == 400 else NotAnswered(f"{asked} answers {answer.status}: {message}")
