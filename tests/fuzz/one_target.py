"""`python -m tests.fuzz.one_target TARGET SECONDS SEED INPUTS`: atheris on one target, in a process of its own, since
libFuzzer ends the one it is in. A seed of 0 is drawn by chance; INPUTS of -1 are any number."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
LONGEST_BYTES = 4096
SLOWEST_S = 10


def main(name: str, seconds: str, seed: str, inputs: str) -> None:
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as grown:
        options = [
            *(f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}", f"-timeout={SLOWEST_S}"),
            *(f"-seed={seed}", f"-runs={inputs}", f"-artifact_prefix=.tools/found-{name}-"),
            *("-print_final_stats=1", "-verbosity=0"),
        ]
        atheris.Setup([sys.argv[0], *options, grown, str(CORPUS / name)], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
