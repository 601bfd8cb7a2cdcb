"""What the audit tells of a reload."""

from __future__ import annotations

from typing import Any

from gateway.app.snapshot_builder import snapshot
from gateway.app.snapshot_differences import SHOWN_MAX, differences
from gateway.core.snapshot import ConfigSnapshot
from tests.whole_gateway import KEY, MODEL, UPSTREAM_KEY, configuration, key_settings, settings_of

LIMIT = {"requests": 5, "per": "day"}


def built(loaded_at: int = 0, **changes: Any) -> ConfigSnapshot:
    return snapshot(settings_of(configuration("http://127.0.0.1:1/v1", **changes)), loaded_at)


def test_the_same_file_at_another_time_differs_in_nothing() -> None:
    assert differences(built(), built(5)) == ({}, {})


def test_what_came_went_and_changed_is_told_by_name() -> None:
    after = built(
        team={"limits": [LIMIT], "keys": [key_settings(limits=[LIMIT]), key_settings("new", "another-key")]},
        model={"aliases": ["gpt-oss"]},
    )
    found = differences(built(), after)
    assert [key["name"] for key in found.before["keys"].values()] == ["search-test"]
    assert [key["name"] for key in found.after["keys"].values()] == ["search-test", "new"]
    assert found.before["teams"]["search"]["limits"] == []
    assert found.after["teams"]["search"]["limits"] == [{"name": "requests-per-day", "requests": 5, "per": "day"}]
    assert found.after["models"][MODEL]["aliases"] == ["gpt-oss"]
    back = differences(after, built())
    assert (back.before, back.after) == (found.after, found.before)


def test_a_limit_of_a_team_is_no_change_of_its_keys() -> None:
    assert set(differences(built(), built(team={"limits": [LIMIT]})).after) == {"teams"}


def test_of_many_keys_the_first_are_shown_and_the_number_of_the_rest() -> None:
    keys = [key_settings(f"k{number}", f"key-{number}") for number in range(SHOWN_MAX + 20)]
    found = differences(built(team={"keys": []}), built(team={"keys": keys}))
    assert (len(found.after["keys"]), found.after["more_keys"]) == (SHOWN_MAX, 20)


def test_no_secret_is_told() -> None:
    found = str(differences(built(team={"keys": []}), built()))
    assert KEY not in found
    assert UPSTREAM_KEY not in found
