"""The examples that people copy can be copied."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.settings.document import read
from gateway.settings.interpolation import References
from gateway.settings.loading import load, validate
from tests.unit.settings.configurations import loaded

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
PARTS = ("upstreams:", "models:", "teams:")
URL, SIGNED = "https://hooks.example/T0/B0/x", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Example(NamedTuple):
    page: Path
    text: str

    @property
    def environ(self) -> dict[str, str]:
        """A value for each variable, each its own, of the form that its name promises."""
        names = re.findall(r"\$\{(\w+)\}", self.text)
        signed = {name: SIGNED for name in names if name.endswith("SECRET")}
        urls = {name: URL for name in names if name.endswith(("URL", "WEBHOOK"))}
        return {name: f"gw_{name:x<43.43}" for name in names} | signed | urls

    @property
    def is_whole(self) -> bool:
        return all(re.search(f"^{part}", self.text, re.MULTILINE) for part in PARTS)


def examples() -> Iterator[Example]:
    """All but the file of Prometheus, which names itself."""
    for page in PAGES:
        for text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if not text.startswith("# prometheus.yml"):
                yield Example(page, text)


EXAMPLES = list(examples())
WHOLE = [example for example in EXAMPLES if example.is_whole]
FEW_AT_ONCE = "teams.search.user_limits[1].tokens"
"""A quota of one person, who does not send 21 requests at once."""


def test_the_pages_that_show_a_whole_configuration_are_these() -> None:
    assert {example.page.stem for example in WHOLE} == {"README", "configuration", "limits", "upstreams"}


@pytest.mark.parametrize("example", WHOLE, ids=lambda example: example.page.stem)
def test_a_whole_configuration_of_a_page_loads_without_a_warning(example: Example) -> None:
    warnings = loaded(example.text, example.environ).warnings
    assert [str(warning) for warning in warnings if warning.setting != FEW_AT_ONCE] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.page.stem)
def test_every_example_of_a_page_has_known_settings_of_the_right_form(example: Example, tmp_path: Path) -> None:
    (tmp_path / "azure").write_text("sk-2")
    text = example.text.replace("/run/secrets/azure", "azure")
    document = read(text, References(example.environ, tmp_path))
    assert document.diagnostics == []
    assert validate(document.data).found == []


def test_the_example_configuration_loads_with_nothing_set_and_warns_of_the_empty_key_alone() -> None:
    (warning,) = load(ROOT / "config" / "gateway.yaml", {}).warnings
    assert warning.setting == "teams.search.keys[0].key"
    assert load(ROOT / "config" / "gateway.yaml", {"INDUCTA_API_KEY": "gw_1"}).warnings == ()
