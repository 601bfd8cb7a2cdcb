"""Who may use the admin API: clients with the token, and browsers that signed in with it.

A program sends the token in `authorization`. The console sends it once, to `/admin/v1/session`, and then the cookie of
a session. The cookie counts only together with the header SAME_ORIGIN, which the console's own pages send and no page
of another origin can. So no other page can change or read anything with it, not even one of another port of the same
host, to which SameSite does not apply.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec

from gateway.core.errors import (
    AdminForbidden,
    GatewayError,
    KeyUnknown,
    StoreUnavailable,
)
from gateway.core.parameters import refuse_unknown
from gateway.identity.contract import AuditEntry
from gateway.identity.requests import of_method
from gateway.identity.sessions import BrowserSession, SessionDirectory, new_session_id
from gateway.web.admin_routes import AdminRequest, AdminResponse, json_response
from gateway.web.session_cookies import ADMIN_COOKIE, SAME_ORIGIN, session_object

SESSION = "session"
"""The only path below PREFIX that needs no token."""

NoteRefusal = Callable[[AdminRequest, GatewayError], None]
"""Reports a request without the right to make it."""

NoteAudit = Callable[[AuditEntry], Awaitable[None]]
"""Adds to the audit. Raises StoreUnavailable."""

_CLOSED = "The admin API is closed: set admin.token to open it."


class AdminAccess:
    """Without a token the admin API is closed."""

    def __init__(
        self, token: str, sessions: SessionDirectory, note_refusal: NoteRefusal, note_audit: NoteAudit
    ) -> None:
        self._token = token
        self._sessions = sessions
        self._note_refusal = note_refusal
        self.note_audit = note_audit
        self.methods: Mapping[str, Callable[[AdminRequest], Awaitable[AdminResponse]]] = {
            "GET": self._show,
            "POST": self._sign_in,
            "DELETE": self._sign_out,
        }
        """Answers requests about the session of a browser."""

    async def check(self, request: AdminRequest) -> None:
        """Raises AdminForbidden if no token is configured, KeyUnknown for a request without the right."""
        is_signed_in = "authorization" not in request.headers and await self._session(request) is not None
        if not is_signed_in:
            self._check_token(request)

    async def answer_session(self, request: AdminRequest) -> AdminResponse:
        """GET says whether the browser is signed in, POST signs it in by the token, DELETE signs it out."""
        refuse_unknown(request.query, ())
        if not self._token:
            raise AdminForbidden(_CLOSED)
        return await of_method(self.methods, request.method)(request)

    def _check_token(self, request: AdminRequest) -> None:
        try:
            check_token(request.headers, self._token)
        except GatewayError as error:
            self._note_refusal(request, error)
            raise

    async def _session(self, request: AdminRequest) -> BrowserSession | None:
        if not self._token:
            return None
        session = await self._sessions.find(ADMIN_COOKIE.value_in(request.headers))
        is_ours = session is not None and hmac.compare_digest(session.holder, self._proof(session.id))
        return session if is_ours else None

    def _proof(self, session_id: str) -> str:
        """What a session keeps of the token: a new token ends the sessions of the one before."""
        return hmac.digest(self._token.encode(), session_id.encode(), "sha256").hex()

    async def _show(self, request: AdminRequest) -> AdminResponse:
        return _response(await self._session(request))

    async def _sign_in(self, request: AdminRequest) -> AdminResponse:
        self._check_token(request)
        session_id = new_session_id()
        session = await self._sessions.begin(session_id, self._proof(session_id))
        await self._note(request, "console.sign_in")
        return _response(session, ADMIN_COOKIE.set_by(session_id, request.headers))

    async def _sign_out(self, request: AdminRequest) -> AdminResponse:
        """A browser also loses its cookie if its session is already over."""
        session = await self._session(request)
        if session is not None:
            await self._sessions.end(session.id)
            await self._note(request, "console.sign_out")
        return _response(None, ADMIN_COOKIE.cleared(request.headers))

    async def _note(self, request: AdminRequest, action: str) -> None:
        """Best effort: while the store is out, operators must be able to sign in."""
        with suppress(StoreUnavailable):
            await self.note_audit(AuditEntry(actor_of(request), action, "console"))


def check_token(headers: Mapping[str, str], token: str) -> None:
    """Raises AdminForbidden if no token is configured, KeyUnknown for a wrong one."""
    if not token:
        raise AdminForbidden(_CLOSED)
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise KeyUnknown("Send the admin token as 'Authorization: Bearer TOKEN'.")
    if not hmac.compare_digest(given.strip(" ").encode(), token.encode()):
        raise KeyUnknown("This is not the admin token: send that of `admin.token`, as 'Authorization: Bearer TOKEN'.")


def actor_of(request: AdminRequest) -> str:
    """Who asks, for the audit."""
    through = "console" if SAME_ORIGIN in request.headers else "admin API"
    return f"the {through}, from {request.client_ip or 'an unknown address'}"


def _response(session: BrowserSession | None, *headers: tuple[str, str]) -> AdminResponse:
    response = json_response(200, session_object(session))
    return msgspec.structs.replace(response, headers=[*response.headers, *headers])
