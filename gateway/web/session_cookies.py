"""The cookies of browser sessions, one for the console, one for /me, and what both pages show of a session.

Both are HttpOnly, so that no script reads them, SameSite=Strict, and bound to the paths that read them. They are Secure
if the browser came over TLS; the listeners themselves speak HTTP, and a loopback address needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway import __version__
from gateway.core.json_object import JsonObject
from gateway.core.time_format import rfc3339
from gateway.identity.sessions import SESSION_LIFE_S, BrowserSession

SAME_ORIGIN = "x-gateway-console"
"""A header without which no cookie counts. A page of another origin can send it only where CORS lets it: the admin
listener never does, and the public one never with credentials."""

_HEADER = "set-cookie"


class SessionCookie(NamedTuple):
    name: str
    path: str

    def value_in(self, headers: Mapping[str, str]) -> str:
        """The id of the session that a request names; empty if it names none that counts."""
        if SAME_ORIGIN not in headers:
            return ""
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.name:
                return value
        return ""

    def set_by(self, session_id: str, headers: Mapping[str, str]) -> tuple[str, str]:
        return _HEADER, f"{self.name}={session_id}; Max-Age={SESSION_LIFE_S}; {self._attributes(headers)}"

    def cleared(self, headers: Mapping[str, str]) -> tuple[str, str]:
        return _HEADER, f"{self.name}=; Max-Age=0; {self._attributes(headers)}"

    def _attributes(self, headers: Mapping[str, str]) -> str:
        secure = "; Secure" if headers.get("x-forwarded-proto", "").lower() == "https" else ""
        return f"Path={self.path}; HttpOnly; SameSite=Strict{secure}"


ADMIN_COOKIE = SessionCookie("gateway-console", "/admin/v1")
ME_COOKIE = SessionCookie("gateway-me", "/me")


def session_object(session: BrowserSession | None) -> JsonObject:
    """What a browser is shown of its session; None: it is not signed in."""
    expires_at = None if session is None else rfc3339(session.expires_ms)
    return {"signed_in": session is not None, "expires_at": expires_at, "version": __version__}
