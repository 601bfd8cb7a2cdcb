from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.board import Board
from gateway.app.crew import Crew, Plan
from gateway.core.errors import NoWorker
from gateway.telemetry.log import Log
from gateway.web.passing import Asked, Reply


def board() -> Board:
    """Over two workers that have not begun."""
    return Board(Crew(Plan(("true",), 2, 0, Path()), Log(lambda line: None)))


async def test_before_any_worker_serves_the_gateway_is_neither_ready_nor_well() -> None:
    assert await board().obstacles() == ["worker 1 does not serve", "worker 2 does not serve"]
    assert await board().ailments() == ["no worker serves"]


async def test_a_gateway_that_drains_says_so_and_no_more() -> None:
    draining = board()
    draining.draining = True
    assert await draining.obstacles() == ["draining"]


@pytest.mark.parametrize("asked", [Asked("GET", "/admin/v1/usage"), Asked("POST", "/admin/v1/reload")])
async def test_what_no_worker_can_answer_is_told_to_come_again(asked: Asked) -> None:
    with pytest.raises(NoWorker):
        await board().administer(asked)


async def test_metrics_of_no_worker_are_those_of_the_supervisor() -> None:
    body, _ = await board().exposition()
    assert b"gateway_worker_restarts_total 0\n" in body
    assert b"gateway_requests_total" not in body


class Divided(Crew):
    """Workers of which the second refuses."""

    async def ask_each(self, asked: Asked) -> dict[int, Reply | None]:
        return {1: Reply(200, [], b"taken up"), 2: Reply(400, [], b"refused"), 3: None}


async def test_a_reload_that_one_worker_refuses_is_told_as_refused() -> None:
    divided = Board(Divided(Plan(("true",), 3, 0, Path()), Log(lambda line: None)))
    assert (await divided.administer(Asked("POST", "/admin/v1/reload"))).body == b"refused"
