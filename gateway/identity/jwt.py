"""Tokens of identity providers (JWT, RFC 7519) that callers send in place of a key.

    a request → `verified`, by the token's SHA-256 → known: one look-up in a dictionary
                    ↓ not there
                `verify`: size → header → issuer → key → signature → claims → team and user → kept until it expires

Cheap checks come first, so that a flood of nonsense costs little. A signature costs 0.1 ms (RS256, ES256) to
1 ms (ES512), about as much as the answer to the request. So a token with a bad signature or wrong claims is remembered
for a while: sending it again costs one look-up.

The rules are those of RFC 8725. The algorithm is one of the issuer's list, which can name only signatures by a private
key, and it has to fit the kind of the key, which comes from the issuer's own set. What a token says about keys (`jwk`,
`jku`, `x5c`) is ignored. `crit` is refused, because no extension is known. A token of another type (`typ`, for example
a logout token) is not an access token, and one for another audience is not for this gateway.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jws import JWSRegistry
from msgspec import UNSET

from gateway.core.clock import Clock
from gateway.core.errors import IssuerUnavailable, KeyExpired, KeyUnknown
from gateway.core.issuers import TokenIssuer
from gateway.core.key_ids import JWT_IDS
from gateway.core.snapshot import Caller, ConfigSnapshot, KeyTerms, TeamTerms
from gateway.core.tokens import VerifiedToken
from gateway.identity.claims import Bearer, bearer
from gateway.identity.jwks import KeysPlace, PublicKey, SigningKeys

SKEW_S = 60
"""The most by which the clocks of an identity provider and of the gateway may differ."""

TOKEN_CHARACTERS = 16_384
"""The longest token. Those of providers that list every group of a user have 4,000 or more."""

VERIFIED_MAX = 50_000
REFUSED_MAX = 10_000
CALLERS_MAX = 1_000
"""The number of results that are kept; the oldest are dropped, and computed again when they are needed."""

REFUSED_MS = 10_000
"""How long a refused token is remembered. A token that is not valid yet may be valid soon."""

_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt", "application/jwt"})
"""RFC 9068 names access tokens `at+jwt`; most providers still say JWT, or nothing."""

_SHOWN_CHARACTERS = 100
_LAST_MS = 2**53
"""A token that expires after this does not expire."""


class _Header(msgspec.Struct):
    alg: str
    kid: str = ""
    typ: str = ""
    crit: Any = UNSET
    b64: Any = UNSET


class _Claimed(msgspec.Struct):
    """The claims that are read before a token is verified."""

    iss: Any = None


class _RefusedToken(NamedTuple):
    again: Callable[[], KeyUnknown | KeyExpired]
    until_ms: int


class _Algorithms(JWSRegistry):
    """The headers of one issuer's tokens. A certificate makes a header long, and its custom members are ignored (RFC
    7515, section 4)."""

    max_header_length = 4_096
    max_payload_length = TOKEN_CHARACTERS

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(algorithms=names, strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        """Without the warning that `EdDSA` has a new name (RFC 9864)."""
        return self.algorithms[name]


class _Provider(NamedTuple):
    """An issuer of the configuration in force."""

    issuer: TokenIssuer
    keys: SigningKeys
    algorithms: _Algorithms
    claims: jwt.JWTClaimsRegistry


class JwtVerifier:
    """Implements `core.tokens.TokenVerifier`. `open_keys` makes the keys of a place, and is given what to call when one
    of them is not valid any more."""

    def __init__(self, open_keys: Callable[[KeysPlace, Callable[[], None]], SigningKeys], clock: Clock) -> None:
        self._open_keys = open_keys
        self._clock = clock
        self._providers: dict[str, _Provider] = {}
        """By the name in the tokens' `iss`."""
        self._keys: dict[KeysPlace, SigningKeys] = {}
        """Several issuers may share a place."""
        self._teams: Mapping[str, TeamTerms] = {}
        self._verified: dict[str, VerifiedToken] = {}
        self._refused: dict[str, _RefusedToken] = {}
        self._callers: dict[tuple[str, str, tuple[str, ...] | None], Caller] = {}

    async def keep(self, snapshot: ConfigSnapshot) -> None:
        """Accept tokens by this configuration from now on. Keys at an unchanged place are not fetched again."""
        before, self._keys = self._keys, {}
        self._providers = {}
        for name, issuer in snapshot.issuers.items():
            place = KeysPlace(issuer.jwks, issuer.proxy, issuer.issuer if issuer.is_discovered else "")
            keys = self._keys.get(place) or before.get(place)
            if keys is None:
                keys = self._open_keys(place, self._forget)
                keys.start()
            self._keys[place] = keys
            self._providers[name] = _Provider(issuer, keys, _Algorithms(issuer.algorithms), self._rules(issuer))
        self._teams = snapshot.teams
        self._callers.clear()
        self._forget()
        for place in before.keys() - self._keys.keys():
            await before[place].close()

    async def wait_fetched(self) -> None:
        """Return after the first fetch of each issuer's keys, whether it succeeded or not."""
        for keys in self._keys.values():
            await keys.wait_fetched()

    async def close(self) -> None:
        for keys in self._keys.values():
            await keys.close()

    def verified(self, digest: str) -> VerifiedToken | None:
        token = self._verified.get(digest)
        if token is not None and self._clock.now_ms() >= token.expires_ms:
            del self._verified[digest]
            raise _expired()
        return token

    async def verify(self, token: str, digest: str) -> VerifiedToken:
        refusal = self._refused.get(digest)
        if refusal is not None and self._clock.now_ms() < refusal.until_ms:
            raise refusal.again()
        header, provider = self._read(token)
        kind = provider.algorithms.get_alg(header.alg).key_type
        key = provider.keys.find(header.kid, kind) or await provider.keys.find_fetched(header.kid, kind)
        if self._providers.get(provider.issuer.issuer) is not provider:
            return await self.verify(token, digest)  # The configuration has changed meanwhile.
        if key is None:
            raise _key_missing(header, provider.keys)
        try:
            claims = self._claims(token, key, provider)
            found = self._token(claims, provider.issuer)
        except (KeyUnknown, KeyExpired) as error:
            refusal = _RefusedToken(_same_again(error), self._clock.now_ms() + REFUSED_MS)
            _put(self._refused, digest, refusal, REFUSED_MAX)
            raise
        _put(self._verified, digest, found, VERIFIED_MAX)
        return found

    def _forget(self) -> None:
        self._verified.clear()
        self._refused.clear()

    def _rules(self, issuer: TokenIssuer) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            now=lambda: self._clock.now_ms() // 1000,
            leeway=SKEW_S,
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "values": sorted(issuer.audiences)},
            exp={"essential": True},
        )

    def _read(self, token: str) -> tuple[_Header, _Provider]:
        """The issuer that the token claims, before anything is proved. Raises KeyUnknown."""
        if len(token) > TOKEN_CHARACTERS:
            message = f"The token has more than {TOKEN_CHARACTERS} characters. Ask for one with fewer claims."
            raise KeyUnknown(message, why="token_size")
        first, payload, _ = token.split(".")
        header, claimed = _decoded(first, _Header), _decoded(payload, _Claimed)
        if not isinstance(claimed.iss, str):
            message = "The token does not say who issued it: its claim 'iss' is missing. Get a new one."
            raise KeyUnknown(message, why="token_issuer")
        provider = self._providers.get(claimed.iss)
        if provider is None:
            raise KeyUnknown(
                f"Tokens of the issuer {claimed.iss[:_SHOWN_CHARACTERS]!r} are not accepted here. Get one from the"
                " identity provider that your platform team names, or use an API key.",
                why="token_issuer",
            )
        if header.alg not in provider.issuer.algorithms:
            raise KeyUnknown(
                f"The token is signed by the algorithm {header.alg[:_SHOWN_CHARACTERS]!r}, which is not accepted"
                f" here; accepted are {', '.join(sorted(provider.issuer.algorithms))}.",
                why="token_algorithm",
            )
        if header.crit is not UNSET or header.b64 is not UNSET:
            message = "The token's header has 'crit' or 'b64', which the gateway does not support."
            raise KeyUnknown(message, why="token_header")
        if header.typ.lower() not in _TYPES:
            raise KeyUnknown(
                f"The token is of the type {header.typ[:_SHOWN_CHARACTERS]!r}. Send an access token or an ID token.",
                why="token_header",
            )
        return header, provider

    def _claims(self, token: str, key: PublicKey, provider: _Provider) -> dict[str, Any]:
        """Raises KeyUnknown, KeyExpired."""
        try:
            claims = jwt.decode(token, key, registry=provider.algorithms).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            raise KeyUnknown(
                "The token's signature is not valid, or the token was cut or changed in transit. Get a new one.",
                why="token_signature",
            ) from None
        try:
            provider.claims.validate(claims)
        except ExpiredTokenError:
            raise _expired() from None
        except MissingClaimError as error:
            message = f"The token lacks what is required of it: {error.claim}. Get a new one."
            raise KeyUnknown(message, why="token_claim") from None
        except InvalidClaimError as error:
            raise _claim_refused(error.claim, provider.issuer) from None
        return claims

    def _token(self, claims: dict[str, Any], issuer: TokenIssuer) -> VerifiedToken:
        """Raises KeyUnknown."""
        who = bearer(claims, issuer)
        expires_ms = min(int(min(claims["exp"], _LAST_MS) + SKEW_S) * 1000, _LAST_MS)
        return VerifiedToken(self._caller(who, issuer), who.user, expires_ms)

    def _caller(self, who: Bearer, issuer: TokenIssuer) -> Caller:
        """The same caller for all bearers with the same rights, so that its binding is built once."""
        rights = (issuer.issuer, who.team, who.models)
        caller = self._callers.get(rights)
        if caller is None:
            terms = self._teams.get(who.team)
            if terms is None:
                raise KeyUnknown(
                    f"The token is valid, but its team {who.team[:_SHOWN_CHARACTERS]!r} does not exist here. Ask your"
                    " platform team.",
                    why="token_team",
                )
            key_id = _bearers_id(issuer.issuer, who)
            name = f"jwt-{urlsplit(issuer.issuer).hostname or issuer.issuer}"[:64]
            caller = terms.caller_of(KeyTerms(key_id, name, subject=key_id, models=who.models))
            _put(self._callers, rights, caller, CALLERS_MAX)
        return caller


def _bearers_id(issuer: str, who: Bearer) -> str:
    """What a token's bearer has in place of a key's id: the same for all tokens of an issuer whose bearers are in one
    team and may use the same models."""
    seed = "\n".join((issuer, who.team, *(who.models or ())))
    return f"{JWT_IDS}{hashlib.sha256(seed.encode()).hexdigest()[:8]}"


def _key_missing(header: _Header, keys: SigningKeys) -> KeyUnknown | IssuerUnavailable:
    if keys.is_empty:
        return IssuerUnavailable(
            "The signing keys of the token's issuer could not be fetched yet. Try again.", retry_after_ms=5000
        )
    if not header.kid:
        message = "The token does not say which key it is signed by ('kid'), and its issuer has several."
        return KeyUnknown(message, why="token_key")
    return KeyUnknown(
        f"The token is signed by the key {header.kid[:_SHOWN_CHARACTERS]!r}, which its issuer does not publish. Get a"
        " new token.",
        why="token_key",
    )


def _claim_refused(claim: str, issuer: TokenIssuer) -> KeyUnknown:
    if claim in ("nbf", "iat"):
        return KeyUnknown(
            f"The token is not valid yet (its claim {claim!r}). It is for later, or the clocks of its issuer and of the"
            f" gateway are more than {SKEW_S} s apart.",
            why="token_not_valid_yet",
        )
    if claim == "aud":
        return KeyUnknown(
            "The token is meant for another service: its claim 'aud' must have one of"
            f" {', '.join(sorted(issuer.audiences))}.",
            why="token_audience",
        )
    return KeyUnknown(f"The token's claim {claim!r} is not valid. Get a new one.", why="token_claim")


def _same_again(error: KeyUnknown | KeyExpired) -> Callable[[], KeyUnknown | KeyExpired]:
    """A function that makes the same error again: an error that was raised holds the frames in which it was raised."""
    if isinstance(error, KeyExpired):
        return _expired
    return partial(KeyUnknown, error.message, why=error.why)


def _expired() -> KeyExpired:
    return KeyExpired("The token has expired. Get a new one from your identity provider.", why="token_expired")


def _decoded(segment: str, kind: type[Any]) -> Any:
    """Raises KeyUnknown."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)), type=kind)
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise KeyUnknown(
            "This API key is not valid: it is neither a key of this gateway nor a readable token (JWT). Check it for"
            " typing errors, or ask your platform team for a new one.",
            why="malformed",
        ) from None


def _put(kept: dict[Any, Any], name: Any, value: Any, most: int) -> None:
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[name] = value
