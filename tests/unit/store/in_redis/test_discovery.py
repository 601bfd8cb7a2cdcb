from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from gateway.store.in_redis.discovery import slot_of


@given(key=st.text(st.sampled_from("{}ab:ü"), max_size=12))
def test_slots_are_those_of_the_reference_client(key: str) -> None:
    assert slot_of(key) == key_slot(key.encode())


@pytest.mark.parametrize(
    ("key", "slot"), [("123456789", 0x31C3 % 16_384), ("foo{}{bar}", 8363), ("foo{{bar}}zap", 4015)]
)
def test_slots_are_those_of_the_specification(key: str, slot: int) -> None:
    assert slot_of(key) == slot
