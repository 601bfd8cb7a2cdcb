"""Runs work that would block the event loop in a child process."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple


class ChildResult(NamedTuple):
    """`status` is negative for the signal that ended it."""

    written: bytes
    status: int


async def run_child(command: Sequence[str], sent: bytes | None = None) -> ChildResult:
    """Run it to its end, with `sent` as its standard input; where this is cancelled, it is killed. Raises OSError where
    no process can be started."""
    # A session of its own: Ctrl-C on a terminal is not for it.
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL if sent is None else PIPE, stdout=PIPE, start_new_session=True
    )
    try:
        written, _ = await process.communicate(sent)
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return ChildResult(written, process.returncode)
