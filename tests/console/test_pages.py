"""The pages in a real browser: at 360 and 1,440 pixels, in light and dark, by keyboard, and against the admin API.

`make test-console` runs this; it needs Chromium and what `npm` brings. Elsewhere it is left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry.traffic import quantile
from tests.console.world import REFUSED, RUNNING, TOKEN, busy_gateway, key_of, long_stream

NPM = Path(__file__).with_name("npm")
PICTURES = os.environ.get("CONSOLE_PICTURES", "-")
PAGES = (
    *("overview", "teams", "teams/search", "keys", "models", "upstreams", "usage", "usage?by=model&and=user&since=7d"),
    *("requests", f"requests/{REFUSED}", "losses", "notifications", "configuration", "audit"),
)
HEADINGS = {
    "overview": "Overview",
    "teams": "Teams",
    "teams/search": "search",
    "keys": "Keys",
    "models": "Models and routes",
    "upstreams": "Upstreams",
    "usage": "Usage",
    "requests": "Requests",
    "losses": "Losses",
    "notifications": "Notifications",
    "configuration": "Configuration",
    "audit": "Audit",
    "me": "search-prod",
}
SCRIPT_S = 780

Json = dict[str, Any]

pytestmark = pytest.mark.skipif(
    os.environ.get("CONSOLE") != "required"
    and not ((NPM / "node_modules").is_dir() and shutil.which(os.environ.get("CHROMIUM", "chromium"))),
    reason="make test-console installs what this needs",
)


async def run(script: str, *arguments: str) -> Any:
    """What a script prints, as JSON."""
    process = await asyncio.create_subprocess_exec(
        *("node", str(NPM / script), *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(SCRIPT_S):
            printed, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, complaints.decode()
    return json.loads(printed)


async def _look() -> list[Json]:
    async with busy_gateway() as gateway:
        origin = f"http://127.0.0.1:{gateway.port}"
        console = run("look.mjs", gateway.admin_url, "/console", TOKEN, PICTURES, *PAGES)
        me = run("look.mjs", origin, "/me", key_of("search"), PICTURES, "me")
        return [view for views in await asyncio.gather(console, me) for view in views]


@pytest.fixture(scope="module")
def views() -> list[Json]:
    return asyncio.run(_look())


@pytest.fixture(scope="module")
def pages(views: list[Json]) -> dict[str, Json]:
    """Each page as it is at the first view."""
    return {view["page"]: view for view in reversed(views)}


def test_every_page_is_seen_at_every_width_in_light_and_dark(views: list[Json]) -> None:
    seen = {(view["page"], view["width"], view["colorScheme"]) for view in views}
    assert len(seen) == (len(PAGES) + 2) * 4
    for view in views:
        page = view["page"].partition("?")[0]
        assert view.get("heading") == HEADINGS.get(page, "Request" if page.startswith("requests/") else None)


def test_nothing_that_bars_people_is_found(views: list[Json]) -> None:
    found = [(view["page"], view["width"], view["colorScheme"], view["defects"]) for view in views if view["defects"]]
    assert found == []


def test_no_page_is_wider_than_its_window(views: list[Json]) -> None:
    assert [(view["page"], view["width"], view["overflow"]) for view in views if view["overflow"]] == []


def test_the_policy_is_kept_and_nothing_is_asked_elsewhere(views: list[Json]) -> None:
    assert [(view["page"], view["complaints"]) for view in views if view["complaints"]] == []


def single(view: Json, name: str) -> float | None:
    written = view["figures"]["single"][name]
    return float(written) if written else None


def rows(view: Json, table: str) -> dict[tuple[str, str], float]:
    """The figures of a table by row and column."""
    return {
        (each["row"], each["column"]): float(each["value"])
        for each in view["figures"]["rows"]
        if each["table"] == table and each["value"] != ""
    }


def answer(view: Json, path: str) -> Json:
    found: Json = view["answers"][f"/admin/v1/{path}"]
    return found


def expected(of: list[Json], name: str, *columns: str) -> dict[tuple[str, str], float]:
    return {(row[name], column): float(row[column]) for row in of for column in columns if row[column] is not None}


def sums(samples: list[Json], histogram: str) -> list[int]:
    counts: list[int] = []
    for sample in samples:
        more = sample[histogram]["counts"]
        counts += [0] * (len(more) - len(counts))
        counts = [count + (more[place] if place < len(more) else 0) for place, count in enumerate(counts)]
    return counts


def test_the_overview_shows_what_the_admin_api_says(pages: dict[str, Json]) -> None:
    view = pages["overview"]
    overview = answer(view, "overview?minutes=60")
    traffic = overview["traffic"]
    samples = traffic["data"]
    assert single(view, "traffic.requests") == sum(each["requests"] for each in samples) > 0
    failed = {party: sum(each["failed"][party] for each in samples) for party in samples[0]["failed"]}
    assert {party: single(view, f"traffic.failed.{party}") for party in failed} == failed
    assert single(view, "traffic.failed") == failed["upstream"] + failed["gateway"]
    assert single(view, "traffic.tokens") == sum(each["input_tokens"] + each["output_tokens"] for each in samples)
    for figure, histogram in (("traffic.p95", "duration"), ("traffic.first_token", "first_token")):
        shown = quantile(traffic["buckets"][histogram], sums(samples, histogram), 0.95)
        assert single(view, figure) == pytest.approx(shown)
    assert single(view, "usage.today") == overview["today"]["total"]["usd"]
    month = overview["days"]["total"]["usd"]
    assert single(view, "usage.month") == month > 0
    teams = overview["teams"]["rows"]
    assert rows(view, "Teams this month") == expected(teams, "team", "requests", "usd")


def test_teams_and_models_show_what_the_ledger_says(pages: dict[str, Json]) -> None:
    used = answer(pages["teams"], "usage?by=team&since=month")["rows"]
    for row in used:
        row["tokens"] = row["input_tokens"] + row["output_tokens"]
    shown = rows(pages["teams"], "All teams")
    assert {key: value for key, value in shown.items() if value} == expected(used, "team", "requests", "tokens", "usd")
    assert {team for team, _ in shown} == {each["name"] for each in answer(pages["teams"], "teams")["data"]}
    used = answer(pages["models"], "usage?by=model&since=month")["rows"]
    configured = answer(pages["models"], "models")["data"]
    wanted = expected(used, "model", "requests", "usd")
    wanted |= expected(configured, "name", "context_window", "max_output_tokens")
    assert {key: value for key, value in rows(pages["models"], "Models").items() if value} == wanted


def test_a_team_shows_its_limits_and_usage(pages: dict[str, Json]) -> None:
    view = pages["teams/search"]
    limits = answer(view, "limits?team=search")["data"]
    for limit in limits:
        limit["key"] = f"{limit['scope']} {limit['subject']} {limit['name']}"
    assert rows(view, "Limits") == expected(limits, "key", "left")
    usage = answer(view, "usage?team=search&by=model&since=month&sort=usd")
    assert rows(view, "Usage") == of_usage(usage, ("model",))


USAGE_COLUMNS = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "estimated_tokens", "usd")


def of_usage(report: Json, by: tuple[str, ...]) -> dict[tuple[str, str], float]:
    listed = [{**row, "key": " ".join(str(row[name]) for name in by)} for row in report["rows"]]
    return expected([*listed, {**report["total"], "key": "total"}], "key", *USAGE_COLUMNS)


def test_the_usage_explorer_shows_what_the_ledger_says(pages: dict[str, Json]) -> None:
    assert rows(pages["usage"], "Figures") == of_usage(answer(pages["usage"], "usage?by=team&since=30d"), ("team",))
    view = pages["usage?by=model&and=user&since=7d"]
    assert rows(view, "Figures") == of_usage(answer(view, "usage?by=model%2Cuser&since=7d"), ("model", "user"))


def test_losses_show_what_the_admin_api_says(pages: dict[str, Json]) -> None:
    view = pages["losses"]
    report = answer(view, "losses")
    assert single(view, "losses.lost") == report["lost"]["last_day"] > 0
    assert single(view, "losses.waiting") == report["waiting"]["now"]
    assert single(view, "losses.store_out") == report["store"]["out_s"]
    estimated = next(kind for kind in report["data"] if kind["kind"] == "estimated_tokens")
    assert single(view, "losses.estimated") == estimated["last_day"]
    counted = [kind for kind in report["data"] if kind["total"]]
    assert rows(view, "What is counted") == expected(counted, "kind", "last_day", "total")


def test_upstreams_show_their_attempts(pages: dict[str, Json]) -> None:
    view = pages["upstreams"]
    samples = answer(view, "traffic?minutes=60")["data"]
    for upstream in answer(view, "upstreams")["data"]:
        name = upstream["name"]
        counted = dict(_attempts(samples, name))
        shown = {column: value for (row, column), value in rows(view, name).items() if row == name}
        assert shown == {"in_flight": upstream["in_flight"], **counted}


def _attempts(samples: list[Json], upstream: str) -> Iterator[tuple[str, float]]:
    outcomes = {outcome for sample in samples for outcome in sample["attempts"].get(upstream, {})}
    for outcome in outcomes:
        yield f"attempts.{outcome}", sum(sample["attempts"].get(upstream, {}).get(outcome, 0) for sample in samples)


def test_me_shows_what_the_api_says(pages: dict[str, Json]) -> None:
    view = pages["me"]
    month = view["answers"]["/me/usage?by=day&since=month"]["total"]
    assert single(view, "me.month.usd") == month["usd"] > 0
    assert single(view, "me.month.requests") == month["requests"]
    assert single(view, "me.month.tokens") == month["input_tokens"] + month["output_tokens"]
    limits = view["answers"]["/me/limits"]["data"]
    for limit in limits:
        limit["key"] = f"{limit['scope']} {limit['subject']} {limit['name']}"
    assert rows(view, "What is left") == expected(limits, "key", "left")


async def test_everything_is_done_by_keyboard_alone() -> None:
    async with busy_gateway(days=3) as gateway, long_stream(gateway):
        origin = f"http://127.0.0.1:{gateway.port}"
        failures = await run("use.mjs", gateway.admin_url, TOKEN, origin, key_of("search"), RUNNING)
    assert failures == []
