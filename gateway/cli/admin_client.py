"""The HTTP client of commands that ask a running gateway, at its admin listener."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from gateway.core.address import Address
from gateway.core.errors import FieldInvalid, GatewayError, UrlUnknown
from gateway.identity.requests import AdministrationRequest
from gateway.settings.demo_credentials import DEMO_ADMIN_TOKEN
from gateway.settings.models import Settings

_TIMEOUT_S = 10.0
_RELOAD_TIMEOUT_S = 120.0
"""To read a very large configuration takes many seconds."""


class _AdminRefusalText(msgspec.Struct):
    message: str


class _AdminRefusal(msgspec.Struct):
    """What a gateway answers where it does not do what it is asked for."""

    error: _AdminRefusalText


class AdminUnavailable(Exception):
    """The running gateway cannot be asked, or refuses; the text says why, and what to do."""


@contextmanager
def refusals_in_one_line() -> Iterator[None]:
    """Ends the command where a gateway or its store cannot be asked, or refuses: as wrong usage where what was asked is
    not valid."""
    try:
        yield
    except FieldInvalid as invalid:
        raise click.UsageError(invalid.message) from None
    except GatewayError as error:
        raise click.ClickException(error.message) from None
    except AdminUnavailable as reason:
        raise click.ClickException(str(reason)) from None


class AdminClient:
    def __init__(self, admin: Address, token: str) -> None:
        self._address = admin.from_here
        self._token = token

    @classmethod
    def for_settings(cls, settings: Settings) -> AdminClient:
        """Of the gateway that runs with these settings. Raises AdminUnavailable."""
        if not settings.admin.secret:
            raise AdminUnavailable(
                "The admin API is closed. Set admin.token, so that this command can ask the gateway."
            )
        if not settings.admin.listen.port:
            raise AdminUnavailable(
                "admin.listen has port 0, so the running gateway cannot be found. Give it a port of its own."
            )
        return cls(settings.admin.listen, settings.admin.secret)

    def get(self, page: str, query: Mapping[str, str]) -> dict[str, Any]:
        """What GET /admin/v1/PAGE gives. Raises AdminUnavailable, FieldInvalid."""
        return self._request("GET", page, query)

    def post(self, page: str, query: Mapping[str, str]) -> dict[str, Any]:
        """What POST /admin/v1/PAGE gives. Raises AdminUnavailable, FieldInvalid."""
        return self._request("POST", page, query)

    def reload(self) -> dict[str, Any]:
        """What POST /admin/v1/reload gives, also where the file is refused. Raises AdminUnavailable, FieldInvalid."""
        return self._request("POST", "reload", {}, timeout_s=_RELOAD_TIMEOUT_S)

    def metrics(self) -> str:
        """The exposition, as Prometheus reads it. Raises AdminUnavailable."""
        connection = HTTPConnection(self._address.host, self._address.port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except (OSError, HTTPException, UnicodeDecodeError) as error:
            raise AdminUnavailable(_no_answer(f"http://{self._address}/metrics", error)) from None
        finally:
            connection.close()

    def administer(self, request: AdministrationRequest) -> dict[str, Any]:
        """What the running gateway answers to it. Raises AdminUnavailable, FieldInvalid, UrlUnknown."""
        return self._request(request.method, request.path, request.query, request.body)

    def _request(
        self, method: str, page: str, query: Mapping[str, str], body: bytes = b"", timeout_s: float = _TIMEOUT_S
    ) -> dict[str, Any]:
        url = f"http://{self._address}/admin/v1/{page}"
        connection = HTTPConnection(self._address.host, self._address.port, timeout=timeout_s)
        try:
            path = f"/admin/v1/{page}?{urlencode(query)}"
            connection.request(method, path, body or None, headers={"authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            answer = msgspec.json.decode(response.read(), type=dict[str, Any])
        except (OSError, HTTPException, msgspec.DecodeError) as error:
            raise AdminUnavailable(_no_answer(url, error)) from None
        finally:
            connection.close()
        if response.status == 200 or (page == "reload" and "taken_up" in answer):
            return answer
        try:
            message = msgspec.convert(answer, _AdminRefusal).error.message
        except msgspec.ValidationError:
            hint = "Is it another program? admin.listen is where the gateway's own listener is."
            raise AdminUnavailable(f"{url} answers {response.status}, and not as a gateway does. {hint}") from None
        if response.status == 400:
            raise FieldInvalid(message)
        if response.status == 401:
            raise AdminUnavailable(self._other_token())
        if response.status == 404 and page.startswith(("keys/", "grants/", "requests/")):
            raise UrlUnknown(message)
        raise AdminUnavailable(f"{url} answers {response.status}: {message}")

    def _other_token(self) -> str:
        gateway = f"The gateway at {self._address} has another admin token"
        if self._token == DEMO_ADMIN_TOKEN:
            return f"{gateway} than the demo. If it is not the demo, use -c FILE in place of --demo."
        return f"{gateway}. Use the configuration and the environment that it was started with."


def _no_answer(url: str, error: Exception) -> str:
    why = getattr(error, "strerror", None) or str(error)
    return f"No gateway answers at {url}: {why}. Is it running, with this configuration?"
