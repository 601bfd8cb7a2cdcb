from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.errors import UpstreamUnreachable
from gateway.identity import jwks
from gateway.identity.jwks import KEYS_MAX, FetchPace, FetchResult, KeysPlace, SigningKeys, place_in, read_keys
from gateway.runtime.tasks import BackgroundTasks
from tests.identity_provider import ec_key, key_set, rsa_key

ONE, OTHER = ec_key("one"), ec_key("other")
SHORT_RSA = {"kty": "RSA", "kid": "short", "e": "AQAB", "n": urlsafe_b64encode(b"\xc7" * 128).rstrip(b"=").decode()}


class Provider:
    """Answers with `answer`, or raises it; each fetch waits for a `let` where `slow`."""

    def __init__(self) -> None:
        self.answer: bytes | Exception = key_set(ONE)
        self.fetches = self.removals = 0
        self.reported: list[FetchResult] = []
        self.slow = False
        self.let = asyncio.Semaphore(0)
        tasks = BackgroundTasks(lambda what, error: pytest.fail(f"{what}: {error!r}"))
        pace = FetchPace(every_s=60, retry_s=0.002, least_s=0.001)
        self.keys = SigningKeys("https://idp/keys", self._fetch, tasks, self.reported.append, self._removed, pace)

    async def _fetch(self) -> bytes:
        self.fetches += 1
        if self.slow:
            await self.let.acquire()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _removed(self) -> None:
        self.removals += 1


@pytest.fixture
async def new() -> AsyncIterator[Provider]:
    """Nothing was asked of it yet."""
    made = Provider()
    yield made
    await made.keys.close()


@pytest.fixture
async def provider(new: Provider) -> Provider:
    new.keys.start()
    return new


async def test_a_key_is_there_after_the_first_fetch(new: Provider) -> None:
    provider = new
    assert provider.keys.is_empty
    provider.keys.start()
    assert (await provider.keys.find_fetched("one")) is provider.keys.find("one") is not None
    assert provider.fetches == 1
    assert provider.reported == [FetchResult("https://idp/keys", "", ("one",))]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (UpstreamUnreachable("Upstream 'idp' refused."), "Upstream 'idp' refused."),
        (FileNotFoundError(2, "No such file or directory"), "the file cannot be read: No such file or directory"),
        (TimeoutError(), "no answer within 10 s"),
        (b"<html>", "is not a JWK Set"),
        (b'{"keys": []}', "no usable key"),
        (b"\xff", "is not a JWK Set"),
        (b"[" * 100_000, "is not a JWK Set"),
        (b'{"keys": {"kty": "RSA"}}', "is not a JWK Set"),
    ],
)
async def test_the_last_good_keys_stay_whatever_a_fetch_brings(
    provider: Provider, answer: bytes | Exception, problem: str
) -> None:
    await provider.keys.find_fetched("one")
    provider.answer = answer
    for _ in range(3):
        assert await provider.keys.find_fetched("unknown") is None
    assert provider.keys.find("one") is not None
    assert [problem in result.problem for result in provider.reported] == [False, True]
    assert provider.removals == 0
    provider.answer = key_set(ONE, OTHER)
    while await provider.keys.find_fetched("other") is None:
        pass
    assert [result.problem for result in provider.reported][2:] == [""]


async def test_an_unknown_key_brings_one_fetch_forward_for_all_that_wait(provider: Provider) -> None:
    await provider.keys.find_fetched("one")
    provider.answer = key_set(ONE, OTHER)
    found = await asyncio.gather(*[provider.keys.find_fetched("other") for _ in range(50)])
    assert all(key is not None for key in found)
    assert provider.fetches == 2


async def test_who_comes_during_a_fetch_waits_for_another(provider: Provider) -> None:
    await provider.keys.find_fetched("one")
    provider.slow = True
    first = asyncio.ensure_future(provider.keys.find_fetched("other"))
    while provider.fetches < 2:
        await asyncio.sleep(0)
    second = asyncio.ensure_future(provider.keys.find_fetched("other"))
    await asyncio.sleep(0)
    provider.let.release()
    assert await first is None
    provider.answer = key_set(ONE, OTHER)
    provider.let.release()
    assert await second is not None


async def test_no_more_tokens_wait_than_may(new: Provider) -> None:
    provider = new
    provider.slow = True
    provider.keys.start()
    waiting = [asyncio.ensure_future(provider.keys.find_fetched("one")) for _ in range(jwks.WAITING_MAX)]
    await asyncio.sleep(0)
    assert await provider.keys.find_fetched("one") is None
    provider.let.release()
    assert all(key is not None for key in await asyncio.gather(*waiting))


async def test_a_key_that_is_withdrawn_or_replaced_is_noticed(provider: Provider) -> None:
    await provider.keys.find_fetched("one")
    provider.answer = key_set(ONE, OTHER)
    await provider.keys.find_fetched("other")
    assert provider.removals == 0
    provider.answer = key_set(OTHER)
    await provider.keys.find_fetched("unknown")
    assert (provider.keys.find("one"), provider.removals) == (None, 1)
    provider.answer = key_set(ec_key("other"))
    await provider.keys.find_fetched("unknown")
    assert provider.removals == 2


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "kid": "one", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "one"},
        {"kty": "RSA", "kid": "one", "n": 7, "e": "AQAB"},
        {"kty": "EC", "kid": "one", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": ["EC"], "kid": "one"},
        {"kid": "one"},
        {**ONE.as_dict(private=False), "kid": 7},
        {**ONE.as_dict(private=False), "use": "enc"},
        ONE.as_dict(private=True),
        {"kty": "RSA", "kid": "one", "e": "AQAB", "n": "_" * 1_000_000},
        {**ONE.as_dict(private=False), "key_ops": ["encrypt"]},
        SHORT_RSA,
    ],
)
def test_a_key_that_can_verify_nothing_is_left_out(entry: dict[str, Any]) -> None:
    good = rsa_key().as_dict(private=False)
    assert list(read_keys(json.dumps({"keys": [entry, good]}).encode())) == ["rsa"]
    with pytest.raises(ValueError, match="no usable key"):
        read_keys(json.dumps({"keys": [entry]}).encode())


def test_so_many_keys_are_taken_at_most() -> None:
    entry = ONE.as_dict(private=False)
    entries = [{**entry, "kid": f"{number}"} for number in range(KEYS_MAX + 1)]
    assert len(read_keys(json.dumps({"keys": entries}).encode())) == KEYS_MAX


FOUND = KeysPlace("https://idp.example/.well-known/openid-configuration", issuer="https://idp.example")


def document(**changes: object) -> bytes:
    return json.dumps({"issuer": FOUND.issuer, "jwks_uri": "https://keys.example/of/idp", "more": 1} | changes).encode()


def test_a_discovery_document_says_where_the_keys_are() -> None:
    assert place_in(document(), FOUND) == KeysPlace("https://keys.example/of/idp")
    near = KeysPlace("http://localhost/.well-known/openid-configuration", issuer="http://localhost")
    there = document(issuer="http://localhost", jwks_uri="http://localhost/keys")
    assert place_in(there, near).jwks == "http://localhost/keys"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "no discovery document"),
        (b"[]", "no discovery document"),
        (b'{"issuer": "https://idp.example"}', "no discovery document"),
        (document(jwks_uri=5), "no discovery document"),
        (document(issuer="https://idp.example/"), "another issuer"),
        (document(issuer="https://evil.example"), "another issuer"),
        (document(jwks_uri="http://keys.example/"), "must begin with https://"),
        (document(jwks_uri="/etc/passwd"), "must begin with https://"),
        (document(jwks_uri="file:///etc/passwd"), "must begin with https://"),
        (document(jwks_uri="https://keys.example/a b"), "must begin with https://"),
    ],
)
def test_a_discovery_document_of_another_or_to_a_less_safe_place_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        place_in(body, FOUND)
