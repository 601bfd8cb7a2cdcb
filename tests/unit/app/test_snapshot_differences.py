"""What the audit tells of a reload."""

from __future__ import annotations

from typing import Any

from gateway.app.snapshot_builder import snapshot
from gateway.app.snapshot_differences import SHOWN_MAX, differences, in_words, restarted_counters
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


def test_a_receiver_of_notifications_is_no_change_of_what_it_is_notified_of() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    quotas: dict[str, Any] = {"team": {"limits": [LIMIT], "key_limits": [LIMIT]}, "model": {"limits": [LIMIT]}}
    notify = [{"url": "https://hooks.example/T0/xyzzy", "secret": secret, "at": ["80%"]}]
    before, after = built(**quotas), built(**quotas, notify=notify)
    found = differences(before, after)
    assert found.before == {}
    assert in_words(found) == ["receiver json-1 added"]
    assert "xyzzy" not in str(found)
    assert secret not in str(found)
    assert restarted_counters(before, after) == []


def test_of_many_keys_the_first_are_shown_and_the_number_of_the_rest() -> None:
    keys = [key_settings(f"k{number}", f"key-{number}") for number in range(SHOWN_MAX + 20)]
    found = differences(built(team={"keys": []}), built(team={"keys": keys}))
    assert (len(found.after["keys"]), found.after["more_keys"]) == (SHOWN_MAX, 20)


def test_no_secret_is_told() -> None:
    found = str(differences(built(team={"keys": []}), built()))
    assert KEY not in found
    assert UPSTREAM_KEY not in found


def test_the_log_has_what_came_went_and_changed_in_words() -> None:
    keys = [key_settings(f"k{number}", f"key-{number}") for number in range(SHOWN_MAX + 20)]
    after = built(team={"limits": [LIMIT], "keys": keys}, model={"aliases": ["gpt-oss"]})
    lines = in_words(differences(built(), after))
    assert lines[0] == "team search changed"
    assert [line.split()[0] for line in lines].count("key") == SHOWN_MAX
    assert lines[-2:] == ["and 21 keys more", f"model {MODEL} changed"]
    assert in_words(differences(built(), built())) == []


def test_counters_restart_where_a_limit_is_renamed_or_counts_something_else_and_nowhere_else() -> None:
    per_month = {"tokens": 5, "per": "month"}
    before = {
        "limits": [LIMIT, per_month, {"concurrent": 4, "name": "most"}, {"requests": 7, "per": "hour"}],
        "key_limits": [LIMIT],
        "user_limits": [LIMIT],
    }
    after = {
        "limits": [
            {**LIMIT, "requests": 900},
            {**per_month, "name": "monthly"},
            {"requests": 4, "per": "minute", "name": "most"},
            {"usd": 5, "per": "month"},
        ],
        "key_limits": [{**LIMIT, "name": "each"}],
        "user_limits": [{**LIMIT, "requests": 6}],
    }
    priced = {"price": {"input": 1, "output": 1}}
    found = restarted_counters(built(team=before, model=priced), built(team=after, model=priced))
    assert sorted(found) == [
        "limit each of each key of team 'search'",
        "limit monthly of team 'search'",
        "limit most of team 'search'",
    ]
