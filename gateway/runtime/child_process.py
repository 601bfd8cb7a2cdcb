"""Runs work that would block the event loop in a child process.

`asyncio` and uvloop start a process by a fork, which copies the page tables of the gateway and then waits for the new
program. uvloop takes 4 to 6 ms of processor time for that, in which no request goes on. `posix_spawn` shares the memory
until the program begins, and takes 0.4 ms. So `posix_spawn` starts a child, and its pipes become streams of the loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import NamedTuple

_STDIN, _STDOUT = 0, 1


class ChildResult(NamedTuple):
    """`status` is negative for the signal that ended it."""

    written: bytes
    status: int


class ChildProcess(NamedTuple):
    """A child that runs. What it writes to its standard error is the gateway's."""

    pid: int
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader

    async def send(self, part: bytes) -> bool:
        """Once there is room for it; whether the child still reads."""
        try:
            self.stdin.write(part)
            await self.stdin.drain()
        except ConnectionError:
            return False
        return True

    async def ended(self) -> int:
        """Its status, once it has ended. To be called once."""
        _, status = await asyncio.to_thread(os.waitpid, self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@asynccontextmanager
async def child_process(command: Sequence[str]) -> AsyncIterator[ChildProcess]:
    """Start it; the block must await `ended`. Where the block raises, the child is killed. Raises OSError where no
    process can be started."""
    async with AsyncExitStack() as ours:
        with ExitStack() as theirs:
            sent, to_child = os.pipe()
            theirs.callback(os.close, sent)
            stdin = await _writer_to(to_child)
            ours.callback(stdin.close)
            from_child, written = os.pipe()
            theirs.callback(os.close, written)
            stdout = asyncio.StreamReader()
            ours.callback((await _read_into(stdout, from_child)).close)
            # Nothing is awaited from here to the yield, so a child that runs is known to the block.
            pid = _spawn(command, sent, written)
        try:
            yield ChildProcess(pid, stdin, stdout)
        except BaseException:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):  # It has been waited for.
                await asyncio.shield(asyncio.to_thread(os.waitpid, pid, 0))
            raise


async def run_child(command: Sequence[str], sent: bytes = b"") -> ChildResult:
    """Run it to its end, with `sent` as its standard input, which it reads before it writes. Where this is cancelled,
    it is killed. Raises OSError where no process can be started."""
    async with child_process(command) as child:
        await child.send(sent)
        child.stdin.close()
        return ChildResult(await child.stdout.read(), await child.ended())


def _spawn(command: Sequence[str], stdin: int, stdout: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, stdin, _STDIN), (os.POSIX_SPAWN_DUP2, stdout, _STDOUT)]
    # A session of its own: Ctrl-C on a terminal is not for it. Python ignores SIGPIPE, which a program inherits.
    return os.posix_spawn(
        command[0], tuple(command), os.environ, file_actions=actions, setsid=True, setsigdef=[signal.SIGPIPE]
    )


async def _writer_to(pipe: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    # Nothing is read from this pipe; the protocol is what `drain` waits for.
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(pipe, "wb", buffering=0))
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _read_into(reader: asyncio.StreamReader, pipe: int) -> asyncio.ReadTransport:
    protocol = asyncio.StreamReaderProtocol(reader)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(pipe, "rb", buffering=0))
    return transport
