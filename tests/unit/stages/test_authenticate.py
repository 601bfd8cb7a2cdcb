from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.core.clock import Clock
from gateway.core.errors import KeyExpired, KeyMissing, KeyUnknown
from gateway.core.head_outline import outline_of_head
from gateway.core.snapshot import Caller, ConfigSnapshot
from gateway.stages.authenticate import authenticate, key_digest, sent_key, stored_caller
from tests.unit.fakes import CALLER, KEY, NOW_MS, StandingClock, StoredCallers, headers_of, incoming_of, snapshot_with

CATALOGUE = snapshot_with()


def caller_by(headers: Mapping[str, str], snapshot: ConfigSnapshot = CATALOGUE, clock: Clock | None = None) -> Caller:
    """Who sends these headers, as the pipeline finds it out where nothing is stored."""
    sent = headers_of(headers)
    known = snapshot.callers.get(key_digest(sent_key(sent, outline_of_head(sent).keys)))
    return authenticate(incoming_of(b""), known, clock or StandingClock())


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": f"BEARER   {KEY} "},
        {"x-api-key": KEY},
        {"api-key": KEY},
        {"x-goog-api-key": KEY},
        {"X-API-Key": KEY, "api-key": KEY},
        {"x-api-key": "", "api-key": KEY},
        {"authorization": f"Bearer {KEY}", "x-api-key": KEY},
        CIMultiDict([("authorization", f"Bearer {KEY}"), ("Authorization", f"bearer {KEY}")]),
    ],
)
def test_a_key_is_found_where_clients_send_it(headers: Mapping[str, str]) -> None:
    assert caller_by(headers) is CALLER


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"cookie": KEY}, {"x-auth": KEY}])
def test_no_key_is_told_how_to_send_one(headers: dict[str, str]) -> None:
    with pytest.raises(KeyMissing, match="Authorization: Bearer KEY"):
        caller_by(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer  "},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY} {KEY}"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"authorization": "Basic eA==", "x-api-key": KEY},
        {"authorization": f"Bearer \u3000{KEY}"},
        {"authorization": f"Bearer {KEY}\xa0"},
        {"x-api-key": f" {KEY}"},
        {"x-api-key": "\udcff\udcfe"},
        {"authorization": "Bearer \udcff"},
        {"authorization": "Bearer \x00"},
    ],
)
def test_another_key_is_unknown(headers: dict[str, str]) -> None:
    with pytest.raises(KeyUnknown) as refused:
        caller_by(headers)
    assert KEY not in refused.value.message


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}", "x-api-key": "another"},
        {"authorization": "Bearer another", "x-api-key": KEY},
        {"x-api-key": KEY, "api-key": "another"},
        {"x-goog-api-key": KEY, "api-key": "another"},
        CIMultiDict([("authorization", f"Bearer {KEY}"), ("Authorization", "Bearer another")]),
        CIMultiDict([("x-api-key", KEY), ("x-api-key", "another")]),
    ],
)
def test_keys_that_differ_are_refused_in_words_of_their_own(headers: Mapping[str, str]) -> None:
    with pytest.raises(KeyUnknown, match="differ"):
        caller_by(headers)


def test_the_hash_of_a_key_is_no_key() -> None:
    with pytest.raises(KeyUnknown):
        caller_by({"authorization": f"Bearer {next(iter(CATALOGUE.callers))}"})


def test_a_key_works_until_the_millisecond_it_expires() -> None:
    clock = StandingClock()
    snapshot = snapshot_with(caller=msgspec.structs.replace(CALLER, expires_ms=NOW_MS + 1))
    assert caller_by({"x-api-key": KEY}, snapshot, clock).key_name == "search-prod"
    clock.ms += 1
    with pytest.raises(KeyExpired, match="search-prod"):
        caller_by({"x-api-key": KEY}, snapshot, clock)


def test_a_disabled_key_looks_unknown_even_when_it_has_expired() -> None:
    caller = msgspec.structs.replace(CALLER, disabled=True, expires_ms=1)
    with pytest.raises(KeyUnknown):
        caller_by({"x-api-key": KEY}, snapshot_with(caller=caller))


@given(st.text(max_size=30), st.sampled_from(["authorization", "x-api-key", "api-key"]))
def test_no_header_raises_anything_else(value: str, name: str) -> None:
    with pytest.raises((KeyMissing, KeyUnknown)):
        caller_by({name: value})


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [("10.1.2.3", True), ("2001:db8::7", True), ("11.0.0.1", False), ("", False)],
)
def test_a_key_with_networks_works_from_there_alone(address: str, is_allowed: bool) -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    caller = msgspec.structs.replace(CALLER, networks=networks)
    request = msgspec.structs.replace(incoming_of(b""), client_ip=address)
    if is_allowed:
        assert authenticate(request, caller, StandingClock()) is caller
    else:
        with pytest.raises(KeyUnknown):
            authenticate(request, caller, StandingClock())


async def test_a_stored_key_is_asked_for_once_it_is_not_known_and_its_use_is_noted() -> None:
    directory = StoredCallers({"digest": CALLER})
    assert await stored_caller("digest", directory) is CALLER
    directory.callers["digest"] = CALLER
    assert await stored_caller("digest", directory) is CALLER
    assert directory.asked == ["digest"]
    assert directory.used == {CALLER.key_id}
    assert await stored_caller("another", directory) is None
    assert directory.used == {CALLER.key_id}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": KEY},
        {"x-api-key": "unknown"},
        {"x-api-key": "one", "api-key": "other"},
    ],
    ids=["missing", "malformed", "unknown", "several"],
)
def test_a_refusal_of_a_key_keeps_nothing_of_those_before_it(headers: dict[str, str]) -> None:
    depths = []
    for _ in range(3):
        with pytest.raises((KeyMissing, KeyUnknown)) as refused:
            caller_by(headers)
        depths.append(len(refused.traceback))
        assert refused.value.is_shared
    assert len(set(depths)) == 1
