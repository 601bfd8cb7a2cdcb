from __future__ import annotations

import subprocess
import sys

ASKED = """
import ctypes, resource
from gateway.runtime.core_dumps import disable_core_dumps
disable_core_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_a_process_leaves_no_core_dump_and_is_not_to_be_looked_into() -> None:
    said = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, check=True, text=True).stdout
    assert said == ("(0, 0) 0\n" if sys.platform == "linux" else said)
