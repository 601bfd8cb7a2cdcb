"""The versions of Python that are supported are the same wherever they are listed."""

from __future__ import annotations

import re
import tomllib

from tests.clone.test_demo import VERSIONS
from tests.house.tree import ROOT

CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")
CHOSEN = re.compile(r"\bpython(3\.\d+)\b")


def test_the_package_names_each_version_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [found[1] for each in project["classifiers"] if (found := CLASSIFIER.fullmatch(each))]
    assert tuple(named) == VERSIONS
    assert project["requires-python"] == f">={VERSIONS[0]}"


def test_make_looks_for_each_version_the_newest_first() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (choice,) = re.findall(r"^PYTHON \?= .*$", makefile, re.MULTILINE)
    assert tuple(CHOSEN.findall(choice)) == VERSIONS[::-1]


def test_the_documentation_names_the_first_and_the_last_version() -> None:
    said = f"Python {VERSIONS[0]} or newer ({VERSIONS[0]} to {VERSIONS[-1]} are supported)"
    for page in ("README.md", "docs/deploy.md"):
        assert said in (ROOT / page).read_text(encoding="utf-8"), page
