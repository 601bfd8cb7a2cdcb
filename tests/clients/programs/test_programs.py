"""A run of a program ends with all that the program started."""

from __future__ import annotations

from pathlib import Path

from tests.clients.programs.programs import GPT, Program, living_in, run
from tests.clients.programs.scripted_answers import CHAT
from tests.whole_gateway import PATIENCE_S

STARTS_A_DAEMON = "setsid --fork sh -c 'echo as daemon $$; exec sleep 600 >/dev/null 2>&1'"


async def test_a_daemon_is_ended_with_the_program_that_started_it(tmp_path: Path) -> None:
    program = Program("one with a daemon", CHAT, GPT, ("bash", "-c", STARTS_A_DAEMON), page="continue")
    ran = await run(program, 1, tmp_path, patience_s=PATIENCE_S)
    assert "as daemon" in ran.printed
    assert living_in(tmp_path) == []
