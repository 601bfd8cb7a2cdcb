"""`python -m bench.workers`: what a second worker costs, and how evenly two share connections.

Two workers have the one core that one worker has alone in turns with them, so that nothing but what they cost each
other makes a difference: twice the work of switching and colder caches, and whatever they would wait for. With a core
for each, they give twice what this table says of two.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click

from bench.peers import CONNECTIONS, PEERS, WARM_S, Bench, Peer, bench, running
from bench.servers import process_cpu_ns

COUNTS = (1, 2)
IDLE_NS = 10_000_000
"""What a process that has started uses in a part of a second at most."""


class Seen(NamedTuple):
    """`cpu_us` is of all processes, for an answer; `largest_share` that of the busiest worker."""

    per_second: float
    cpu_us: float
    largest_share: float


def with_workers(count: int) -> Peer:
    alone = PEERS["gateway"]
    return alone._replace(command=lambda place: [*alone.command(place), "--workers", str(count)])


def measure(servers: Bench, count: int) -> Seen:
    with running(with_workers(count), servers.plain_port, servers.redis_port, servers.peer_core) as its:
        processes = tree(its.server.pid)
        wait_started(processes)
        its.wrk(CONNECTIONS, WARM_S)
        before, began = [process_cpu_ns(pid) for pid in processes], time.monotonic()
        done = its.wrk(CONNECTIONS, servers.seconds)
        answers = done.per_second * (time.monotonic() - began)
        used = [process_cpu_ns(pid) - so_far for pid, so_far in zip(processes, before, strict=True)]
    assert not done.failed, f"{done.failed} requests failed"
    return Seen(done.per_second, sum(used) / 1000 / answers, max(used) / sum(used))


def tree(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def wait_started(processes: Sequence[int]) -> None:
    """One worker answers while another still imports."""
    for _ in range(100):
        before = [process_cpu_ns(pid) for pid in processes]
        time.sleep(0.3)
        used = [process_cpu_ns(pid) - so_far for pid, so_far in zip(processes, before, strict=True)]
        if max(used) < IDLE_NS:
            return
    raise RuntimeError("the workers are never idle")


def table(measured: dict[int, list[Seen]]) -> str:
    middle = {count: Seen(*map(median, zip(*rounds, strict=True))) for count, rounds in measured.items()}
    rows = [
        ("workers on one core", "plain answers/s", "CPU for one, µs", "the busier worker's share"),
        ("--:", "--:", "--:", "--:"),
        *(
            (str(count), f"{seen.per_second:,.0f}", f"{seen.cpu_us:.0f}", f"{seen.largest_share:.0%}")
            for count, seen in middle.items()
        ),
    ]
    gain = COUNTS[-1] * middle[1].cpu_us / middle[COUNTS[-1]].cpu_us
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{lines}\n\nWith a core for each, two would give {gain:.2f} times what one gives."


@click.command(epilog="Example: python -m bench.workers --rounds 1")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=6.0, show_default=True, help="For each figure.")
def main(rounds: int, seconds: float) -> None:
    """Measure one worker and two, with Redis, four limits and the ledger."""
    measured: dict[int, list[Seen]] = {count: [] for count in COUNTS}
    with bench(seconds) as servers:
        for number in range(1, rounds + 1):
            click.echo(f"round {number} of {rounds}", err=True)
            turn: Sequence[int] = COUNTS if number % 2 else COUNTS[::-1]
            for count in turn:
                measured[count].append(measure(servers, count))
    click.echo(table(measured))


if __name__ == "__main__":
    main()
