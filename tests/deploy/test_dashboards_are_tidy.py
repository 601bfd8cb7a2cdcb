"""The shipped dashboards are those of the Python, ask only for metrics that exist, and fit Grafana's own model."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest

from deploy.dashboards.__main__ import DASHBOARDS, SHIPPED, text
from deploy.dashboards.panel import COLUMNS
from deploy.dashboards.upstreams import BAD
from tests.deploy.processes import ROOT, Json, run, tool

METRIC = re.compile(r"\bgateway_[a-z_]+")
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def shipped(name: str) -> Json:
    dashboard: Json = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    return dashboard


def documented() -> set[str]:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(gateway_[a-z_]+)`", page, re.MULTILINE))


def asked(text: str) -> set[str]:
    found = set(METRIC.findall(text))
    return {name if name in documented() else SUFFIX.sub("", name) for name in found}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_what_is_shipped_is_what_is_written(name: str) -> None:
    assert (SHIPPED / f"{name}.json").read_text(encoding="utf-8") == text(DASHBOARDS[name]), "run `make generate`"


def test_no_other_dashboard_is_shipped() -> None:
    assert {path.stem for path in SHIPPED.iterdir()} == set(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_asks_for_metrics_that_there_are(name: str) -> None:
    queries = [target["expr"] for panel in shipped(name)["panels"] for target in panel.get("targets", ())]
    assert asked(" ".join(queries)) - documented() == set()


def test_every_alert_asks_for_metrics_that_there_are() -> None:
    rules = (ROOT / "helm" / "inducta-gateway" / "alerts.yaml").read_text(encoding="utf-8")
    assert asked(rules) - documented() == set()


def test_every_way_to_fail_is_documented_and_counts_against_the_upstream() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "gateway" / "upstream").glob("*.py")]
    ways = {way for source in sources for way in re.findall(r"FailureReason\(\s*\"([a-z_]+)\"", source)}
    assert len(ways) > 5
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [way for way in ways if f"`{way}`" not in page] == []
    no_fault_of_the_upstream = {"abandoned", "no_connection_free"}
    assert {way for way in ways if not re.fullmatch(BAD["outcome"], way)} == no_fault_of_the_upstream
    assert BAD["outcome"] in (ROOT / "helm" / "inducta-gateway" / "alerts.yaml").read_text(encoding="utf-8")


def test_every_metric_is_shown_somewhere() -> None:
    shown = asked(" ".join((SHIPPED / f"{name}.json").read_text(encoding="utf-8") for name in DASHBOARDS))
    assert documented() - shown == set()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_stand_beside_one_another(name: str) -> None:
    places = [panel["gridPos"] for panel in shipped(name)["panels"]]
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    assert [pair for pair in combinations(places, 2) if _overlap(*pair)] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_says_what_it_shows_and_has_its_own_number(name: str) -> None:
    panels = shipped(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [panel["title"] for panel in panels if panel["type"] != "row" and not panel["description"]] == []


@pytest.mark.parametrize("name", DASHBOARDS)
async def test_grafanas_own_model_keeps_every_field(name: str) -> None:
    """The dashboard, read by Grafana's foundation SDK and written again, has lost nothing that was given."""
    program = (
        "import json, sys; from grafana_foundation_sdk.models.dashboard import Dashboard;"
        "from grafana_foundation_sdk.cog.encoder import JSONEncoder; from grafana_foundation_sdk.cog.plugins import"
        " register_default_plugins; register_default_plugins();"
        "print(JSONEncoder().encode(Dashboard.from_json(json.load(sys.stdin))))"
    )
    python = tool("kubernetes-validate").removesuffix("kubernetes-validate") + "python"
    read = json.loads(await run(python, "-c", program, given=(SHIPPED / f"{name}.json").read_text(encoding="utf-8")))
    assert lost(shipped(name), read, "") == []


def lost(given: Any, read: Any, path: str) -> list[str]:
    """Where `read` lacks something of `given`, or has it otherwise."""
    if isinstance(given, dict) and isinstance(read, dict):
        return [each for key, value in given.items() for each in lost(value, read.get(key), f"{path}/{key}")]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        return [
            each
            for number, pair in enumerate(zip(given, read, strict=True))
            for each in lost(*pair, f"{path}/{number}")
        ]
    return [] if given == read else [f"{path}: {given!r} became {read!r}"]


def _overlap(one: Json, other: Json) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not beside and not above
