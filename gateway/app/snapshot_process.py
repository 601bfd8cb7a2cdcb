"""Reads a configuration in a child process, so that a reload does not delay requests.

Reading 10,000 keys takes seconds of pure Python, and comparing them with those in force takes hundreds of milliseconds.
A thread would hold the interpreter lock for most of that time, and every request would wait for it. So a reload starts
a child:

    parent: pickle the snapshot in force, a part in each turn of the event loop → the child's standard input
    child:  read it → read the file → check it → build the snapshot → compare the two
            → pickle the new one, and what has changed, to standard output, in parts
    parent: unpickle each part as it comes → swap the snapshot

At the start a fork does it (gateway.app.first_load).
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from contextlib import suppress

from gateway.app.loaded_snapshot import (
    LENGTH,
    LoadedSnapshot,
    LoadFailed,
    Unpickler,
    assembled,
    parts_of,
)
from gateway.core.snapshot import ConfigSnapshot
from gateway.runtime.child_process import ChildProcess, child_process
from gateway.runtime.workers import status_text


async def load_in_child(path: str, loaded_at: int, before: ConfigSnapshot) -> LoadedSnapshot:
    """`loaded_at` is in seconds since 1970, `before` what the new snapshot is compared with. Raises LoadFailed."""
    command = (sys.executable, "-m", "gateway.app.snapshot_child", path, str(loaded_at))
    loaded: LoadedSnapshot | None = None
    try:
        async with child_process(command) as child:
            await _send(child, before)
            with suppress(asyncio.IncompleteReadError):  # Its status says why.
                loaded = await _received(child.stdout)
            status = await child.ended()
    except OSError as error:
        raise LoadFailed([f"{path} cannot be read: no process can be started: {error.strerror}"]) from None
    except LoadFailed:
        raise
    except Exception as error:  # The classes of another version can fail to be unpickled in any way.
        problem = f"{path} cannot be read: what the process that reads it answers is not understood"
        hint = "if another version of the gateway has been installed, restart the gateway"
        raise LoadFailed([f"{problem} ({type(error).__name__}); {hint}"]) from error
    if status != 0 or loaded is None:
        raise LoadFailed([f"{path} cannot be read: the process that reads it ended with {status_text(status)}"])
    return loaded


async def _send(child: ChildProcess, before: ConfigSnapshot) -> None:
    """As far as the child reads it."""
    for part in parts_of(before):
        packed = pickle.dumps(part, pickle.HIGHEST_PROTOCOL)
        if not await child.send(len(packed).to_bytes(LENGTH, "big") + packed):
            break
        # There may be room for all of it at once.
        await asyncio.sleep(0)
    child.stdin.close()


async def _received(stdout: asyncio.StreamReader) -> LoadedSnapshot:
    """Raises LoadFailed, IncompleteReadError."""
    parts, unpickler = assembled(), Unpickler()
    next(parts)
    while True:
        length = int.from_bytes(await stdout.readexactly(LENGTH), "big")
        part = unpickler.load(await stdout.readexactly(length))
        try:
            parts.send(part)
        except StopIteration as end:
            loaded: LoadedSnapshot = end.value
            return loaded
        # Many parts may have come at once.
        await asyncio.sleep(0)
