"""What a page shows of an answer or of a table has members and columns that come."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.cli.usage import USAGE_HEADINGS
from gateway.core.key_ids import key_id_of
from gateway.stages.authenticate import key_digest
from gateway.store.ledger import GROUPS
from gateway.web.admin_openapi import admin_document
from gateway.web.public_openapi import public_document
from tests.house.tree import ROOT, parsed, under

PAGES = sorted((ROOT / "docs").glob("*.md"))
JSON_BLOCK = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ gateway ([a-z]+(?: cancel)?)[^\n]*\n((?:(?!\$ |```).*\n)*)", re.MULTILINE)
SENT_TO_RECEIVERS = "notifications.md"
"""The descriptions of the listeners do not have what it shows."""

TABLES = {"diff": 0, "explain": 0, "keys": 0, "requests cancel": 0, "top": 2}
"""Of how many tables each command prints the columns are known; one where nothing is said. Those of requests in `top`
are some of another table's."""

KEY = re.compile(r"\bgw_[\w-]{43}(?![\w-])")

FREE = "*"
"""A member of an object whose members have any name."""

Schema = dict[str, Any]


class Shown(NamedTuple):
    page: Path
    text: str


class Printed(NamedTuple):
    page: Path
    command: str
    lines: list[str]


def answers() -> Iterator[Shown]:
    for page in PAGES:
        if page.name != SENT_TO_RECEIVERS:
            yield from (Shown(page, text) for text in JSON_BLOCK.findall(page.read_text(encoding="utf-8")))


def outputs() -> Iterator[Printed]:
    for page in PAGES:
        for command, printed in COMMAND.findall(page.read_text(encoding="utf-8")):
            yield Printed(page, command, printed.splitlines())


@cache
def headings() -> set[tuple[str, ...]]:
    """Those of every table of the command line, `usage` apart."""
    literals = (node for path in under("gateway") for node in ast.walk(parsed(path)) if isinstance(node, ast.Tuple))
    constants = ([each.value for each in node.elts if isinstance(each, ast.Constant)] for node in literals)
    return {tuple(map(str, values)) for values in constants}


def is_heading(cells: tuple[str, ...], command: str) -> bool:
    if command == "usage":
        figures = set(USAGE_HEADINGS.values())
        return {"requests", "USD"} <= set(cells) and set(cells) <= figures | set(GROUPS)
    return len(cells) > 2 and cells in headings()


@cache
def described() -> list[set[str]]:
    """The members of each answer of both listeners, and of each object in one: `error.code`."""
    found = []
    for document in (json.loads(admin_document()), json.loads(public_document())):
        named: dict[str, Schema] = document["components"]["schemas"]
        operations = [each for path in document["paths"].values() for each in path.values()]
        contents = [each.get("content", {}) for one in operations for each in one["responses"].values()]
        schemas = [each["application/json"]["schema"] for each in contents if "application/json" in each]
        found += [set(_described(schema, named)) for schema in [*named.values(), *schemas]]
    return [members for answer in found for members in (answer, *_objects_in(answer)) if FREE not in members]


def _objects_in(answer: set[str]) -> Iterator[set[str]]:
    for name in answer:
        below = {member.removeprefix(f"{name}.") for member in answer if member.startswith(f"{name}.")}
        if below:
            yield below


def _described(schema: Schema, named: dict[str, Schema]) -> Iterator[str]:
    if "$ref" in schema:
        yield from _described(named[schema["$ref"].rpartition("/")[2]], named)
    for part in (*schema.get("anyOf", ()), *schema.get("allOf", ()), schema.get("items", {})):
        if part:
            yield from _described(part, named)
    for name, member in schema.get("properties", {}).items():
        yield name
        yield from (f"{name}.{below}" for below in _described(member, named))
    if schema == {} or (schema.get("type") == "object" and "properties" not in schema):
        yield FREE


def _members(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _members(each)
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from (f"{name}.{below}" for below in _members(member))


def _is_described(member: str, answer: set[str]) -> bool:
    above = member
    while member not in answer and (above := above.rpartition(".")[0]):
        if f"{above}.{FREE}" in answer:
            return True
    return member in answer


@pytest.mark.parametrize("shown", list(answers()), ids=lambda shown: f"{shown.page.stem}-{shown.text[:20]!r}")
def test_an_answer_that_a_page_shows_has_members_that_come(shown: Shown) -> None:
    members = set(_members(json.loads(shown.text)))
    unknown = [[each for each in members if not _is_described(each, answer)] for answer in described()]
    assert min(unknown, key=len) == []


@pytest.mark.parametrize("printed", list(outputs()), ids=lambda printed: f"{printed.page.stem}-{printed.command}")
def test_a_table_that_a_page_shows_has_the_columns_that_come(printed: Printed) -> None:
    rows = [tuple(re.split(r" {2,}", line.strip())) for line in printed.lines]
    assert sum(is_heading(cells, printed.command) for cells in rows) == TABLES.get(printed.command, 1)


def test_a_key_that_a_page_shows_has_the_id_that_the_page_shows() -> None:
    found = [(page, key) for page in PAGES for key in KEY.findall(page.read_text(encoding="utf-8"))]
    assert found
    assert [key for page, key in found if key_id_of(key_digest(key)) not in page.read_text(encoding="utf-8")] == []
