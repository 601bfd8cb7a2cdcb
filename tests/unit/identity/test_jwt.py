"""Every token of a table is taken, or refused for its reason: those of RFC 8725, and what goes wrong every day."""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey

from gateway.core.errors import IssuerUnavailable, KeyExpired, KeyUnknown
from gateway.core.issuers import TokenClaims, TokenIssuer
from gateway.core.snapshot import Caller, ConfigSnapshot, TeamTerms
from gateway.core.tokens import VerifiedToken
from gateway.identity import jwt
from gateway.identity.jwks import FetchPace, FetchResult, KeysPlace, SigningKeys
from gateway.identity.jwt import REFUSED_MS, SKEW_S, TOKEN_CHARACTERS, JwtVerifier
from gateway.runtime.tasks import BackgroundTasks
from tests.identity_provider import AUDIENCE, ISSUER, claims_of, ec_key, key_set, rsa_key, signed
from tests.unit.fakes import NOW_MS, StandingClock

NOW = NOW_MS // 1000
SEARCH, SALES = Caller("", "", "search", models=(("openai/*",),)), Caller("", "", "sales")
EC, EC384, EC521 = ec_key("ec"), ec_key("ec384", "P-384"), ec_key("ec521", "P-521")
K1 = ec_key("k1", "secp256k1")
OKP = OKPKey.generate_key("Ed25519", {"kid": "okp"})
FOR_ENCRYPTION = ec_key("for-encryption")
PEM, RSA_PEM = EC.as_pem(private=False), rsa_key().as_pem(private=False)
STRANGER = ec_key("ec")
"""Who has this key says that it is the issuer's."""

JWK = json.dumps(EC.as_dict(private=False)).encode()
PUBLISHED = (EC, EC384, EC521, OKP, ECKey.import_key({**FOR_ENCRYPTION.as_dict(private=True), "use": "enc"}))


def issuer_of(**changes: Any) -> TokenIssuer:
    return TokenIssuer(
        **{
            "issuer": ISSUER,
            "audiences": frozenset({AUDIENCE, "api://gateway"}),
            "jwks": "/keys.json",
            "claims": TokenClaims(user="email", models="llm.models"),
            "teams": (("platform-search", "search"), ("sales-eu", "sales")),
            **changes,
        }
    )


class Verifying:
    """A verifier over keys that a test gives it."""

    def __init__(self, *keys: Any) -> None:
        self.clock = StandingClock()
        self.body = key_set(*keys)
        self.fetches = 0
        self.let_fetch = asyncio.Event()
        self.let_fetch.set()
        self.opened: list[KeysPlace] = []
        self.reported: list[FetchResult] = []
        self.verifier = JwtVerifier(self._open, self.clock)

    async def keep(self, *issuers: TokenIssuer) -> None:
        teams = {"search": TeamTerms(SEARCH), "sales": TeamTerms(SALES)}
        by_name = {issuer.issuer: issuer for issuer in issuers}
        await self.verifier.keep(ConfigSnapshot({}, {}, issuers=by_name, teams=teams))

    async def take(self, token: str) -> VerifiedToken:
        digest = sha256(token.encode()).hexdigest()
        return self.verifier.verified(digest) or await self.verifier.verify(token, digest)

    def _open(self, place: KeysPlace, on_removed: Callable[[], None]) -> SigningKeys:
        self.opened.append(place)
        pace = FetchPace(every_s=60, retry_s=0.01, least_s=0.001)
        tasks = BackgroundTasks(lambda what, error: pytest.fail(f"{what}: {error!r}"))
        return SigningKeys(place.jwks, self._fetch, tasks, self.reported.append, on_removed, pace)

    async def _fetch(self) -> bytes:
        self.fetches += 1
        await self.let_fetch.wait()
        return self.body


@pytest.fixture
async def verifying() -> AsyncIterator[Verifying]:
    made = Verifying(*PUBLISHED, rsa_key())
    await made.keep(issuer_of())
    yield made
    await made.verifier.close()


def token(key: Any = EC, alg: str = "ES256", *, header: Any = None, **claims: Any) -> str:
    return signed(claims_of(NOW, **claims), key, alg, **(header or {}))


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(alg: str, signature: str = "") -> str:
    header = json.dumps({"alg": alg, "typ": "JWT", "kid": "ec"}).encode()
    return f"{b64(header)}.{b64(json.dumps(claims_of(NOW)).encode())}.{signature}"


def with_other_claims(whole: str, **changes: Any) -> str:
    first, _, last = whole.split(".")
    return f"{first}.{b64(json.dumps(claims_of(NOW, **changes)).encode())}.{last}"


def with_other_header(whole: str, **members: Any) -> str:
    _, payload, last = whole.split(".")
    return f"{b64(json.dumps(members).encode())}.{payload}.{last}"


def by_hmac(secret: bytes, alg: str, hash_name: str = "sha256") -> str:
    """A public key taken for a shared secret: what CVE-2015-9235 is about."""
    signing_input = unsigned(alg).rpartition(".")[0]
    return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), hash_name))}"


class Good(NamedTuple):
    token: str
    team: str = "search"
    user: str = "ada@example.com"
    models: tuple[tuple[str, ...], ...] = SEARCH.models


GOOD = {
    "as every provider makes them": Good(token()),
    "by RSA": Good(token(rsa_key(), "RS256")),
    "by RSA with a longer hash": Good(token(rsa_key(), "RS512")),
    "by RSA-PSS": Good(token(rsa_key(), "PS256")),
    "by a larger curve": Good(token(EC384, "ES384")),
    "by the largest curve": Good(token(EC521, "ES512")),
    "by Edwards' curve": Good(token(OKP, "Ed25519")),
    "by Edwards' curve, as it was called before": Good(token(OKP, "EdDSA")),
    "for several services": Good(token(aud=["another", AUDIENCE])),
    "for us by another name": Good(token(aud="api://gateway")),
    "an access token by its type": Good(token(header={"typ": "at+jwt"})),
    "of the long type": Good(token(header={"typ": "application/at+jwt"})),
    "of no type": Good(token(header={"typ": None})),
    "with a header of its provider's own": Good(token(header={"x-provider": "7"})),
    "that brings a key, which is not looked at": Good(token(header={"jwk": {"kty": "oct", "k": "AA"}})),
    "that says where a key is": Good(token(header={"jku": "https://evil.example/keys"})),
    "expired, but by less than clocks may differ": Good(token(exp=NOW - SKEW_S + 1)),
    "of a clock that is ahead": Good(token(iat=NOW + SKEW_S, nbf=NOW + SKEW_S)),
    "valid since a while": Good(token(nbf=NOW - 100)),
    "that expires at a fraction of a second": Good(token(exp=NOW + 0.5)),
    "that never expires": Good(token(exp=10**30)),
    "of the second group": Good(token(groups=["sales-eu"]), "sales", models=()),
    "of two groups: the order is the configuration's": Good(token(groups=["sales-eu", "platform-search"])),
    "of a group in text": Good(token(groups="platform-search")),
    "with a verified address": Good(token(email_verified=True)),
    "with models": Good(token(llm={"models": ["openai/a", "x*"]}), models=(*SEARCH.models, ("openai/a", "x*"))),
    "with no model": Good(token(llm={"models": []}), models=(*SEARCH.models, ())),
    "with another user": Good(token(email="bob@example.com"), user="bob@example.com"),
}


class Bad(NamedTuple):
    token: str
    why: str
    kind: type[KeyUnknown | KeyExpired] = KeyUnknown


BAD = {
    "alg none, no signature": Bad(unsigned("none"), "algorithm 'none'"),
    "alg none, in capitals": Bad(unsigned("NONE"), "algorithm 'NONE'"),
    "alg none, with a signature": Bad(unsigned("none", "AAAA"), "algorithm 'none'"),
    "no signature": Bad(unsigned("ES256"), "signature is not valid"),
    "HMAC with the public key in PEM": Bad(by_hmac(PEM, "HS256"), "algorithm 'HS256'"),
    "HMAC with the public RSA key in PEM": Bad(by_hmac(RSA_PEM, "HS512", "sha512"), "algorithm 'HS512'"),
    "HMAC with the public key, called by its own algorithm": Bad(by_hmac(PEM, "ES256"), "signature is not valid"),
    "HMAC with the public key as JWK": Bad(by_hmac(JWK, "HS256"), "algorithm 'HS256'"),
    "an algorithm that nobody knows": Bad(with_other_header(token(), alg="XX", kid="ec"), "algorithm 'XX'"),
    "RSA with the name of an EC key": Bad(token(rsa_key(), "RS256", header={"kid": "ec"}), "signature is not valid"),
    "EC with the name of an RSA key": Bad(token(header={"kid": "rsa"}), "signature is not valid"),
    "another curve than the algorithm's": Bad(
        with_other_header(token(EC384, "ES384"), alg="ES256", kid="ec384"), "sig"
    ),
    "the curve of bitcoin": Bad(token(K1, "ES256K"), "algorithm 'ES256K'"),
    "a stranger's signature": Bad(token(STRANGER), "signature is not valid"),
    "a stranger's key in the header": Bad(
        token(STRANGER, header={"jwk": STRANGER.as_dict(private=False)}), "signature is not valid"
    ),
    "a key for encryption": Bad(token(FOR_ENCRYPTION), "does not publish"),
    "a key that is not published": Bad(token(ec_key("gone")), "key 'gone'"),
    "a name of a key that is a path": Bad(token(header={"kid": "../../dev/null"}), "does not publish"),
    "no name of a key, of several": Bad(token(header={"kid": None}), "several"),
    "crit": Bad(with_other_header(token(), alg="ES256", kid="ec", crit=["exp"], exp=1), "'crit'"),
    "crit, empty": Bad(with_other_header(token(), alg="ES256", kid="ec", crit=[]), "'crit'"),
    "b64, so that the payload is not encoded": Bad(with_other_header(token(), alg="ES256", kid="ec", b64=False), "b64"),
    "a logout token": Bad(token(header={"typ": "logout+jwt"}), "type 'logout\\+jwt'"),
    "a DPoP proof": Bad(token(header={"typ": "dpop+jwt"}), "type 'dpop\\+jwt'"),
    "claims that were changed": Bad(with_other_claims(token(), email="root@example.com"), "signature is not valid"),
    "a signature that was cut": Bad(token()[:-4], "signature is not valid"),
    "a header that was changed": Bad(with_other_header(token(), alg="ES256", kid="ec", typ="JWT", z=1), "signature"),
    "another issuer": Bad(token(iss="https://evil.example/"), "issuer 'https://evil.example/'"),
    "an issuer without its slash": Bad(token(iss=ISSUER[:-1]), "not accepted here"),
    "several issuers": Bad(token(iss=[ISSUER]), "'iss' is missing"),
    "no issuer": Bad(token(iss=None), "'iss' is missing"),
    "another audience": Bad(token(aud="billing"), "another service"),
    "an audience in other letters": Bad(token(aud=AUDIENCE.upper()), "another service"),
    "no audience": Bad(token(aud=None), "lacks what is required of it: aud"),
    "an empty list of audiences": Bad(token(aud=[]), "another service"),
    "an audience that is a number": Bad(token(aud=7), "another service"),
    "expired": Bad(token(exp=NOW - SKEW_S), "expired", KeyExpired),
    "expired long ago": Bad(token(exp=1), "expired", KeyExpired),
    "no end": Bad(token(exp=None), "lacks what is required of it: exp"),
    "an end that is text": Bad(token(exp=str(NOW + 600)), "claim 'exp'"),
    "an end that is no number": Bad(
        signed(json.dumps(claims_of(NOW) | {"exp": float("nan")}).encode(), EC), "neither a key"
    ),
    "an end that is infinite": Bad(
        signed(json.dumps(claims_of(NOW) | {"exp": float("inf")}).encode(), EC), "neither a key"
    ),
    "not valid yet": Bad(token(nbf=NOW + SKEW_S + 1), "not valid yet"),
    "issued in the future": Bad(token(iat=NOW + SKEW_S + 1), "not valid yet"),
    "no user": Bad(token(email=None), "claim 'email' is missing"),
    "a user that is empty": Bad(token(email=""), "claim 'email' is missing"),
    "a user that is a number": Bad(token(email=7), "claim 'email' is missing"),
    "a user that is too long": Bad(token(email="a" * 513), "more than 512"),
    "an address that nobody has verified": Bad(token(email_verified=False), "has not verified"),
    "an address that nobody has verified, in text": Bad(token(email_verified="false"), "has not verified"),
    "no group": Bad(token(groups=None), "belongs to no team"),
    "other groups": Bad(token(groups=["everyone"]), "belongs to no team"),
    "groups that are numbers": Bad(token(groups=[7]), "belongs to no team"),
    "models that are numbers": Bad(token(llm={"models": [7]}), "claim 'llm.models'"),
    "too many models": Bad(token(llm={"models": ["m"] * 101}), "at most 100"),
    "claims that are a list": Bad(signed(b"[]", EC), "neither a key"),
    "claims that are no JSON": Bad(signed(b"{", EC), "neither a key"),
    "too long": Bad(token(pad="x" * TOKEN_CHARACTERS), "fewer claims"),
    "no Base64": Bad("a!.b!.c!", "neither a key"),
    "three dots of nothing": Bad("..", "neither a key"),
    "letters of another script": Bad("ключ.ключ.ключ", "neither a key"),
    "a header that is nested too deeply": Bad(f"{b64(b'[' * 9000)}.e30.", "neither a key"),
}


@pytest.mark.parametrize("which", GOOD)
async def test_a_good_token_is_taken(which: str, verifying: Verifying) -> None:
    good = GOOD[which]
    taken = await verifying.take(good.token)
    assert (taken.caller.team, taken.user, taken.caller.models) == (good.team, good.user, good.models)
    assert await verifying.take(good.token) is taken


@pytest.mark.parametrize("which", BAD)
async def test_a_bad_token_is_refused_for_its_reason(which: str, verifying: Verifying) -> None:
    bad = BAD[which]
    for _ in range(2):
        with pytest.raises(bad.kind, match=bad.why) as refused:
            await verifying.take(bad.token)
        assert type(refused.value) is bad.kind
        assert bad.token not in refused.value.message


@pytest.mark.parametrize(
    ("which", "word"),
    {
        "another issuer": "token_issuer",
        "no issuer": "token_issuer",
        "another audience": "token_audience",
        "alg none, no signature": "token_algorithm",
        "a stranger's signature": "token_signature",
        "a key that is not published": "token_key",
        "no name of a key, of several": "token_key",
        "crit": "token_header",
        "a logout token": "token_header",
        "not valid yet": "token_not_valid_yet",
        "no end": "token_claim",
        "an end that is text": "token_claim",
        "no user": "token_user",
        "an address that nobody has verified": "token_user",
        "other groups": "token_team",
        "models that are numbers": "token_models",
        "too long": "token_size",
        "claims that are no JSON": "malformed",
    }.items(),
)
async def test_the_word_for_the_log_is_the_same_each_time(which: str, word: str, verifying: Verifying) -> None:
    for _ in range(2):
        with pytest.raises(KeyUnknown) as refused:
            await verifying.take(BAD[which].token)
        assert refused.value.why == word


async def test_a_verified_token_expires(verifying: Verifying) -> None:
    whole = token()
    await verifying.take(whole)
    verifying.clock.ms += (600 + SKEW_S) * 1000 - 1
    await verifying.take(whole)
    verifying.clock.ms += 1
    for _ in range(2):
        with pytest.raises(KeyExpired, match="Get a new one"):
            await verifying.take(whole)


async def test_a_token_that_was_too_early_is_taken_when_its_time_has_come(verifying: Verifying) -> None:
    early = token(nbf=NOW + SKEW_S + 5, exp=NOW + 900)
    with pytest.raises(KeyUnknown, match="not valid yet"):
        await verifying.take(early)
    verifying.clock.ms += REFUSED_MS
    assert (await verifying.take(early)).caller.team == "search"


async def test_callers_with_the_same_rights_are_one_caller(verifying: Verifying) -> None:
    ada, bob = await verifying.take(token()), await verifying.take(token(email="bob@example.com"))
    sales = await verifying.take(token(groups=["sales-eu"]))
    assert ada.caller is bob.caller
    assert ada.caller.key_id != sales.caller.key_id
    assert ada.caller.key_id.startswith("jwt-")
    assert ada.caller.key_name == "jwt-idp.example"


async def test_the_same_models_in_any_order_are_the_same_rights(verifying: Verifying) -> None:
    """Else each order would have counters of its own: limits of keys would bind each of them by itself."""
    orders = (["a/*", "b/*"], ["b/*", "a/*"], ["b/*", "a/*", "b/*"])
    callers = [(await verifying.take(token(llm={"models": models}))).caller for models in orders]
    assert callers[1] is callers[0]
    assert callers[2] is callers[0]
    assert (await verifying.take(token(llm={"models": ["a/*"]}))).caller.key_id != callers[0].key_id


async def test_a_team_can_be_named_by_a_claim_of_its_own(verifying: Verifying) -> None:
    await verifying.keep(issuer_of(claims=TokenClaims(team="https://example.com/team"), default_team="sales"))
    direct = await verifying.take(token(**{"https://example.com/team": "search"}))
    mapped = await verifying.take(token(**{"https://example.com/team": "platform-search"}))
    neither = await verifying.take(token(groups=None))
    assert [taken.caller.team for taken in (direct, mapped, neither)] == ["search", "search", "sales"]
    with pytest.raises(KeyUnknown, match="its team 'nobody' does not exist"):
        await verifying.take(token(**{"https://example.com/team": "nobody"}))


async def test_a_token_without_a_name_of_a_key_is_by_the_only_one() -> None:
    verifying = Verifying(EC)
    await verifying.keep(issuer_of())
    assert (await verifying.take(token(header={"kid": None}))).user == "ada@example.com"
    await verifying.verifier.close()


async def test_keys_of_different_kinds_may_have_one_name_or_none() -> None:
    for kid in ("one", None):
        named = [{**key.as_dict(private=False), "kid": kid or ""} for key in (EC, rsa_key(), OKP)]
        made = Verifying()
        made.body = json.dumps({"keys": named}).encode()
        await made.keep(issuer_of())
        for key, alg in ((EC, "ES256"), (rsa_key(), "RS256"), (OKP, "Ed25519")):
            assert (await made.take(token(key, alg, header={"kid": kid}))).caller.team == "search"
        await made.verifier.close()


async def test_a_key_of_another_kind_under_a_known_name_is_fetched() -> None:
    for kid in ("one", None):
        rsa, ec = [{**key.as_dict(private=False), "kid": kid or ""} for key in (rsa_key(), EC)]
        made = Verifying()
        made.body = json.dumps({"keys": [rsa]}).encode()
        await made.keep(issuer_of())
        await made.take(token(rsa_key(), "RS256", header={"kid": kid}))
        made.body = json.dumps({"keys": [rsa, ec]}).encode()
        assert (await made.take(token(header={"kid": kid}))).caller.team == "search"
        await made.verifier.close()


async def test_an_algorithm_that_the_operator_left_out_is_refused(verifying: Verifying) -> None:
    await verifying.keep(issuer_of(algorithms=frozenset({"RS256"})))
    await verifying.take(token(rsa_key(), "RS256"))
    with pytest.raises(KeyUnknown, match="not accepted here; accepted are RS256"):
        await verifying.take(token())


async def test_a_key_that_is_withdrawn_ends_what_it_has_signed(verifying: Verifying) -> None:
    whole = token()
    await verifying.take(whole)
    verifying.body = key_set(EC384)
    with pytest.raises(KeyUnknown):
        await verifying.take(token(ec_key("brings-a-fetch-forward")))
    with pytest.raises(KeyUnknown, match="does not publish"):
        await verifying.take(whole)


async def test_a_reload_fetches_no_key_again_and_takes_teams_anew(verifying: Verifying) -> None:
    whole = token()
    await verifying.take(whole)
    fetches = verifying.fetches
    await verifying.keep(issuer_of(teams=(("everyone", "sales"),)))
    assert (await verifying.take(whole)).caller.team == "sales"
    assert verifying.fetches == fetches
    await verifying.keep()
    with pytest.raises(KeyUnknown, match="not accepted here"):
        await verifying.take(whole)


async def test_so_many_verified_tokens_are_kept_and_the_oldest_goes_first(
    verifying: Verifying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwt, "VERIFIED_MAX", 3)
    tokens = [token(jti=f"{number}") for number in range(4)]
    taken = [await verifying.take(each) for each in tokens]
    kept = [verifying.verifier.verified(sha256(each.encode()).hexdigest()) for each in tokens]
    assert kept == [None, *taken[1:]]
    assert (await verifying.take(tokens[0])).caller is taken[0].caller


async def test_a_token_that_waits_while_the_configuration_changes_is_judged_by_the_new_one() -> None:
    verifying = Verifying(EC)
    verifying.let_fetch.clear()
    await verifying.keep(issuer_of())
    known, removed = [asyncio.ensure_future(verifying.take(token(jti=jti))) for jti in "ab"]
    await asyncio.sleep(0)
    await verifying.keep(issuer_of(teams=(("everyone", "sales"),)))
    verifying.let_fetch.set()
    assert (await known).caller.team == (await removed).caller.team == "sales"

    verifying.let_fetch.clear()
    waits = asyncio.ensure_future(verifying.take(token(ec_key("new"))))
    await asyncio.sleep(0)
    await verifying.keep()
    with pytest.raises(KeyUnknown, match="not accepted here"):
        await waits
    await verifying.verifier.close()


async def test_issuers_with_the_same_keys_share_them(verifying: Verifying) -> None:
    for _ in range(2):
        await verifying.keep(issuer_of(), issuer_of(issuer="https://other.example/"))
    assert len(verifying.opened) == 1
    other = await verifying.take(token(iss="https://other.example/"))
    assert other.caller.key_id != (await verifying.take(token())).caller.key_id


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_whatever_looks_like_a_token_is_refused_as_a_key(first: str, second: str, third: str) -> None:
    async def take(sent: str) -> None:
        with pytest.raises(KeyUnknown):
            await Verifying(EC).verifier.verify(sent, "digest")

    parts = [part.replace(".", "") for part in (first, second, third)]
    asyncio.run(take(".".join(parts)))
    asyncio.run(take(".".join((*[b64(part.encode(errors="replace")) for part in parts[:2]], parts[2]))))


async def test_a_provider_that_was_never_reached_is_no_fault_of_the_token() -> None:
    verifying = Verifying()
    await verifying.keep(issuer_of())
    with pytest.raises(IssuerUnavailable) as refused:
        await verifying.take(token())
    assert refused.value.retry_after_ms
    assert "no usable key" in verifying.reported[0].problem
    verifying.body = key_set(EC)
    async with asyncio.timeout(10):
        while True:
            try:
                await verifying.take(token())
            except IssuerUnavailable:
                continue
            break
    await verifying.verifier.close()
