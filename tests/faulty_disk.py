"""A disk that fails under the journal of a gateway's processes, as a test says and whenever it says so.

The processes get a `sitecustomize` module, which Python imports before all else. Its `os` asks a file for what the
disk does at each call on a file of a journal.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.whole_gateway import PATIENCE_S

LOOK_EVERY_S = 0.01

HANG, TORN = "hang", "torn"
"""Instead of the name of an error: the call never returns; half of it is written first."""

_SITE = """
import errno, json, os, time
from pathlib import Path

FOLDER = Path(__file__).parent


def faulty(name):
    real = getattr(os, name)

    def call(file, *arguments):
        if not os.readlink(f"/proc/self/fd/{file}").endswith(".journal"):
            return real(file, *arguments)
        fault = json.loads((FOLDER / "faults").read_text()).get(name)
        if fault is None:
            return real(file, *arguments)
        if fault == "torn":
            real(file, bytes(arguments[0])[: len(arguments[0]) // 2])
        if fault in ("torn", "hang"):
            met = FOLDER / "met.new"
            met.write_text(str(os.getpid()))
            met.rename(FOLDER / "met")
            while True:
                time.sleep(3600)
        raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))

    setattr(os, name, call)


for name in ("write", "fdatasync", "ftruncate"):
    faulty(name)
"""


class FaultyDisk:
    """`environment` is what the gateway's processes need."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.environment = {"PYTHONPATH": str(folder)}
        (folder / "sitecustomize.py").write_text(_SITE)
        self.work()

    def work(self) -> None:
        self.fail()

    def fail(self, **faults: str) -> None:
        """From now on, `write`, `fdatasync` and `ftruncate` do this: the name of an error, HANG or TORN."""
        changed = self._folder / "faults.new"
        changed.write_text(json.dumps(faults))
        changed.rename(self._folder / "faults")

    async def hangs(self) -> int:
        """The process whose call never returns, once there is one."""
        met = self._folder / "met"
        async with asyncio.timeout(PATIENCE_S):
            while not met.exists():
                await asyncio.sleep(LOOK_EVERY_S)
        pid = int(met.read_text())
        met.unlink()
        return pid
