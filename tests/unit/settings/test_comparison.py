"""What differs between two texts of a configuration, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.settings.comparison import COUNTER_RESTARTS, NEEDS_RESTART, compare
from gateway.settings.redacted import text_tree
from gateway.settings.text_change import TextChange

TEAM = "teams: {t: {models: [a, b], limits: [{requests: 5, per: minute}, {tokens: 10_000, per: day}]}}"


def changes(before: str, after: str) -> list[TextChange]:
    return compare(text_tree(before), text_tree(after), ("workers",))


def change(path: str, kind: str, before: Any = None, after: Any = None, note: str = "") -> TextChange:
    return TextChange(path, kind, before, after, note)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (TEAM, []),
        (TEAM.replace("10_000", "10000"), []),
        (
            "teams: {t: {models: [b, a], limits: [{tokens: 10_000, per: day}, {requests: 5, per: minute}]}}",
            [],
        ),
        (
            TEAM.replace("10_000", "20_000"),
            [change("teams.t.limits.tokens-per-day.tokens", "changed", "10_000", "20_000")],
        ),
        (
            TEAM.replace("[a, b]", "[a, c]"),
            [
                change("teams.t.models.c", "added", None, "c"),
                change("teams.t.models.b", "removed", "b"),
            ],
        ),
        (
            TEAM.replace("{requests: 5", "{name: slow, requests: 5"),
            [change("teams.t.limits.slow", "renamed", "requests-per-minute", "slow", COUNTER_RESTARTS)],
        ),
        (
            TEAM + "\nworkers: 4",
            [change("workers", "added", None, "4", NEEDS_RESTART)],
        ),
        ("", [change("teams", "removed", {"t": text_tree(TEAM).shown["teams"]["t"]})]),
    ],
)
def test_a_change_is_told_by_what_is_changed(after: str, expected: list[TextChange]) -> None:
    assert changes(TEAM, after) == expected


def test_a_limit_that_counts_something_else_under_its_name_begins_again() -> None:
    before = "limits: [{name: budget, usd: 5, per: month}]"
    (found,) = changes(before, before.replace("month", "week"))
    assert (found.path, found.note) == ("limits.budget.per", COUNTER_RESTARTS)
    (found,) = changes(before, before.replace("usd: 5", "usd: 6"))
    assert (found.path, found.note) == ("limits.budget.usd", "")


def test_a_limit_that_is_renamed_shows_what_else_has_changed() -> None:
    """The amount, and that it refuses nothing any more, are what a reviewer has to see."""
    after = "limits: [{name: monthly, usd: 900, per: month, mode: shadow}]"
    assert changes("limits: [{name: budget, usd: 500, per: month}]", after) == [
        change("limits.monthly", "renamed", "budget", "monthly", COUNTER_RESTARTS),
        change("limits.monthly.usd", "changed", "500", "900", COUNTER_RESTARTS),
        change("limits.monthly.mode", "added", None, "shadow", COUNTER_RESTARTS),
    ]


def test_of_several_limits_that_count_the_same_those_are_one_that_differ_least() -> None:
    before = "limits: [{name: a, usd: 5, per: day}, {name: b, usd: 9_000, per: day, mode: shadow}]"
    after = "limits: [{name: y, usd: 9000, per: day, mode: shadow}, {name: x, usd: 6, per: day}]"
    assert changes(before, after) == [
        change("limits.y", "renamed", "b", "y", COUNTER_RESTARTS),
        change("limits.x", "renamed", "a", "x", COUNTER_RESTARTS),
        change("limits.x.usd", "changed", "5", "6", COUNTER_RESTARTS),
    ]


def test_a_changed_secret_is_told_and_not_shown() -> None:
    (found,) = changes("admin: {token: one-secret}", "admin: {token: another-one}")
    assert found == change("admin.token", "changed", "(redacted)", "(redacted)")


def test_routes_and_keys_are_told_apart_by_name() -> None:
    before = (
        "models: {m: {routes: [{upstream: a}, {upstream: b, weight: 2}]}}\nteams: {t: {keys: [{name: k, sha256: a}]}}"
    )
    after = (
        "models: {m: {routes: [{upstream: b, weight: 3}, {upstream: a}]}}\nteams: {t: {keys: [{name: l, sha256: b}]}}"
    )
    assert [(each.path, each.change) for each in changes(before, after)] == [
        ("models.m.routes.b.weight", "changed"),
        ("teams.t.keys.l", "added"),
        ("teams.t.keys.k", "removed"),
    ]


def test_two_routes_to_one_upstream_are_two() -> None:
    before = "models: {m: {routes: [{upstream: a, model: x}, {upstream: a, model: y}]}}"
    (found,) = changes(before, before.replace("model: y", "model: y, weight: 2"))
    assert found.path == "models.m.routes.a y.weight"
