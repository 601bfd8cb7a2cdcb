"""Writes lines to a file descriptor without ever making their author wait.

The reader of a process's standard output can stall: a full pipe, a slow disk, a stopped terminal. A write then blocks,
and on the event loop it would block every request. O_NONBLOCK is no way out, since the open file is shared with
other processes, which would get its EAGAIN too. So a thread writes:

* `write` adds a line to a list, wakes the thread if it sleeps, and returns. When the list is full, the line is dropped
  and counted.
* The thread writes what is queued, then lets lines gather for `GATHER_S`: a line that comes after a silence is
  written at once, and under load few writes have many lines. Each time that the thread wakes and each write takes the
  interpreter's lock from the event loop, which then waits for it.
* What several processes write to, as workers do, gets chunks of whole lines of at most PIPE_BUF bytes: POSIX writes as
  much to a pipe in one piece, so that their lines are not mixed. A process that is alone writes all that is queued.
* The list is shared without a lock: to append to it, to copy it and to remove its beginning is one step each.
* A write that fails drops the lines of its chunk, counted as well. What a failed write has left out of the line that
  it broke off is written first when the next one succeeds, so that no line is ever joined to half of another.
* Once a write succeeds again, `on_recovered` is called with the number of lines dropped since the last time.
* `close` waits for what is queued, for a limited time. A child process after a fork has an empty list and a thread of
  its own.

What this trades: a process that is killed loses the lines of the last moments (`GATHER_S`). One that is alone and ends
while its reader has stalled may leave half of its last line.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

QUEUED_LINES = 10_000
"""About 5 MB of requests' lines."""

GATHER_S = 0.2
"""What a line may wait for others: lines wake the thread at most five times a second."""

_WHOLE_BYTES = 1 << 20
"""What is written at once where no other process writes."""

CLOSE_TIMEOUT_S = 2.0
"""How long `close` waits for a reader that has stalled."""


def _ignore(_dropped: int) -> None:
    """Where losses are not reported."""


class LineWriter:
    """`write` may be called from any thread, and from a finalizer in the middle of another call of it."""

    _lines: list[bytes]
    _wakeups: SimpleQueue[bool]
    """False is the last."""
    _is_asleep: bool
    """Whether the thread waits for a wake-up, or will before it looks for lines again."""
    _closing: threading.Event
    _thread: threading.Thread

    def __init__(
        self, fd: int, *, is_shared: bool = True, queued_lines: int = QUEUED_LINES, gather_s: float = GATHER_S
    ) -> None:
        """`is_shared` says that other processes write to the same pipe or file."""
        self._fd = fd
        self._gather_s = gather_s
        self._chunk_bytes = select.PIPE_BUF if is_shared else _WHOLE_BYTES
        self._queued_lines = queued_lines
        self.on_recovered: Callable[[int], None] = _ignore
        self._refused = 0
        self._failed = 0
        self._reported = 0
        self._rest = b""
        self._start()

    @property
    def dropped(self) -> int:
        """The lines dropped so far."""
        return self._refused + self._failed

    def write(self, line: bytes) -> None:
        """Queue a line, which ends with a newline. A report of `on_recovered` is never dropped."""
        lines = self._lines
        if len(lines) >= self._queued_lines and threading.get_ident() != self._thread.ident:
            self._refused += 1
            return
        lines.append(line)
        if self._is_asleep:
            self._is_asleep = False
            self._wakeups.put(True)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is queued, then end the thread. Gives up after the timeout."""
        self._closing.set()
        self._wakeups.put(False)
        self._thread.join(timeout_s)

    def restart(self) -> None:
        """Begin again in a child process: what is queued is the parent's to write."""
        self._rest = b""
        self._start()

    def _start(self) -> None:
        self._lines, self._wakeups, self._is_asleep = [], SimpleQueue(), True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._wakeups.get():
            self._write_queued()
            if self._closing.wait(self._gather_s):
                break
        self._write_queued()

    def _write_queued(self) -> None:
        # First the flag: a line that comes behind those that are taken wakes the thread once more.
        self._is_asleep = True
        outcomes = [self._write_chunk(chunk) for chunk in _chunks(b"".join(self._take()), self._chunk_bytes)]
        # A report is a line itself: where writing still fails, it would only be dropped, too.
        if outcomes and outcomes[-1] and self.dropped > self._reported:
            self._report()

    def _take(self) -> list[bytes]:
        """Everything that is queued."""
        lines = self._lines[:]
        del self._lines[: len(lines)]
        return lines

    def _write_chunk(self, data: bytes) -> bool:
        """Whether all of it is written."""
        self._rest = self._write_all(self._rest)
        if self._rest:
            self._failed += data.count(b"\n")
            return False
        unwritten = self._write_all(data)
        if not unwritten:
            return True
        self._failed += unwritten.count(b"\n")
        if len(unwritten) < len(data) and data[-len(unwritten) - 1 :][:1] != b"\n":
            # The line that was broken off is late, not lost.
            self._rest = unwritten.partition(b"\n")[0] + b"\n"
            self._failed -= 1
        return False

    def _write_all(self, data: bytes) -> bytes:
        """What could not be written."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Another process has made the shared open file non-blocking.
                _wait_until_writable(self._fd)
            except OSError:
                break
        return data

    def _report(self) -> None:
        dropped = self.dropped
        self.on_recovered(dropped - self._reported)
        self._reported = dropped


def _chunks(lines: bytes, most: int) -> Iterator[bytes]:
    """Whole lines in chunks of at most so many bytes; a longer line alone."""
    begin = 0
    while begin < len(lines):
        end = begin + most
        cut = lines.rfind(b"\n", begin, end) + 1 if end < len(lines) else len(lines)
        cut = cut or lines.find(b"\n", end) + 1
        yield lines[begin:cut]
        begin = cut


def _wait_until_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
