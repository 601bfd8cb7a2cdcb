"""Authenticate: which key is this, and may it still be used? A key that was seen lately is a look-up in memory; for any
other, the directory of stored keys asks the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from gateway.core.clock import Clock
from gateway.core.errors import KeyExpired, KeyMissing, KeyUnknown
from gateway.core.head_outline import KEY_HEADERS
from gateway.core.networks import is_in
from gateway.core.request import IncomingRequest, RequestHeaders
from gateway.core.snapshot import Caller
from gateway.identity.contract import CallerDirectory

_BEARER = "Bearer "
"""As nearly all clients write it."""

_NOTHING_HASHED = sha256()
"""To copy it takes half of what it takes to make one: OpenSSL looks its algorithms up each time."""

_NOT_VALID = "This API key is not valid. Check it for typing errors, or ask your platform team for a new one."
_UNKNOWN = KeyUnknown(_NOT_VALID, why="unknown").shared()
_DISABLED = KeyUnknown(_NOT_VALID, why="disabled").shared()
_ELSEWHERE = KeyUnknown(_NOT_VALID, why="network").shared()
_SEVERAL = KeyUnknown("Several API keys were sent, and they differ. Send one.", why="several").shared()
_MALFORMED = KeyUnknown("The Authorization header must read 'Bearer KEY'.", why="malformed").shared()
_MISSING = KeyMissing("No API key was sent. Send it as 'Authorization: Bearer KEY'.").shared()


def authenticate(request: IncomingRequest, caller: Caller | None, clock: Clock) -> Caller:
    """The caller whose key the request carries, if it may be used now and from there. None is an unknown key.
    Raises KeyUnknown, KeyExpired."""
    if caller is None:
        raise _UNKNOWN.with_traceback(None)
    if caller.disabled or (caller.networks and not is_in(request.client_ip, caller.networks)):
        raise (_DISABLED if caller.disabled else _ELSEWHERE).with_traceback(None)
    if caller.expires_ms is not None and clock.now_ms() >= caller.expires_ms:
        raise KeyExpired(f"The API key {caller.key_name!r} has expired. Ask your platform team for a new one.")
    return caller


def known_caller(digest: str, directory: CallerDirectory) -> Caller | None:
    """A caller that is not in the configuration, where this process has seen it lately."""
    caller = directory.callers.get(digest)
    if caller is not None:
        directory.used.add(caller.key_id)
    return caller


async def stored_caller(digest: str, directory: CallerDirectory) -> Caller | None:
    """The same, from the store where it is not known. Raises StoreUnavailable."""
    caller = known_caller(digest, directory) or await directory.find(digest)
    if caller is not None:
        directory.used.add(caller.key_id)
    return caller


def key_digest(key: str) -> str:
    """The hexadecimal SHA-256 of a key or a token."""
    digest = _NOTHING_HASHED.copy()
    digest.update(key.encode(errors="surrogateescape"))
    return digest.hexdigest()


def sent_key(headers: RequestHeaders, names: Iterable[str], query_key: str = "") -> str:
    """The one key or token that the request carries, however often; `names` are those of `KEY_HEADERS` that it has. Two
    that differ are refused: a proxy in front of the gateway may look at the other one, and log or limit another caller.
    Raises KeyMissing, KeyUnknown."""
    found = query_key
    for name in names:
        for value in headers.getall(name):
            key = _bearer(value) if name == "authorization" else value
            if not key:
                continue
            if found and key != found:
                raise _SEVERAL.with_traceback(None)
            found = key
    if not found:
        raise _MISSING.with_traceback(None)
    return found


def credentials_in(headers: Mapping[str, str]) -> str:
    """All lines that `sent_key` reads, for what the log says of those that it refuses."""
    return "\n".join(value for name, value in headers.items() if name.lower() in KEY_HEADERS)


def _bearer(authorization: str) -> str:
    if authorization.startswith(_BEARER):
        key = authorization[len(_BEARER) :].strip(" ")
    else:
        scheme, _, rest = authorization.partition(" ")
        key = rest.strip(" ") if scheme.lower() == "bearer" else ""
    if not key:
        raise _MALFORMED.with_traceback(None)
    return key
