"""Callers with a token of an identity provider (JWT, RFC 7519) in place of a key."""

from __future__ import annotations

from typing import Protocol

import msgspec

from gateway.core.snapshot import Caller


class VerifiedToken(msgspec.Struct, frozen=True, gc=False):
    """What a token has proved. `user` is the end user that it names, `expires_ms` the end of its time."""

    caller: Caller
    user: str
    expires_ms: int


def is_token(credential: str) -> bool:
    """Whether it looks like a signed token: header, claims and signature, with a dot between them. The header is a JSON
    object, whose Base64 begins so."""
    return credential.startswith("e") and credential.count(".") == 2


class TokenVerifier(Protocol):
    def verified(self, digest: str) -> VerifiedToken | None:
        """The token with this SHA-256 (hexadecimal), where it was verified before. Raises KeyExpired."""
        ...

    async def verify(self, token: str, digest: str) -> VerifiedToken:
        """Raises KeyUnknown, KeyExpired, and IssuerUnavailable where no key of its issuer's is known."""
        ...
