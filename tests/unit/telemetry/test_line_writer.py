"""Lines reach their reader whole, whatever it does, and whoever logs them never waits."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.telemetry.line_writer import LineWriter

LINE = b"%06d " + b"x" * 500 + b"\n"
TIMEOUT_S = 20.0


class Pipe(NamedTuple):
    reader: int
    writer: int

    def read(self, size: int = 65_536) -> bytes:
        return os.read(self.reader, size)

    def read_lines(self, count: int) -> list[bytes]:
        read = b""
        while read.count(b"\n") < count:
            read += self.read()
        return read.splitlines(keepends=True)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    yield pipe
    for fd in pipe:
        os.close(fd)


async def turns_of_the_loop(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_reader_that_stalls_does_not_stop_the_event_loop_and_gets_whole_lines(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writer)
    lines = [LINE % number for number in range(5_000)]
    async with asyncio.timeout(TIMEOUT_S):
        for line in lines:
            writer.write(line)
            await turns_of_the_loop(1)
        assert await asyncio.to_thread(pipe.read_lines, len(lines)) == lines
    assert writer.dropped == 0
    writer.close()


def test_beyond_its_bound_lines_are_dropped_and_counted(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writer, queued_lines=100)
    reported: list[int] = []
    known = threading.Event()

    def report(dropped: int) -> None:
        reported.append(dropped)
        if sum(reported) == writer.dropped:
            known.set()

    writer.on_recovered = report
    written = 0
    while writer.dropped < 50:
        writer.write(LINE % written)
        written += 1
    expected = written - writer.dropped
    read = pipe.read_lines(expected)
    assert len(read) == expected
    assert all(len(line) == len(LINE % 0) for line in read)
    assert known.wait(TIMEOUT_S)
    writer.close()


def test_lines_go_out_in_chunks_that_a_shared_pipe_keeps_in_one_piece(pipe: Pipe) -> None:
    writers = [LineWriter(pipe.writer) for _ in range(2)]
    for number in range(2_000):
        for writer in writers:
            writer.write(LINE % number)
    lines = pipe.read_lines(4_000)
    assert sorted(lines) == sorted([LINE % number for number in range(2_000)] * 2)
    for writer in writers:
        writer.close()


def test_only_a_line_that_is_longer_than_a_chunk_goes_out_in_several_pieces() -> None:
    reader, fd = os.pipe2(os.O_DIRECT)  # Of which each read gets one write, or as much of it as a pipe keeps together.
    writer = LineWriter(fd)
    sizes = [select.PIPE_BUF + more for more in (-1, 0, 1, -1, 0)] + [10, 3 * select.PIPE_BUF, 10, 10, 1]
    lines = [bytes([97 + number]) * (size - 1) + b"\n" for number, size in enumerate(sizes)]
    for line in lines:
        writer.write(line)
    writer.close()
    os.close(fd)
    pieces = list(iter(lambda: os.read(reader, 2 * select.PIPE_BUF), b""))
    os.close(reader)
    assert b"".join(pieces) == b"".join(lines)
    of_long_lines = {line[0] for line in lines if len(line) > select.PIPE_BUF}
    assert not [piece for piece in pieces if not piece.endswith(b"\n") and set(piece) - of_long_lines]


def test_what_comes_soon_after_a_line_is_written_together_when_the_writer_closes_at_the_latest() -> None:
    reader, fd = os.pipe2(os.O_DIRECT)
    writer = LineWriter(fd, gather_s=10 * TIMEOUT_S)
    writer.write(b"first\n")
    readable, _, _ = select.select([reader], [], [], TIMEOUT_S)
    assert readable
    assert os.read(reader, select.PIPE_BUF) == b"first\n"
    for line in (b"second\n", b"third\n"):
        writer.write(line)
    writer.close(timeout_s=TIMEOUT_S)
    os.close(fd)
    assert os.read(reader, select.PIPE_BUF) == b"second\nthird\n"
    os.close(reader)


@pytest.mark.parametrize(("is_shared", "written"), [(True, 8 * 508), (False, select.PIPE_BUF)])
def test_only_a_pipe_that_is_shared_needs_whole_lines_in_each_piece(is_shared: bool, written: int) -> None:
    reader, fd = os.pipe2(os.O_DIRECT)
    writer = LineWriter(fd, is_shared=is_shared)
    writer.write(b"".join(LINE % number for number in range(20)))
    writer.close()
    assert len(os.read(reader, 2 * select.PIPE_BUF)) == written
    for each in (reader, fd):
        os.close(each)


FULL_DISK = """
import os, resource, sys, time
from gateway.telemetry.line_writer import LineWriter

def line(number):
    return b"%06d " % number + b"x" * 500 + b"\\n"

_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(line(0)) + 7, most))
writer = LineWriter(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600))
writer.on_recovered = lambda dropped: print(dropped, flush=True)
for number in range(10):
    writer.write(line(number))
while writer.dropped < 7:
    time.sleep(0.001)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
writer.write(line(10))
writer.close()
"""


def test_a_line_that_a_full_disk_broke_off_is_completed_before_the_next(tmp_path: Path) -> None:
    """A limit on the size of files fails in the middle of a line, as a full disk does."""
    file = tmp_path / "log"
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK, file], capture_output=True, check=True, timeout=TIMEOUT_S, text=True
    )
    assert file.read_bytes().splitlines(keepends=True) == [LINE % number for number in (0, 1, 2, 10)]
    assert ended.stdout == "7\n"


def test_a_reader_that_has_gone_costs_lines_and_nothing_else() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    writer = LineWriter(fd)
    for number in range(10):
        writer.write(LINE % number)
    writer.close()
    assert writer.dropped == 10
    os.close(fd)


def test_a_pipe_that_somebody_made_non_blocking_gets_every_line(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = LineWriter(pipe.writer)
    for number in range(1_000):
        writer.write(LINE % number)
    assert pipe.read_lines(1_000) == [LINE % number for number in range(1_000)]
    writer.close()


def test_closing_gives_up_on_a_reader_that_has_stalled(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writer)
    for number in range(1_000):
        writer.write(LINE % number)
    writer.close(timeout_s=0.05)
    pipe.read_lines(1_000)
