"""Reads the configuration at the start, in a child process, so that what checks it ends with the child.

pydantic and the settings' modules take 12 MiB, and a process that serves needs them no more. The child reads and checks
the file while this process imports what serves. It is a fork, unlike the child of a reload: at the start there is one
thread, no event loop and little to copy, and a fork need not start Python and import again what both have.
"""

from __future__ import annotations

import gc
import os
import signal
import time
import traceback
from typing import BinaryIO, NoReturn

# What both processes need is imported in front of the fork.
from gateway.app.loaded_snapshot import LENGTH, LoadedSnapshot, LoadFailed, Unpickler, assembled


class FirstLoad:
    """A child that reads a file, from now on. Raises OSError where none can be started."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._received, written = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._received)
            _read_and_end(path, written)
        os.close(written)

    def loaded(self) -> LoadedSnapshot:
        """Once the child is done. To be called once. Raises LoadFailed."""
        loaded: LoadedSnapshot | None = None
        failure: Exception | None = None
        with os.fdopen(self._received, "rb") as source:
            try:
                loaded = _received(source)
            except Exception as error:  # noqa: BLE001 # Why it is not read may be anything.
                failure = error
        _, status = os.waitpid(self._child, 0)
        if status != 0:
            # What serves imports it as well, and later than the child is started.
            from gateway.runtime.workers import status_text

            ended = status_text(os.waitstatus_to_exitcode(status))
            raise LoadFailed([f"{self._path} cannot be read: the process that reads it ended with {ended}"])
        if failure is not None:
            raise failure
        assert loaded is not None, "it is whole, or something failed"
        return loaded


def _received(source: BinaryIO) -> LoadedSnapshot:
    """Raises LoadFailed, EOFError."""
    parts, unpickler = assembled(), Unpickler()
    next(parts)
    while True:
        part = unpickler.load(_exactly(source, int.from_bytes(_exactly(source, LENGTH), "big")))
        try:
            parts.send(part)
        except StopIteration as end:
            loaded: LoadedSnapshot = end.value
            return loaded


def _exactly(source: BinaryIO, length: int) -> bytes:
    read = source.read(length)
    if len(read) < length:
        raise EOFError("the child ended in the middle of a part")
    return read


def _read_and_end(path: str, written: int) -> NoReturn:
    """The child's life. Nothing that this process had to do at its end is done by the child."""
    status = 1
    try:
        # A session of its own: Ctrl-C on a terminal is not for it. A parent that has ended reads nothing.
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 # A worker's input is its control channel.
            os.dup2(nothing.fileno(), 0)
        gc.disable()
        # The parent never imports it.
        from gateway.app.snapshot_child import write_snapshot

        with os.fdopen(written, "wb") as out:
            write_snapshot(path, int(time.time()), None, out)
        status = 0
    except BaseException:  # noqa: BLE001 # The process ends here, whatever it was.
        traceback.print_exc()
    finally:
        os._exit(status)
