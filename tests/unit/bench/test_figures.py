from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report
from bench.figures import Aim, Figure, figures
from bench.measures import Latency, Rate, Streaming
from bench.rounds import Pair, Results


def results(disturbed: float = 0.0) -> Results:
    rates = [Pair(Rate(10_000.0, 50.0), Rate(per_second, 200.0)) for per_second in (4_000.0, 5_000.0, 9_000.0)]
    streams = Pair(
        Streaming(Latency(1.0, 2.0), 25_000.0, 20.0, 13.0, 10.0),
        Streaming(Latency(2.0, 13.0), 25_000.0, 30.0, 40.0, 60.5),
    )
    latency = Pair(Latency(0.1, 0.2), Latency(0.4, 1.2))
    return Results(50.0, disturbed, rates, [latency], [Latency(0.4, 1.3)], [streams], [streams])


def figure(name: str) -> Figure:
    (found,) = [one for one in figures(results()) if one.name == name]
    return found


def test_a_figure_is_the_median_of_the_rounds() -> None:
    assert figure("plain answers at 64 connections").gateway == 5_000


def test_a_figure_stands_beside_its_direct_run() -> None:
    plain = figure("plain answers at 64 connections")
    assert (plain.direct, plain.ratio) == (10_000, 0.5)
    assert figure("latency at 1 connection, p50").added == pytest.approx(0.3)
    assert figure("CPU for an event at 500 streams").added is None


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("plain answers at 64 connections", True),
        ("latency at 1 connection, p50", True),
        ("latency at 1 connection, p99", None),
        ("CPU for an event at 500 streams", False),
        ("first token at 500 streams, p99", False),
        ("first token at 2,000 streams, p99", True),
        ("longest stall at 2,000 streams", False),
    ],
)
def test_an_aim_is_reached_or_not(name: str, reached: bool | None) -> None:
    assert figure(name).reached is reached


def test_the_table_says_what_is_missed() -> None:
    lines = report.table(figures(results())).splitlines()
    (line,) = [line for line in lines if line.startswith("first token at 500 streams, p99")]
    assert line.split()[-1] == "no"
    assert "11.00 ms" in line
    assert "at most 10 ms added" in line


def test_everything_that_was_measured_is_in_the_json() -> None:
    told = json.loads(json.dumps(report.as_json(results(), figures(results()))))
    assert told["measured"]["plain"][2]["gateway"]["per_second"] == 9_000
    assert told["figures"][0]["ratio"] == 0.5


def test_a_machine_that_was_not_quiet_raises_doubts() -> None:
    assert report.doubts(results(0.01)) == ""
    assert "30%" in report.doubts(results(0.3))


def test_the_section_of_the_page_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    section = report.markdown(
        results(), [Figure("speed", "/s", 2.0, 1.0, Aim("gateway", "at least", 3.0))], "make bench"
    )
    report.write_into(page, section)
    report.write_into(page, section)
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n| figure |")
    assert "| speed | 2 /s | 1 /s | 0.50 |  | at least 3 /s | no |" in text
    assert "old" not in text
    assert text.endswith(f"{report.END}\nafter\n")
