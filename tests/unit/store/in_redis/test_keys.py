from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.limits import Scope
from gateway.store.in_redis.keys import StoreKeys, hash_tag
from tests.contract.store.asking import limit

KEYS = StoreKeys("gw")
ONE = limit("tokens", "minute", 100)


def test_a_key_says_what_it_is() -> None:
    assert KEYS.counter(ONE) == "gw:1:{t/red}:c:team:red:tokens:minute:tokens-minute"


def test_counters_of_one_team_live_together() -> None:
    key = limit("tokens", "day", 1, scope=Scope.KEY, subject="k1")
    user = limit("concurrent", None, 1, scope=Scope.USER, subject="ann")
    assert {hash_tag(one) for one in (ONE, key, user)} == {"t/red"}
    assert hash_tag(limit("tokens", "day", 1, scope=Scope.MODEL, subject="org/m", team="")) == "m/org/m"
    assert hash_tag(limit("tokens", "day", 1, scope=Scope.ORGANISATION, subject="", team="")) == "o"


def test_an_end_user_is_not_named() -> None:
    assert "ann@example.org" not in KEYS.counter(limit("tokens", "day", 1, scope=Scope.USER, subject="ann@example.org"))


def test_every_part_of_an_identity_makes_another_counter() -> None:
    changed: list[dict[str, Any]] = [
        {"name": "other"},
        {"scope": Scope.KEY},
        {"subject": "blue"},
        {"team": "blue"},
        {"meter": limit("usd", "day", 1).meter},
        {"per": limit("usd", "day", 1).per},
        {"models": ("a",)},
        {"models": ("b",)},
        {"scope": Scope.USER, "subject": "ann"},
        {"scope": Scope.USER, "subject": "bob"},
    ]
    named = [KEYS.counter(msgspec.structs.replace(ONE, **change)) for change in changed]
    assert len({KEYS.counter(ONE), *named}) == 11


def test_amount_and_mode_do_not() -> None:
    assert KEYS.counter(msgspec.structs.replace(ONE, amount=7, burst=9)) == KEYS.counter(ONE)


@given(name=st.text(max_size=300), team=st.text(min_size=1, max_size=300))
def test_no_name_leaves_its_place(name: str, team: str) -> None:
    key = KEYS.counter(limit("tokens", "day", 1, name=name, team=team, subject=team))
    assert (key.count(":"), key.count("{"), key.count("}"), key.index("{")) == (8, 1, 1, 5)
    assert key.isascii()
    assert not any(letter.isspace() for letter in key)
    assert len(key) < 300


def test_other_names_in_other_places_are_other_counters() -> None:
    one = limit("tokens", "day", 1, name="a/b", team="x", subject="x")
    other = limit("tokens", "day", 1, name="a%2Fb", team="x", subject="x")
    assert KEYS.counter(one) != KEYS.counter(other)
