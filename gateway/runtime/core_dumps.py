"""Turns core dumps off: one would hold every key that the process knows."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress

_PR_SET_DUMPABLE = 4
"""linux/prctl.h."""


def disable_core_dumps() -> None:
    """For this process and those that it starts. On Linux other processes of the same user can no longer read this
    one's memory either, as a debugger would (prctl(2)). Where the system does not allow it, nothing changes."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
