"""`python -m tests.soak --minutes 30`: exit status 0 where everything holds, 1 where not; the report says what."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.soak.traffic import Traffic
from tests.soak.watch import Sample, Verdict, Watch
from tests.soak.world import World, soak_world

SAMPLES = 40
"""Over the whole time, so that a long soak has no longer report."""
ACCIDENT_EVERY_S = 12.0
_HEAD = "    time   worker  supervisor  descriptors  threads  in flight  unsettled  Redis keys   Redis   answered"


async def soak(minutes: float, seed: int, gateways: int, folder: Path, *, cluster: bool) -> bool:
    async with soak_world(folder, gateways, cluster=cluster) as world:
        traffic = Traffic(world, Random(seed))
        watch = Watch(world, traffic)
        running = asyncio.ensure_future(traffic.run(minutes * 60, ACCIDENT_EVERY_S))
        _say(_HEAD)
        while not running.done():
            await asyncio.wait([running], timeout=minutes * 60 / SAMPLES)
            sample = await watch.sample()
            if sample is not None:
                _say(_line(sample))
        running.result()
        verdicts = await watch.verdicts()
        _say(_line(watch.samples[-1]))
        _report(world, traffic, verdicts)
        return all(verdict.holds for verdict in verdicts)


def _line(sample: Sample) -> str:
    return (
        f"{sample.at_s:7.0f}s {sample.worker_mib:5.1f}MiB {sample.supervisor_mib:8.1f}MiB {sample.descriptors:12}"
        f" {sample.threads:8} {sample.in_flight:10.0f} {sample.unsettled:10.0f} {sample.redis_keys:11}"
        f" {sample.redis_mib:4.1f}MiB {sample.answered:10}"
    )


def _report(world: World, traffic: Traffic, verdicts: list[Verdict]) -> None:
    _say("\nwhat happened: " + ", ".join(f"{count} × {name}" for name, count in traffic.accidents.items()))
    for team, counts in traffic.answers.items():
        _say(f"  {team:8} " + ", ".join(f"{count} × {outcome}" for outcome, count in counts.most_common()))
    _say("")
    for verdict in verdicts:
        _say(f"{'ok  ' if verdict.holds else 'FAIL'}  {verdict.what}: {verdict.figures}")
    if not all(verdict.holds for verdict in verdicts):
        for gateway in world.gateways:
            _say(f"\nthe last lines of the log of {gateway.folder.name} that are no requests:")
            lines = [line for line in gateway.log.read_text().splitlines() if '"event":"request"' not in line]
            _say("\n".join(lines[-30:] + gateway.defects()[-5:]))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gateways", type=int, default=3, help="with one store; all but the first are killed, too")
    parser.add_argument("--cluster", action="store_true", help="in place of one Redis; its masters fail over")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soaking = soak(given.minutes, given.seed, given.gateways, Path(folder), cluster=given.cluster)
        return 0 if asyncio.run(soaking) else 1


if __name__ == "__main__":
    sys.exit(main())
