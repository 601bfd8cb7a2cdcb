"""Identity providers whose tokens are accepted in place of a key, as the configuration describes them."""

from __future__ import annotations

import msgspec

from gateway.core.proxies import Proxy

TOKEN_ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
)
"""Signatures by a private key alone (RFC 7518, RFC 8037, RFC 9864). With HMAC a party that checks tokens could
make one, and `none` proves nothing."""


class TokenClaims(msgspec.Struct, frozen=True):
    """The names of claims; empty where none is read. One with dots is a path, unless a claim is called so."""

    user: str = "sub"
    groups: str = "groups"
    team: str = ""
    models: str = ""


class TokenIssuer(msgspec.Struct, frozen=True):
    """An identity provider, and which teams its tokens belong to."""

    issuer: str
    """As its tokens have it in `iss`, to the letter."""
    audiences: frozenset[str]
    """A token is taken where it is meant for one of these."""
    jwks: str
    """Where its public keys are: a URL, or the path of a file; or the URL of the document that says where."""
    algorithms: frozenset[str] = frozenset(TOKEN_ALGORITHMS)
    claims: TokenClaims = TokenClaims()
    teams: tuple[tuple[str, str], ...] = ()
    """Groups and their teams: the first that a token has decides."""
    default_team: str = ""
    """Of tokens that none of the groups has; empty: they are refused."""
    is_discovered: bool = False
    """Whether `jwks` is such a document (OpenID Connect Discovery 1.0)."""
    proxy: Proxy | None = None
    """The forward proxy on the way to `jwks`."""
