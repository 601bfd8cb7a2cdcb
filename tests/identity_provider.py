"""An identity provider for tests: it signs tokens as a real one does (OpenID Connect), publishes its keys over HTTP,
rotates them, and can be down."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from typing import Any

from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://idp.example/"
AUDIENCE = "llm-gateway"

AnyKey = ECKey | RSAKey | OKPKey


@cache
def rsa_key() -> RSAKey:
    """One for all tests: to make it takes long."""
    return RSAKey.generate_key(2048, {"kid": "rsa"})


def ec_key(kid: str, curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, {"kid": kid})


def signed(claims: dict[str, Any] | bytes, key: AnyKey, alg: str = "ES256", **header: Any) -> str:
    """Any header, any claims, any algorithm: what an attacker could send, too. None leaves a member out."""
    members = {"alg": alg, "typ": "JWT", "kid": key.kid, **header}
    written = {name: value for name, value in members.items() if value is not None}
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jws.serialize_compact(written, payload, key, registry=_Anything(strict_check_header=False))


def claims_of(now_s: int, **changes: Any) -> dict[str, Any]:
    """Those of an ordinary token; None leaves a claim out."""
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "u-42",
        "email": "ada@example.com",
        "groups": ["everyone", "platform-search"],
        "iat": now_s,
        "exp": now_s + 600,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def key_set(*keys: AnyKey) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


class _Anything(JWSRegistry):
    def get_alg(self, name: str) -> Any:
        """Whatever it is, without a warning."""
        return self.algorithms[name]


class IdentityProvider:
    """Its keys are at `jwks`. `asked` counts the requests for them; while `down`, each is answered with 503."""

    def __init__(self) -> None:
        self.down = False
        self.asked = 0
        self.answered = asyncio.Condition()
        """Notified after each request for the keys."""
        self.keys = [ec_key("first")]
        self.discovery: dict[str, str] = {}
        """What its discovery document has in place of the truth."""
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> IdentityProvider:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discover)
        app.router.add_get("/keys", self._publish)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Its issuer, for gateways that are to find its keys by themselves."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def jwks(self) -> str:
        return f"{self.url}/keys?tenant=acme"

    def rotate(self, kid: str, *, keep: int = 1) -> None:
        """Sign with a new key from now on; publish it with so many of those before it."""
        self.keys = [*self.keys[len(self.keys) - keep :], ec_key(kid)]

    def token(self, now_s: int, **claims: Any) -> str:
        """By the newest key."""
        return signed(claims_of(now_s, **claims), self.keys[-1])

    async def wait_asked(self, number: int) -> None:
        """Return once the keys were asked for so often."""
        async with asyncio.timeout(10), self.answered:
            await self.answered.wait_for(lambda: self.asked >= number)

    async def _discover(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": self.jwks, **self.discovery})

    async def _publish(self, request: web.Request) -> web.Response:
        self.asked += 1
        async with self.answered:
            self.answered.notify_all()
        if self.down:
            return web.Response(status=503)
        if dict(request.query) != {"tenant": "acme"}:
            return web.Response(status=404)
        return web.Response(body=key_set(*self.keys), content_type="application/json")
