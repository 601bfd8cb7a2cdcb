from __future__ import annotations

import random
from typing import get_type_hints

import msgspec
import pytest

from gateway.demo.script import DemoScript


def test_a_change_leaves_the_rest_as_it_was() -> None:
    changed = DemoScript(chunks=3, bom=True).changed({"chunks": 5})
    assert (changed.chunks, changed.bom) == (5, True)


@pytest.mark.parametrize("change", [{"chunk": 5}, {"chunks": -1}, {"usage": "sometimes"}, {"mishap_share": 2}])
def test_a_change_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        DemoScript().changed(change)


def test_mishaps_come_in_their_share_and_the_same_seed_gives_the_same() -> None:
    script = DemoScript(mishap_share=0.2, mishaps=({"status": 500}, {"halt": "reset"}))

    def roll() -> list[DemoScript]:
        dice = random.Random(7)
        return [script.rolled(dice) for _ in range(1000)]

    rolled = roll()
    assert rolled == roll()
    assert 150 < sum(one.status == 500 or one.halt == "reset" for one in rolled) < 250


def test_every_field_is_described() -> None:
    hints = get_type_hints(DemoScript, include_extras=True)
    for name in DemoScript.__struct_fields__:
        assert any(note.description for note in hints[name].__metadata__), name
