"""The work of the process that reads a configuration for a gateway, at its start and at each reload: it reads the file,
checks it, builds the snapshot, compares it with the one in force and writes the new one, in parts.

It holds pydantic and the settings' modules; a process that serves does not.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import BinaryIO

from gateway.app.loaded_snapshot import Head, PartWriter, read_snapshot, write_loaded
from gateway.app.snapshot_builder import loaded_snapshot
from gateway.core.snapshot import ConfigSnapshot
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.loading import load

NICENESS = 10
"""Requests go before the reading of a configuration."""


def write_snapshot(path: str, loaded_at: int, before: ConfigSnapshot | None, out: BinaryIO) -> None:
    """The child's work."""
    writer = PartWriter(out)
    try:
        read = load(path, os.environ)
    except SettingsInvalid as invalid:
        writer.write(Head([str(problem) for problem in invalid.problems], invalid.files))
        return
    loaded = loaded_snapshot(read.settings, loaded_at, before)
    write_loaded(loaded._replace(warnings=tuple(map(str, read.warnings))), writer)


def answer_parent(path: str, loaded_at: int) -> None:
    write_snapshot(path, loaded_at, read_snapshot(sys.stdin.buffer), sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    os.nice(NICENESS)
    gc.disable()
    answer_parent(sys.argv[1], int(sys.argv[2]))
