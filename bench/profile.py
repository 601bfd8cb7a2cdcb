"""Where the gateway's time goes: each load in turn, under the sampling profiler of `bench.sampled`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench import measures
from bench.rounds import Bench
from bench.sampled import Samples

SECONDS = 6.0

Load = Callable[[Bench], Coroutine[Any, Any, object]]


def profiled() -> str:
    """Both reports as text."""
    return f"{_under('plain answers', _plain)}\n\n{_under('streams', _streams)}"


async def _plain(bench: Bench) -> None:
    await measures.plain_rate(bench.through, bench.gateway, SECONDS)


async def _streams(bench: Bench) -> None:
    await measures.streaming(bench.through, bench.gateway, SECONDS)


def _under(name: str, load: Load) -> str:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "samples.json"
        with Bench(output) as bench:
            uvloop.run(load(bench))
        return shown(name, msgspec.json.decode(output.read_bytes(), type=Samples))


def shown(name: str, samples: Samples) -> str:
    """The samples as text, in shares of them all."""
    parts = [
        ("in these files", samples.files),
        ("within these functions and what they call", samples.functions),
        ("at these lines", samples.lines),
    ]
    lines = [f"{name}: {samples.total} samples"]
    for head, counted in parts:
        lines += ["", f"  {head}", *(f"  {count / samples.total:6.1%}  {where}" for where, count in counted)]
    return "\n".join(lines)
