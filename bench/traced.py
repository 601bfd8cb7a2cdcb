"""Runs the command line of the gateway and counts bytecodes: `python -m bench.traced OUTPUT serve -c FILE`.

SIGUSR2 begins to count, a second one ends it and writes what each function has executed, as JSON.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgspec

from bench.counted import as_in_a_flood
from gateway.__main__ import main


class Executed(msgspec.Struct):
    """What one function has executed: its file, its name, and how many bytecodes."""

    file: str
    function: str
    bytecodes: int


class Tracer:
    def __init__(self, output: Path) -> None:
        self._output = output
        self._counts: Counter[CodeType] = Counter()
        self._counting = False

    def toggle(self, _number: int, _frame: FrameType | None) -> None:
        self._counting = not self._counting
        sys.settrace(self._enter if self._counting else None)
        if not self._counting:
            executed = [Executed(code.co_filename, code.co_qualname, count) for code, count in self._counts.items()]
            self._output.write_bytes(msgspec.json.encode(executed))

    def _enter(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "opcode":
            self._counts[frame.f_code] += 1
        return self._step


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, Tracer(Path(sys.argv.pop(1))).toggle)
    as_in_a_flood()
    main()
