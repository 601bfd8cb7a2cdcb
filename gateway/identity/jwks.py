"""The public keys of an identity provider (JWK Set, RFC 7517), fetched in the background.

    a token → its key is known → verified, without a call
                  ↓ not known
              the next fetch is brought forward, and the token waits for it

A task fetches the keys each `every_s`. A fetch that fails or brings no usable key changes nothing, so the last good
keys stay valid, however long the provider is down. Providers rotate keys: a token with a new key brings the next fetch
forward. Anyone can invent the name of a key, so that happens once in `least_s`, and at most WAITING_MAX tokens wait for
it: more are refused at once. A valid token waits at most for `least_s` and a fetch.

Only keys that can verify a signature by a private key are accepted. `oct` is a shared secret: a provider that publishes
one, a private key or a short RSA key has made a mistake that must not become ours.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.core.errors import GatewayError
from gateway.core.proxies import Proxy
from gateway.runtime.tasks import BackgroundTasks

PublicKey = RSAKey | ECKey | OKPKey

KeysByName = dict[str, dict[str, PublicKey]]
"""Keys by `kid`, and then by `kty`: keys of different kinds may have one name (RFC 7517, section 4.5)."""

WAITING_MAX = 1_024
"""Tokens that wait for a fetch at the same time."""

FETCH_TIMEOUT_S = 10.0

KEYS_MAX = 100
"""Of a set; the largest providers publish ten."""

RSA_BITS_MIN, RSA_BITS_MAX = 2048, 8192
"""The shortest and the longest RSA key: RFC 7518 demands the former; verifying with longer ones takes milliseconds."""

_KINDS: dict[str, type[PublicKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class KeysPlace(NamedTuple):
    """A URL or the path of a file, and the forward proxy on the way there. `issuer`: at the URL is the discovery
    document of this issuer; empty: the keys are there."""

    jwks: str
    proxy: Proxy | None = None
    issuer: str = ""


class FetchPace(NamedTuple):
    """Seconds between two fetches: usually, after a failed one, and at least."""

    every_s: float = 300.0
    retry_s: float = 15.0
    least_s: float = 2.0


class FetchResult(NamedTuple):
    """The result of a fetch; `problem` is empty if it brought keys."""

    jwks: str
    problem: str
    kids: tuple[str, ...]
    """The names of the keys that are known now."""


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class SigningKeys:
    """Keeps the keys of one place. `report` gets the first result, and each that differs from the one before;
    `on_removed` is called when a key is not valid any more."""

    def __init__(
        self,
        jwks: str,
        fetch: Callable[[], Awaitable[bytes]],
        tasks: BackgroundTasks,
        report: Callable[[FetchResult], None],
        on_removed: Callable[[], None],
        pace: FetchPace,
    ) -> None:
        self._jwks = jwks
        self._fetch = fetch
        self._tasks = tasks
        self._report = report
        self._on_removed = on_removed
        self._pace = pace
        self._keys: KeysByName = {}
        self._begun = self._ended = 0
        """Fetches so far."""
        self._next_end = asyncio.Event()
        self._asked = asyncio.Event()
        self._waiting = 0
        self._is_closed = False
        self._reported: FetchResult | None = None

    def start(self) -> None:
        """Fetch in the background from now on."""
        self._tasks.keep_running("follow signing keys", self._follow)

    async def close(self) -> None:
        """No token waits for a fetch any more."""
        await self._tasks.close()
        self._is_closed = True
        self._next_end.set()

    @property
    def is_empty(self) -> bool:
        """Whether no fetch has brought a key yet."""
        return not self._keys

    async def wait_fetched(self) -> None:
        """Return after the first fetch, whether it succeeded or not."""
        while not self._ended and not self._is_closed:
            await self._next_end.wait()

    def find(self, kid: str, kind: str = "") -> PublicKey | None:
        """The key of this name and, if one is given, of this kind ("EC"). A token that names none is by the only key of
        its kind."""
        if not kid:
            every = [key for named in self._keys.values() for key in named.values() if kind in ("", key.key_type)]
            if len(every) == 1:
                return every[0]
        named = self._keys.get(kid, {})
        return named.get(kind) if kind else next(iter(named.values()), None)

    async def find_fetched(self, kid: str, kind: str = "") -> PublicKey | None:
        """Like `find`, after a fetch that begins now or later, or any earlier one that brings the key. If the issuer
        has the name only for a key of another kind, it is that one: no token of this kind is signed by it."""
        if self._waiting >= WAITING_MAX:
            return None
        last = self._begun + 1
        self._asked.set()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._pace.least_s + FETCH_TIMEOUT_S):
                while self.find(kid, kind) is None and self._ended < last and not self._is_closed:
                    await self._next_end.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1
        return self.find(kid, kind) or self.find(kid)

    async def _follow(self) -> None:
        pace = self._pace
        while True:
            self._asked.clear()
            self._begun += 1
            problem = await self._refresh()
            self._ended = self._begun
            ended, self._next_end = self._next_end, asyncio.Event()
            ended.set()
            await asyncio.sleep(pace.least_s)
            with suppress(TimeoutError):
                async with asyncio.timeout((pace.retry_s if problem else pace.every_s) - pace.least_s):
                    await self._asked.wait()

    async def _refresh(self) -> str:
        """Fetch the keys. Returns what was wrong, or an empty text."""
        problem = ""
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                body = await self._fetch()
            self._take(read_keys(body))
        except TimeoutError:
            problem = f"no answer within {FETCH_TIMEOUT_S:.0f} s"
        except GatewayError as error:
            problem = error.message
        except OSError as error:
            problem = f"the file cannot be read: {error.strerror or error}"
        except ValueError as error:
            problem = str(error)
        result = FetchResult(self._jwks, problem, tuple(self._keys))
        if result != self._reported:
            self._reported = result
            self._report(result)
        return problem

    def _take(self, keys: KeysByName) -> None:
        before, self._keys = self._keys, keys
        if _identities(before) - _identities(keys):
            self._on_removed()


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


def place_in(body: bytes, place: KeysPlace) -> KeysPlace:
    """The place of the keys, as the discovery document says (OpenID Connect Discovery 1.0, section 4.3). Raises
    ValueError for the document of another issuer, and if the keys would come over a less safe way than the document."""
    try:
        found = msgspec.json.decode(body, type=_Discovery)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("the answer is no discovery document: an object with `issuer` and `jwks_uri`") from None
    if found.issuer != place.issuer:
        raise ValueError("the discovery document is that of another issuer: `issuer` must be the same to the letter")
    scheme = place.jwks.partition("://")[0]
    if not re.fullmatch(rf"(https|{scheme})://[!-~]+", found.jwks_uri):
        raise ValueError(f"`jwks_uri` of the discovery document must begin with {scheme}://")
    return KeysPlace(found.jwks_uri, place.proxy)


def read_keys(body: bytes) -> KeysByName:
    """The usable keys of a set; one without a name has the empty one. Of several with one name and kind the first
    counts. Raises ValueError where there are none."""
    try:
        written = msgspec.json.decode(body, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("the answer is not a JWK Set: an object with a list `keys`") from None
    found: KeysByName = {}
    for kid, key in _usable(written[:KEYS_MAX]):
        found.setdefault(kid, {}).setdefault(key.key_type, key)
    if not found:
        raise ValueError("the JWK Set has no usable key: RSA with 2048 bits or more, EC or OKP, for signatures")
    return found


def _usable(written: list[dict[str, Any]]) -> Iterator[tuple[str, PublicKey]]:
    for each in written:
        kind, kid = _KINDS.get(str(each.get("kty"))), each.get("kid", "")
        if kind is None or not isinstance(kid, str) or each.get("use", "sig") != "sig" or "d" in each:
            continue
        try:
            if kind is RSAKey and not RSA_BITS_MIN <= _bits(each["n"]) <= RSA_BITS_MAX:
                continue
            key = kind.import_key(each)
            key.check_key_op("verify")
        except (JoseError, ValueError, TypeError, KeyError, OverflowError):
            continue
        yield kid, key


def _bits(modulus: str) -> int:
    """Of a number in Base64 (RFC 7518, section 2). Raises ValueError, TypeError."""
    if len(modulus) > RSA_BITS_MAX:
        raise ValueError("far too long to be decoded")
    return int.from_bytes(urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))).bit_length()


def _identities(keys: KeysByName) -> set[tuple[str, str]]:
    return {(kid, key.thumbprint()) for kid, named in keys.items() for key in named.values()}
