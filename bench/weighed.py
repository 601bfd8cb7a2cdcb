"""Runs the command line of the gateway and weighs its objects: `python -m bench.weighed OUTPUT serve -c FILE`.

SIGUSR2 writes what there is: the objects of each type, and what each line of Python has allocated that is still held.
"""

from __future__ import annotations

import gc
import signal
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from types import FrameType

import msgspec

from gateway.__main__ import main


class Held(msgspec.Struct):
    """How many there are of something, and how many bytes they take."""

    count: int
    size: int


class Weights(msgspec.Struct):
    """By type, without what the collector of garbage does not see (texts, bytes, numbers); and by place, as
    `file:line`, with all but what libraries in C allocate on their own."""

    types: dict[str, Held]
    places: dict[str, Held]


def weights() -> Weights:
    gc.collect()
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for each in gc.get_objects():
        name = f"{type(each).__module__}.{type(each).__qualname__}"
        counts[name] += 1
        sizes[name] += sys.getsizeof(each)
    places = tracemalloc.take_snapshot().statistics("lineno")
    return Weights(
        {name: Held(count, sizes[name]) for name, count in counts.items()},
        {f"{each.traceback[0].filename}:{each.traceback[0].lineno}": Held(each.count, each.size) for each in places},
    )


def run(output: Path) -> None:
    def write(_number: int, _frame: FrameType | None) -> None:
        written = output.with_suffix(".new")
        written.write_bytes(msgspec.json.encode(weights()))
        written.rename(output)

    tracemalloc.start()
    signal.signal(signal.SIGUSR2, write)
    main()


if __name__ == "__main__":
    run(Path(sys.argv.pop(1)))
