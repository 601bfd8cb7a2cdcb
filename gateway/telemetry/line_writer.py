"""Writes lines to a file descriptor without ever making their author wait.

The reader of a process's standard output can stall: a full pipe, a slow disk, a stopped terminal. A write then blocks,
and on the event loop it would block every request. O_NONBLOCK is no way out, since the open file is shared with
other processes, which would get its EAGAIN too. So a thread writes:

* `write` puts a line into a queue and returns. When the queue is full, the line is dropped and counted.
* The thread waits for a line, lets others gather for a moment, and writes them together, in chunks of whole lines of
  at most PIPE_BUF bytes: POSIX writes as much to a pipe in one piece, so that lines of workers that share it are not
  mixed.
* A write that fails drops the lines of its chunk, counted as well. What a failed write has left out of the line that
  it broke off is written first when the next one succeeds, so that no line is ever joined to half of another.
* Once a write succeeds again, `on_recovered` is called with the number of lines dropped since the last time.
* `close` waits for what is queued, for a limited time. A child process after a fork has an empty queue and a thread of
  its own.

What this trades: a process that is killed loses the lines of the last moments (`GATHER_S`).
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

QUEUED_LINES = 10_000
"""About 5 MB of requests' lines."""

GATHER_S = 0.01
"""What a line may wait for others: at most a hundred writes a second wake the thread."""

CLOSE_TIMEOUT_S = 2.0
"""How long `close` waits for a reader that has stalled."""


def _ignore(_dropped: int) -> None:
    """Where losses are not reported."""


class LineWriter:
    """`write` may be called from any thread, and from a finalizer in the middle of another call of it."""

    def __init__(self, fd: int, queued_lines: int = QUEUED_LINES) -> None:
        self._fd = fd
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
        if self._queue.qsize() >= self._queued_lines and threading.get_ident() != self._thread.ident:
            self._refused += 1
        else:
            self._queue.put(line)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is queued, then end the thread. Gives up after the timeout."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def restart(self) -> None:
        """Begin again in a child process: what is queued is the parent's to write."""
        self._rest = b""
        self._start()

    def _start(self) -> None:
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ends = False
        while not ends:
            first = self._queue.get()
            if first is not None:
                time.sleep(GATHER_S)
            lines = [] if first is None else [first]
            ends = first is None or self._drain(lines)
            outcomes = [self._write_chunk(chunk) for chunk in _chunks(lines)]
            # A report is a line itself: where writing still fails, it would only be dropped, too.
            if outcomes and outcomes[-1] and self.dropped > self._reported:
                self._report()

    def _drain(self, lines: list[bytes]) -> bool:
        """Take everything that is queued. Whether the end was among it."""
        with suppress(Empty):
            while (line := self._queue.get_nowait()) is not None:
                lines.append(line)
            return True
        return False

    def _write_chunk(self, lines: list[bytes]) -> bool:
        """Whether all of it is written."""
        self._rest = self._write_all(self._rest)
        if self._rest:
            self._failed += len(lines)
            return False
        data = b"".join(lines)
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


def _chunks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Whole lines in chunks of at most PIPE_BUF bytes; a longer line alone."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if chunk and size + len(line) > select.PIPE_BUF:
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield chunk


def _wait_until_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
