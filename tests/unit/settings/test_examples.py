"""The examples that people copy can be copied."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.settings.document import read
from gateway.settings.interpolation import References
from gateway.settings.loading import load, validate
from tests.unit.settings.configurations import loaded

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ENVIRON = {"UPSTREAM_API_KEY": "sk-1", "INDUCTA_API_KEY": "gw_1", "SEARCH_DEV_KEY": "gw_2"}
ENVIRON |= {"SLACK_WEBHOOK": "https://hooks.example/T0/B0/x", "ON_CALL_URL": "https://on-call.example/"}
ENVIRON |= {"ON_CALL_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


def test_the_smallest_configuration_of_the_page_is_whole() -> None:
    assert [str(warning) for warning in loaded(EXAMPLES[0], ENVIRON).warnings] == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_page_has_known_settings_of_the_right_form(example: str, tmp_path: Path) -> None:
    (tmp_path / "azure").write_text("sk-2")
    text = example.replace("/run/secrets/azure", "azure")
    document = read(text, References(ENVIRON, tmp_path))
    assert document.diagnostics == []
    assert validate(document.data).found == []


def test_the_example_configuration_loads_with_nothing_set_and_warns_of_the_empty_key_alone() -> None:
    (warning,) = load(ROOT / "config" / "gateway.yaml", {}).warnings
    assert warning.setting == "teams.search.keys[0].key"
    assert load(ROOT / "config" / "gateway.yaml", {"INDUCTA_API_KEY": "gw_1"}).warnings == ()
