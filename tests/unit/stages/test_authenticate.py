from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.core.errors import KeyExpired, KeyMissing, KeyUnknown
from gateway.core.snapshot import Caller, ConfigSnapshot
from gateway.stages import authenticate as stage
from tests.unit.fakes import CALLER, KEY, NOW_MS, StandingClock, catalogue_of

CATALOGUE = catalogue_of()


def authenticate(headers: Mapping[str, str], snapshot: ConfigSnapshot, clock: StandingClock) -> Caller:
    return stage.authenticate(stage.key_digest(stage.sent_key(headers)), snapshot, clock)


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
    assert authenticate(headers, CATALOGUE, StandingClock()) is CALLER


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"cookie": KEY}, {"x-auth": KEY}])
def test_no_key_is_told_how_to_send_one(headers: dict[str, str]) -> None:
    with pytest.raises(KeyMissing, match="Authorization: Bearer KEY"):
        authenticate(headers, CATALOGUE, StandingClock())


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
        authenticate(headers, CATALOGUE, StandingClock())
    assert KEY not in refused.value.message


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}", "x-api-key": "another"},
        {"authorization": "Bearer another", "x-api-key": KEY},
        {"x-api-key": KEY, "api-key": "another"},
        {"x-goog-api-key": KEY, "api-key": "another"},
        CIMultiDict([("authorization", f"Bearer {KEY}"), ("authorization", "Bearer another")]),
        CIMultiDict([("x-api-key", KEY), ("x-api-key", "another")]),
    ],
)
def test_keys_that_differ_are_refused_in_words_of_their_own(headers: Mapping[str, str]) -> None:
    with pytest.raises(KeyUnknown, match="differ"):
        authenticate(headers, CATALOGUE, StandingClock())


def test_the_hash_of_a_key_is_no_key() -> None:
    with pytest.raises(KeyUnknown):
        authenticate({"authorization": f"Bearer {next(iter(CATALOGUE.callers))}"}, CATALOGUE, StandingClock())


def test_a_key_works_until_the_millisecond_it_expires() -> None:
    clock = StandingClock()
    snapshot = catalogue_of(caller=msgspec.structs.replace(CALLER, expires_ms=NOW_MS + 1))
    assert authenticate({"x-api-key": KEY}, snapshot, clock).key_name == "search-prod"
    clock.ms += 1
    with pytest.raises(KeyExpired, match="search-prod"):
        authenticate({"x-api-key": KEY}, snapshot, clock)


def test_a_disabled_key_looks_unknown_even_when_it_has_expired() -> None:
    caller = msgspec.structs.replace(CALLER, disabled=True, expires_ms=1)
    with pytest.raises(KeyUnknown):
        authenticate({"x-api-key": KEY}, catalogue_of(caller=caller), StandingClock())


@given(st.text(max_size=30), st.sampled_from(["authorization", "x-api-key", "api-key"]))
def test_no_header_raises_anything_else(value: str, name: str) -> None:
    with pytest.raises((KeyMissing, KeyUnknown)):
        authenticate({name: value}, CATALOGUE, StandingClock())
