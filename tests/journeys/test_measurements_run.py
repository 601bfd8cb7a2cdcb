"""Every measurement that docs/performance.md names runs, as short as it can be; what it shows is not judged."""

from __future__ import annotations

import re
import sys
from os import cpu_count

import pytest

from tests.deploy.processes import outcome
from tests.house.tree import ROOT

NAMED = re.compile(r"python -m bench\.(\w+)")
SHORTEST = {
    "admission": "--pairs 64",
    "bytecodes": "",
    "consoles": "--rounds 1 --seconds 1",
    "flood": "none --seconds 0.5",
    "neighbour": "--seconds 1",
    "reload": "--rounds 1 --seconds 1 --keys 50",
    "stream_memory": "--streams 10",
}
WITH_OTHERS_PROGRAMS = {"workers"}


def test_every_measurement_of_the_page_is_tried_or_needs_programs_of_others() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert set(NAMED.findall(page)) == SHORTEST.keys() | WITH_OTHERS_PROGRAMS


@pytest.mark.slow
@pytest.mark.skipif((cpu_count() or 1) < 2, reason="gateway and load need a core each")
@pytest.mark.parametrize("measurement", SHORTEST)
async def test_a_measurement_runs(measurement: str) -> None:
    command = (sys.executable, "-m", f"bench.{measurement}", *SHORTEST[measurement].split())
    code, printed = await outcome(*command, env={}, cwd=ROOT)
    assert code == 0, printed
