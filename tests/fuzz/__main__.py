"""`python -m tests.fuzz [--seconds 960] [--seed N] [--inputs N] [TARGET…]`: atheris on each target, the time shared
among them. With a seed and a number of inputs, the inputs are the same each time.

What breaks a target is in a file `.tools/found-…`, whose name is printed: put it into the corpus once it is fixed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=960)
    parser.add_argument("--seed", type=int, default=0, help="of the inputs; 0, the default: drawn by chance")
    parser.add_argument("--inputs", type=int, default=-1, help="for each target, within its time; -1, the default: any")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    each = max(1, given.seconds // len(names))
    broken = [name for name in names if not _holds(name, each, given.seed, given.inputs)]
    sys.stdout.write(f"broken: {', '.join(broken)}\n" if broken else "every target holds\n")
    return 1 if broken else 0


def _holds(name: str, seconds: int, seed: int, inputs: int) -> bool:
    command = [sys.executable, "-m", "tests.fuzz.one_target", name, str(seconds), str(seed), str(inputs)]
    # The order of a set decides which inputs come next, too.
    environment = os.environ | ({"PYTHONHASHSEED": str(seed)} if seed else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    counts = [line.rpartition(" ")[2] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    holds = done.returncode == 0
    sys.stdout.write(f"{name:16} {'holds ' if holds else 'BROKEN'} {counts[0] if counts else '?':>10} inputs\n")
    if not holds:
        sys.stdout.write(done.stderr[-6000:])
    sys.stdout.flush()
    return holds


if __name__ == "__main__":
    sys.exit(main())
