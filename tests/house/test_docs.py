"""The documentation is complete and true as far as a machine can tell."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from gateway.core.endpoints import FORWARDED
from gateway.core.errors import GatewayError, LimitRefusal, QuotaSpent
from gateway.core.limits import Meter
from gateway.web.public_openapi import HEALTH_PATH
from gateway.web.public_pages import PAGES
from tests.house.tree import ROOT, files, parsed, place, under

DOCS = ROOT / "docs"
METRIC = re.compile(r"gateway_[a-z0-9_]+")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
OWN_FILE = re.compile(r"`((?:gateway|tests|docs|helm|deploy|config|bench)/[^`*\s]*)`")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
PROVIDERS_KEY = re.compile(r"api_key: *\"?\$\{INDUCTA_API_KEY")
"""An upstream's credential under the name of the key that clients have."""

PANELS = re.compile(r'\b(Overview|Teams|Upstreams|Store), ("[^"\n]+"(?: and "[^"\n]+")*)')
"""A dashboard, and panels of it."""

VERSION = re.compile(r"^## \[(Unreleased|\d+\.\d+\.\d+)\]", re.MULTILINE)


class Row(NamedTuple):
    status: str
    type: str
    code: str
    whose: str


def test_every_error_stands_in_docs_with_status_type_code_and_blame() -> None:
    documented = {Row(*cells[:4]) for cells in _tables(DOCS / "errors.md") if cells[0].isdigit()}
    assert {_row(error) for error in _errors(GatewayError)} == documented, "each has its row in docs/errors.md"


def test_every_metric_stands_in_docs_and_no_other() -> None:
    documented = {cells[0].strip("`").partition("{")[0] for cells in _tables(DOCS / "metrics.md")}
    counted = {name for path in under("gateway") for name in _metrics(path)}
    assert counted == {name for name in documented if METRIC.fullmatch(name)}, "each has its row in docs/metrics.md"


def test_every_endpoint_stands_in_the_api_page_and_no_other() -> None:
    served = {f"{row.method} {row.path}" for row in FORWARDED}
    served |= {f"{method} {page.endpoint.path}" for page in PAGES for method in page.methods if method != "HEAD"}
    methods = ("`POST /", "`GET /", "`DELETE /")
    rows = [cells[0] for cells in _tables(DOCS / "api.md") if cells[0].startswith(methods)]
    documented = [request for row in rows for request in _requests(row)]
    assert sorted(documented) == sorted(served | {f"GET {HEALTH_PATH}"}), "each has its row in docs/api.md"


def test_what_the_package_says_of_itself_has_no_relative_link() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [link for link in LINK.findall(project["readme"]["text"]) if "://" not in link] == []


def test_every_page_is_in_the_sites_navigation() -> None:
    named = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert {page.name for page in DOCS.glob("*.md")} == named - {"index.md", "changelog.md"}


def test_every_folder_of_pages_is_in_the_sites_navigation() -> None:
    named = set(re.findall(r": ([\w-]+)/(?: |$)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert {page.parent.name for page in DOCS.glob("*/*.md")} == named


def test_every_link_to_a_file_leads_somewhere() -> None:
    pages = [path for path in files() if path.suffix == ".md"]
    assert [f"{place(page)} -> {link}" for page in pages for link in _links(page) if not _leads(page, link)] == []


def test_every_panel_that_a_page_names_is_on_its_dashboard() -> None:
    folder = ROOT / "helm" / "inducta-gateway" / "dashboards"
    panels = {path.stem: {panel["title"] for panel in _panels(path)} for path in folder.glob("*.json")}
    found = [PANELS.findall(page.read_text(encoding="utf-8")) for page in DOCS.glob("*.md")]
    named = {(board.lower(), title) for each in found for board, titles in each for title in titles.split('"')[1::2]}
    assert len(named) > 5
    assert [(board, title) for board, title in sorted(named) if title not in panels[board]] == []


def test_every_picture_is_on_a_page() -> None:
    shown = {link for page in DOCS.glob("*.md") for link in _links(page)}
    assert {f"pictures/{picture.name}" for picture in (DOCS / "pictures").iterdir()} - shown == set()


def test_every_file_that_contributors_are_sent_to_is_there() -> None:
    named = OWN_FILE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_contributors_find_every_package_in_the_table() -> None:
    packages = {f"`gateway/{path.parent.name}/`" for path in (ROOT / "gateway").glob("*/__init__.py")}
    assert packages - {cells[0] for cells in _tables(ROOT / "CONTRIBUTING.md")} == set()


def test_the_changelog_says_what_is_coming_or_what_came() -> None:
    assert VERSION.search((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_the_index_of_clients_has_every_page() -> None:
    index = DOCS / "clients" / "README.md"
    pages = {page.name for page in index.parent.glob("*.md")} - {index.name}
    assert pages == {link for link in _links(index) if "/" not in link}


def test_the_clients_key_is_never_a_providers() -> None:
    pages = [path for path in files() if path.suffix in {".md", ".yaml", ".yml"}]
    handed_out = [place(page) for page in pages if PROVIDERS_KEY.search(page.read_text(encoding="utf-8"))]
    assert handed_out == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {name for line in project["dependencies"] for name in re.findall(r"[\w.-]+", re.split(r"[>=]", line)[0])}
    rows = _tables(DOCS / "decisions" / "0001-few-dependencies.md")
    assert wanted - {name.strip() for cells in rows for name in cells[0].split(",")} == set()


def test_every_decision_says_what_it_costs() -> None:
    records = sorted((DOCS / "decisions").glob("*.md"))
    assert records
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+", record.stem)
        assert [part for part in ("## Context", "## Decision", "## What it costs") if part not in text] == [], record
    numbers = [record.stem[:4] for record in records]
    assert len(numbers) == len(set(numbers))


def _errors(root: type[GatewayError]) -> Iterator[type[GatewayError]]:
    """Every error that a request can end with: the leaves of the tree."""
    kinds = root.__subclasses__()
    for kind in kinds:
        yield from _errors(kind)
    if not kinds:
        yield root


def _row(error: type[GatewayError]) -> Row:
    of_meters = issubclass(error, LimitRefusal) and not issubclass(error, QuotaSpent)
    families = dict.fromkeys(meter.family for meter in Meter)
    kind = " or ".join(", ".join(families).rsplit(", ", 1)) if of_meters else error.type
    return Row(str(error.status), kind, error.code, str(error.blame))


def _tables(page: Path) -> Iterator[list[str]]:
    """The cells of every row of every table of a page."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _requests(cell: str) -> Iterator[str]:
    """Each request that a cell names: the first has its method, and `:action` follows the model of the one before."""
    method, path = "", ""
    for code in re.findall(r"`([^`]+)`", cell):
        method, given = code.split(" ") if " " in code else (method, code)
        path = path.rpartition(":")[0] + given if given.startswith(":") else given
        yield f"{method} {path}"


def _metrics(path: Path) -> set[str]:
    constants = (node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and METRIC.fullmatch(value)}


def _links(page: Path) -> list[str]:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [link for link in LINK.findall(prose) if "://" not in link and not link.startswith("mailto:")]


def _panels(path: Path) -> list[dict[str, str]]:
    panels: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))["panels"]
    return panels


def _leads(page: Path, link: str) -> bool:
    name, _, anchor = unquote(link).partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or target.suffix != ".md" or anchor in _anchors(target)


def _anchors(page: Path) -> set[str]:
    """The headings of a page as its readers' tools make addresses of them."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
