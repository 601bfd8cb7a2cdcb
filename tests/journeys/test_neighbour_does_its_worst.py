"""A team that does its worst beside another one: that one still pays exactly what it got."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench import neighbour

NOISY_S = 15.0


@pytest.mark.slow
async def test_a_team_pays_what_it_got_beside_one_that_does_its_worst(tmp_path: Path) -> None:
    result = await asyncio.to_thread(neighbour.run, NOISY_S, tmp_path)
    assert result.noise > 0
    assert result.noisy.answers > 0
    assert result.charged == result.truth
