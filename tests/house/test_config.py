"""The configurations that are shipped can be used, and the schema's settings are explained."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.settings.schema import json_schema
from tests.house.tree import ROOT, place, under

PAGE = ROOT / "docs" / "configuration.md"
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
ROW = re.compile(r"^\| *`([^`]+)`", re.MULTILINE)


def test_every_shipped_configuration_passes_its_check() -> None:
    for path in under("config", suffix=".yaml"):
        checked = subprocess.run(
            [sys.executable, "-m", "gateway", "check", "-c", str(path)],
            cwd=ROOT,
            env=os.environ | _environment(path),
            capture_output=True,
            check=False,
            text=True,
        )
        assert checked.returncode == 0, f"{place(path)}: {checked.stderr}"


def test_every_setting_stands_in_docs_and_no_other() -> None:
    """Counted, since sections have settings of the same name: `limits` has a row in each of them."""
    explained = Counter(name.split(".")[-1] for name in ROW.findall(PAGE.read_text(encoding="utf-8")))
    assert Counter(_settings(json_schema())) == explained, "each has its row in docs/configuration.md"


def _environment(path: Path) -> dict[str, str]:
    """A value for each variable that a configuration takes from the environment, each its own."""
    names = REFERENCE.findall(path.read_text(encoding="utf-8"))
    return {name: f"gw_{name:x<43.43}" for name in names}


def _settings(schema: dict[str, Any]) -> Iterator[str]:
    """The name of every setting, in whichever section; those that sections share, such as the prices of a step and of
    a tier, once."""
    sections = (schema, *schema.get("$defs", {}).values())
    members = [(name, json.dumps(each)) for section in sections for name, each in section.get("properties", {}).items()]
    yield from (name for name, _ in dict.fromkeys(members))
