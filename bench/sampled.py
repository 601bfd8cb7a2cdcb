"""Runs the command line of the gateway under a sampling profiler: `python -m bench.sampled OUTPUT serve -c FILE`.

Each tick of processor time interrupts the program and counts what is running, once the event loop runs.
Time within C counts for the line that called it, or the next one that runs.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec

from gateway.__main__ import main

INTERVAL_S = 0.001
"""Asked for; the kernel gives no more than one tick (often 4 ms)."""

LOOPS = {"uvloop/__init__.py", "asyncio/events.py"}
"""Where an event loop calls what it runs: what called the loop is the same for all of it."""

SHOWN = 30


class Samples(msgspec.Struct):
    """How often each was seen: files and lines where the program was, functions that it was within."""

    total: int
    files: list[tuple[str, int]]
    functions: list[tuple[str, int]]
    lines: list[tuple[str, int]]


class Sampler:
    def __init__(self) -> None:
        self._total = 0
        self._files: Counter[str] = Counter()
        self._functions: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop(self) -> Samples:
        signal.setitimer(signal.ITIMER_PROF, 0)
        counters = self._files, self._functions, self._lines
        return Samples(self._total, *(counter.most_common(SHOWN) for counter in counters))

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        if frame is None or not _in_a_loop():
            return
        self._total += 1
        self._files[_file(frame)] += 1
        self._lines[f"{_function(frame)}, line {frame.f_lineno}"] += 1
        self._functions.update({_function(outer) for outer in _outwards(frame)})


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """This frame and those that called it, up to the event loop."""
    while frame is not None and _file(frame) not in LOOPS:
        yield frame
        frame = frame.f_back


def _file(frame: FrameType) -> str:
    return "/".join(Path(frame.f_code.co_filename).parts[-2:])


def _function(frame: FrameType) -> str:
    return f"{_file(frame)} {frame.f_code.co_qualname}"


def run(output: Path) -> None:
    sampler = Sampler()
    sampler.start()
    try:
        main(standalone_mode=False)
    finally:
        output.write_bytes(msgspec.json.encode(sampler.stop()))


if __name__ == "__main__":
    run(Path(sys.argv.pop(1)))
