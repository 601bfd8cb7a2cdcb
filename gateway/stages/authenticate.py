"""Authenticate: which key is this, and may it still be used? A lookup in memory: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from gateway.core.clock import Clock
from gateway.core.errors import KeyExpired, KeyMissing, KeyUnknown
from gateway.core.snapshot import Caller, ConfigSnapshot


def authenticate(headers: Mapping[str, str], snapshot: ConfigSnapshot, clock: Clock) -> Caller:
    """The caller whose key the headers carry. Raises KeyMissing, KeyUnknown, KeyExpired."""
    caller = snapshot.callers.get(sha256(_key(headers).encode(errors="surrogateescape")).hexdigest())
    if caller is None or caller.disabled:
        raise KeyUnknown(
            "This API key is not valid. Check it for typing errors, or ask your platform team for a new one."
        )
    if caller.expires_ms is not None and clock.now_ms() >= caller.expires_ms:
        raise KeyExpired(f"The API key {caller.key_name!r} has expired. Ask your platform team for a new one.")
    return caller


def _key(headers: Mapping[str, str]) -> str:
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise KeyUnknown("The Authorization header must read 'Bearer KEY'.")
        return key.strip()
    key = headers.get("x-api-key") or headers.get("api-key") or ""
    if not key:
        raise KeyMissing("No API key was sent. Send it as 'Authorization: Bearer KEY'.")
    return key
