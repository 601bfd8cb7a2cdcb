"""Every alert fires in a test, links to a runbook, and says what to look at."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from tests.deploy.processes import ROOT, Json, run, tool

RULES = ROOT / "helm" / "inducta-gateway" / "alerts.yaml"
CASES = ROOT / "tests" / "deploy" / "alerts_test.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"


def alerts() -> list[Json]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_every_alert_fires_in_a_case() -> None:
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    fired = {each["alertname"] for case in cases for each in case["alert_rule_test"] if each["exp_alerts"]}
    assert {alert["alert"] for alert in alerts()} - fired == set()


def test_every_alert_is_quiet_when_all_is_well() -> None:
    well = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"][0]
    assert well["name"] == "all is well"
    assert {each["alertname"] for each in well["alert_rule_test"]} == {alert["alert"] for alert in alerts()}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = set(re.findall(r"^## (Gateway\w+)$", RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE))
    assert {alert["alert"] for alert in alerts()} == headings
    for alert in alerts():
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert['alert'].lower()}"


def test_every_alert_says_how_urgent_it_is() -> None:
    assert {alert["labels"]["severity"] for alert in alerts()} <= {"critical", "warning", "info"}


async def test_prometheus_takes_the_rules() -> None:
    await run(tool("promtool"), "check", "rules", str(RULES))


async def test_prometheus_fires_each_alert_in_its_case(tmp_path: Path) -> None:
    for file in (RULES, CASES):
        shutil.copy(file, tmp_path)
    await run(tool("promtool"), "test", "rules", CASES.name, cwd=tmp_path)
