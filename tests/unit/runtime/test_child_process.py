from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gateway.runtime.child_process import ChildResult, run_child

POLL_S = 0.01
ECHO = (sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.read().upper())")


async def test_a_child_gets_what_is_sent_and_says_how_it_ended() -> None:
    assert await run_child(ECHO, b"text") == ChildResult(b"TEXT", 0)
    assert await run_child((sys.executable, "-c", "raise SystemExit(3)")) == ChildResult(b"", 3)
    with pytest.raises(OSError, match="No such file"):
        await run_child(("/nowhere",))


async def test_a_child_that_is_given_up_has_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"import os, pathlib, signal; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); signal.pause()"
    running = asyncio.ensure_future(run_child((sys.executable, "-c", code)))
    async with asyncio.timeout(20):
        while not (pid_file.exists() and pid_file.read_text()):
            await asyncio.sleep(POLL_S)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
