"""Sessions of browsers: of the console, which begin with the admin token, and of /me, which begin with a key.

A session is 32 random bytes in a cookie. The store has it under its SHA-256, with its holder and its end, so that it is
valid in every process of every gateway, and ends in all of them.

A holder of a key could begin any number of sessions, so a process keeps the newest HOLDER_MAX of each and ends the
others. Each session of the console has a holder of its own: only operators begin them, from as many browsers as they
have.

While the store does not answer, a process keeps the sessions that it has seen: the console is needed most when
something is down. A session that ended elsewhere in the meantime ends when the store is back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from secrets import token_urlsafe
from typing import NamedTuple

from gateway.core.errors import StoreUnavailable
from gateway.identity.contract import SessionStore

SESSION_LIFE_S = 12 * 3600
HOLDER_MAX = 16
_SEEN_MAX = 1_000
_ID_MAX = 128


class BrowserSession(NamedTuple):
    """`holder` is what the browser proved at the beginning."""

    id: str
    holder: str
    expires_ms: int


def new_session_id() -> str:
    return token_urlsafe(32)


class SessionDirectory:
    """The sessions of one kind. `now_ms` is the clock of this gateway."""

    def __init__(self, store: SessionStore, kind: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._kind = kind
        self._now_ms = now_ms
        self._seen: dict[str, BrowserSession] = {}
        self._begun: dict[str, deque[str]] = {}
        """The sessions that began in this process, by holder: the ids of the newest."""

    async def begin(self, session_id: str, holder: str) -> BrowserSession:
        session = BrowserSession(session_id, holder, self._now_ms() + SESSION_LIFE_S * 1000)
        surplus = self._surplus(session)
        with suppress(StoreUnavailable):
            if surplus:
                await self.end(surplus)
            kept = f"{session.expires_ms} {holder}"
            await self._store.keep_session(self._name(session_id), kept, SESSION_LIFE_S * 1000)
        self._note(session)
        return session

    async def find(self, session_id: str) -> BrowserSession | None:
        """None if it does not exist, or is over."""
        if not session_id or len(session_id) > _ID_MAX:
            return None
        try:
            kept = await self._store.session(self._name(session_id))
        except StoreUnavailable:
            session = self._seen.get(session_id)
        else:
            session = None if kept is None else _read(session_id, kept)
            if session is None:
                self._seen.pop(session_id, None)
            else:
                self._note(session)
        return session if session is not None and self._now_ms() < session.expires_ms else None

    async def end(self, session_id: str) -> None:
        """Raises StoreUnavailable: then it has ended only in this process."""
        self._seen.pop(session_id, None)
        await self._store.end_session(self._name(session_id))

    def _surplus(self, session: BrowserSession) -> str:
        """The id of the holder's session that has to end for this one; empty if none has to."""
        begun = self._begun[session.holder] = self._begun.pop(session.holder, deque())
        begun.append(session.id)
        if len(self._begun) > _SEEN_MAX:
            del self._begun[next(iter(self._begun))]
        return begun.popleft() if len(begun) > HOLDER_MAX else ""

    def _note(self, session: BrowserSession) -> None:
        self._seen.pop(session.id, None)
        self._seen[session.id] = session
        if len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def _name(self, session_id: str) -> str:
        return f"{self._kind}:{sha256(session_id.encode(errors='replace')).hexdigest()}"


def _read(session_id: str, kept: str) -> BrowserSession:
    expires_ms, _, holder = kept.partition(" ")
    return BrowserSession(session_id, holder, int(expires_ms))
