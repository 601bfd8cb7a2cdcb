"""What operators write for keys and grants is checked without pydantic, and has the configuration's messages."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from gateway.settings.base_section import BaseSection
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.grants import GrantSettings
from gateway.settings.limit_settings import LimitSettings
from gateway.settings.loading import validate
from gateway.settings.request_section import RequestSection, read_members
from gateway.settings.stored_keys import (
    METADATA_MAX,
    ImportedKeySettings,
    KeyChangeSettings,
    NewKeySettings,
    RequestLimit,
    RotationSettings,
    read_section,
)

TOO_MUCH = 2**53 + 1

LIMITS: list[Any] = [
    {"requests": 5, "per": "minute"},
    {"requests": "1_000", "per": "day", "name": "mine", "mode": "shadow"},
    {"usd": "0.25", "per": "month", "models": ["openai/*"], "when_spent": "stop"},
    {"concurrent": 3},
    {"tokens": 10, "per": "second", "burst": "25", "models": None},
    {"requests": 0, "per": "minute"},
    {"requests": TOO_MUCH, "per": "minute"},
    {"requests": True, "per": "minute"},
    {"requests": 1.5, "per": "minute"},
    {"usd": 0, "per": "day"},
    {"usd": "0.0000001", "per": "day"},
    {"requests": 5, "per": "minut"},
    {"requests": 5, "per": 1},
    {"requests": 5, "per": ["minute"]},
    {"requests": 5, "per": "minute", "mode": "Shadow"},
    {"requests": 5, "per": "day", "when_spent": {}},
    {"requests": 5, "per": "minute", "name": ".first"},
    {"requests": 5, "per": "minute", "models": []},
    {"requests": 5, "per": "minute", "models": "openai/*"},
    {"requests": 5, "per": "minute", "models": ["a", 1, ""]},
    {"requests": 5, "per": "minute", "burts": 3},
    {"requests": "x", "per": "x", "mode": "x", "sk-proj-abcdefghijklmnop0123456789": 1, "other": 2},
    {"requests": {"a": 1}, "tokens": [], "burst": "-1", "models": {"a": 1}},
    "requests",
    [],
    7,
]


def problems_of_configuration(limit: Any) -> list[tuple[str, str]]:
    """Those of the limit by itself, whichever models there are."""
    return [(problem.setting, problem.message) for problem in validate({"limits": [limit]}).found]


@pytest.mark.parametrize("limit", LIMITS, ids=json.dumps)
def test_a_limit_of_a_stored_key_has_the_problems_that_it_has_in_the_configuration(limit: Any) -> None:
    try:
        [read] = read_section(KeyChangeSettings, {"limits": [limit]}).limits or ()
    except SettingsInvalid as invalid:
        found = [(problem.setting, problem.message) for problem in invalid.problems]
        assert found == problems_of_configuration(limit)
    else:
        assert problems_of_configuration(limit) == []
        written = LimitSettings.model_validate(limit)
        assert (read.title, read.amount, read.bucket) == (written.title, written.amount, written.bucket)


def test_a_limit_has_the_same_members_in_a_request_as_in_the_configuration() -> None:
    here = {name: getattr(RequestLimit(), name) for name in RequestLimit.__struct_fields__}
    assert here == {name: field.default for name, field in LimitSettings.model_fields.items()}


@pytest.mark.parametrize(
    ("kind", "written", "setting", "message"),
    [
        (NewKeySettings, {"team": "t"}, "name", "is missing; it is required"),
        (NewKeySettings, {"name": "n", "team": None}, "team", "is missing; it is required"),
        (KeyChangeSettings, {"nam": "n"}, "nam", "is not a known setting; did you mean name?"),
        (KeyChangeSettings, {"limits": {}}, "limits", "must be a list, such as [a, b]"),
        (KeyChangeSettings, {"models": []}, "models", "must not be empty; leave it out to mean all"),
        (KeyChangeSettings, {"metadata": []}, "metadata", "must be a mapping, from names to settings"),
        (
            KeyChangeSettings,
            {"metadata": {"a": 1}},
            "metadata.a",
            "must be text of at most 500 characters; this is not text: put it in quotes",
        ),
        (KeyChangeSettings, {"metadata": {"a": "x" * 501}}, "metadata.a", "must be text of at most 500 characters"),
        (
            KeyChangeSettings,
            {"metadata": {f"n{number}": "" for number in range(METADATA_MAX + 1)}},
            "metadata",
            "has too many entries",
        ),
        (
            KeyChangeSettings,
            {"metadata": {"": "x"}},
            'metadata[""]',
            "its name must be 1 to 64 letters, digits, dots, dashes and underscores, no dot first",
        ),
        (KeyChangeSettings, {"disabled": 1}, "disabled", "must be true or false"),
        (
            KeyChangeSettings,
            {"networks": ["10.0.0.1/8"]},
            "networks[0]",
            "must be an address or a network such as 10.0.0.0/8 or fd00::/8, without bits set after the prefix",
        ),
        (
            ImportedKeySettings,
            {"name": "n", "team": "t", "sha256": "0" * 64, "counted_as": "x"},
            "counted_as",
            "must be the id of a key: 12 hexadecimal digits",
        ),
        (GrantSettings, {"amount": 1, "until": "1d", "why": "w"}, "limit", "is missing; it is required"),
        (
            GrantSettings,
            {"limit": "l", "amount": 0, "until": "1d", "why": "w"},
            "amount",
            "must be a number above 0 with at most 6 decimals; digits may be grouped with _",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    kind: type[RequestSection], written: dict[str, Any], setting: str, message: str
) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        read_section(kind, written)
    (problem,) = invalid.value.problems
    assert (problem.setting, problem.message) == (setting, message)


def test_all_that_is_wrong_is_found_at_once() -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        read_section(NewKeySettings, {"name": 1, "models": [1], "expires_at": "soon", "more": 1})
    assert [problem.setting for problem in invalid.value.problems] == [
        "name",
        "models[0]",
        "expires_at",
        "team",
        "more",
    ]


def test_no_value_is_shown() -> None:
    secret = "sk-proj-4f9a8b7c6d5e4f3a2b1c"
    with pytest.raises(SettingsInvalid) as invalid:
        read_section(NewKeySettings, {"name": [secret], "team": {secret: secret}, secret: secret, "disabled": secret})
    assert len(invalid.value.problems) == 4
    assert secret not in str(invalid.value)


def test_what_is_null_counts_as_left_out() -> None:
    section = read_section(NewKeySettings, {"name": "n", "team": "t", "models": None, "limits": None})
    assert section.given == {"name", "team"}
    assert read_members(RotationSettings, {"overlap": None}).overlap == timedelta(hours=24)


def test_two_limits_of_one_name_and_limits_without_a_meter_are_refused() -> None:
    twice = {"requests": 5, "per": "minute"}
    for limits, setting in ([[twice, twice], "limits[1]"], [[{"per": "day"}], "limits[0]"]):
        with pytest.raises(SettingsInvalid) as invalid:
            read_section(KeyChangeSettings, {"limits": limits})
        assert [problem.setting for problem in invalid.value.problems] == [setting]


def test_pydantic_is_not_loaded_for_it() -> None:
    imports = "import sys, gateway.settings.grants, gateway.identity.administration, gateway.identity.grants"
    said = subprocess.run(
        [sys.executable, "-c", f"{imports}; print([name for name in sys.modules if name.startswith('pydantic')])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "[]\n"
    assert not issubclass(RequestSection, BaseSection)
