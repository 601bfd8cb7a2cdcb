"""`python -m bench.admission`: what admission and settlement in Redis cost the gateway, and Redis.

One core has this process, which is a gateway's store without its listeners; the other has redis-server, on a
unix socket, without persistence. A pair is an admission and the settlement after it.

With `--instructions` Redis runs under callgrind instead: what its scripts execute is the same to a percent however busy
the machine is, which times are not.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import msgspec
import uvloop
from redis import Redis
from redis.exceptions import RedisError

from bench.report import machine
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.reservation import AdmissionRequest, Charge, LedgerEntry, Reservation, Settlement
from gateway.core.usage import Usage
from gateway.runtime.garbage import leave_garbage
from gateway.store.in_redis import RedisOptions, RedisStore

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- bench of admission: begin -->", "<!-- bench of admission: end -->"
CLIENTS = 64
TURN = 1_000
ROUNDS = 3
KEYS = 10_000
USED = Usage(input=50, output=40)
WHOLE = (Meter.REQUESTS, Meter.CONCURRENT)
"""What is charged one for each request, and nothing when it is settled."""
CALLGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no")


@dataclass(frozen=True)
class Cost:
    """Of a pair, but for the two of Redis: those are of one admission and of one settlement."""

    limits: int
    keys: int
    pairs_per_s: float
    gateway_us: float
    redis_admit_us: float
    redis_settle_us: float


@dataclass(frozen=True)
class Instructions:
    """Of redis-server, for one call."""

    admission: int
    settlement: int


@contextmanager
def redis_server(core: int, counted: bool = False) -> Iterator[Redis]:
    """`counted`: under callgrind, which writes `counted.*` into the server's folder and counts nothing yet."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        path = f"{folder}/redis.sock"
        program = shutil.which("redis-server") or "redis-server"
        command = [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        if counted:
            # Nothing is slow but by callgrind.
            command = [
                *CALLGRIND,
                f"--callgrind-out-file={folder}/counted",
                *command,
                "--slowlog-log-slower-than",
                "-1",
            ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if counted else None)
        os.sched_setaffinity(process.pid, {core})
        client = Redis(unix_socket_path=path)
        try:
            _wait_until_it_answers(client)
            yield client
        finally:
            client.close()
            process.terminate()
            process.wait()


def _wait_until_it_answers(client: Redis) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            client.ping()
        except RedisError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def limits(count: int, key: str) -> list[Limit]:
    """Of the organisation, a team and one of its keys; none of them ever refuses. As in a gateway, what binds all keys
    is the same for each."""
    every = _every_limit(count)
    return [msgspec.structs.replace(one, subject=key) if one.scope is Scope.KEY else one for one in every]


@cache
def _every_limit(count: int) -> tuple[Limit, ...]:
    team = {"scope": Scope.TEAM, "subject": "bench", "team": "bench"}
    own = {"scope": Scope.KEY, "subject": "", "team": "bench"}
    whose = {"scope": Scope.ORGANISATION, "subject": "", "team": ""}
    four = [
        (Meter.REQUESTS, Per.MINUTE, whose),
        (Meter.TOKENS, Per.MINUTE, team),
        (Meter.USD, Per.MONTH, team),
        (Meter.CONCURRENT, None, own),
    ]
    made = [
        Limit(name=f"{number}", meter=meter, per=per, amount=10**11, burst=10**11, **scope)  # type: ignore[arg-type]
        for number in range(-(-count // 4))
        for meter, per, scope in four
    ]
    return tuple(made[:count])


def ask(bound_by: Sequence[Limit]) -> AdmissionRequest:
    """What each request of a key asks, but for its id: a gateway has the limits of a key and a model once, too."""
    charges = [Charge(one, 1) if one.meter in WHOLE else Charge(one, 50, 1_000_000) for one in bound_by]
    return AdmissionRequest.of("", charges, likely=100, most=1_000)


@cache
def _charged(count: int) -> tuple[int, ...]:
    """What each of so many limits is charged in the end."""
    return tuple([0 if one.meter in WHOLE else USED.total for one in _every_limit(count)])


def truth(reservation: Reservation, key: str) -> Settlement:
    actual = _charged(len(reservation.holds.limits))
    entry = LedgerEntry("2026-11-23", "bench", key, "m", USED, 31, upstream="up1")
    return Settlement(reservation.id, reservation.at_ms, reservation.holds, actual, entry)


class Run:
    """Admissions and settlements in turns of a thousand, so that Redis' time for each can be measured. Made in the
    event loop in which it runs."""

    def __init__(self, redis: Redis, count: int, keys: int) -> None:
        self._redis = redis
        self._store = opened(redis)
        self._count, self._keys = count, keys
        self._asked = [(key, ask(limits(count, key))) for key in [f"{number:012x}" for number in range(keys)]]

    async def cost(self, pairs: int) -> Cost:
        """Of pairs whose keys were used before, at least `pairs` and once for each key."""
        await self._store.ping()
        leave_garbage()
        pairs = max(pairs, self._keys)
        for first in range(0, self._keys, TURN):
            await self._settle_all(await self._admit(first))
        began, cpu_began = time.perf_counter(), time.process_time()
        redis_s = [_cpu_s(self._redis)]
        for first in range(self._keys, self._keys + pairs, TURN):
            made = await self._admit(first)
            redis_s.append(_cpu_s(self._redis))
            await self._settle_all(made)
            redis_s.append(_cpu_s(self._redis))
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        await self._store.close()
        steps = [after - before for before, after in pairwise(redis_s)]
        figures = (pairs / elapsed, *[part * 1e6 / pairs for part in (cpu, sum(steps[::2]), sum(steps[1::2]))])
        return Cost(self._count, self._keys, *figures)

    async def _admit(self, first: int) -> list[tuple[Reservation, str]]:
        made: list[tuple[Reservation, str]] = []

        async def client(start: int) -> None:
            for number in range(first + start, first + TURN, CLIENTS):
                key, asked = self._asked[number % self._keys]
                name = f"{self._count:04x}{self._keys:08x}{number:012x}"
                verdict = await self._store.admit(msgspec.structs.replace(asked, id=name))
                assert isinstance(verdict, Reservation)
                made.append((verdict, key))

        await asyncio.gather(*[client(start) for start in range(CLIENTS)])
        return made

    async def _settle(self, made: list[tuple[Reservation, str]]) -> None:
        for reservation, key in made:
            await self._store.settle(truth(reservation, key))

    async def instructions(self, turns: int) -> Instructions:
        """Of Redis, which runs under callgrind, after a turn to warm up."""
        await self._settle_all(await self._admit(0))
        _callgrind(self._redis, "--instr=on")
        admitting = settling = 0
        for turn in range(1, turns + 1):
            _callgrind(self._redis, "--zero")
            made = await self._admit(turn * TURN)
            admitting += _counted(self._redis)
            await self._settle_all(made)
            settling += _counted(self._redis)
        await self._store.close()
        return Instructions(round(admitting / turns / TURN), round(settling / turns / TURN))

    async def _settle_all(self, made: list[tuple[Reservation, str]]) -> None:
        await asyncio.gather(*[self._settle(made[client::CLIENTS]) for client in range(CLIENTS)])


async def cost_of(redis: Redis, count: int, keys: int, pairs: int) -> Cost:
    return await Run(redis, count, keys).cost(pairs)


async def instructions_of(redis: Redis, turns: int) -> Instructions:
    return await Run(redis, 4, 1).instructions(turns)


def least_disturbed(redis: Redis, count: int, keys: int, pairs: int) -> Cost:
    """Each figure the best of three rounds: what others do on the machine only ever adds."""
    rounds = [uvloop.run(cost_of(redis, count, keys, pairs)) for _ in range(ROUNDS)]
    return Cost(
        count,
        keys,
        max(one.pairs_per_s for one in rounds),
        min(one.gateway_us for one in rounds),
        min(one.redis_admit_us for one in rounds),
        min(one.redis_settle_us for one in rounds),
    )


def opened(redis: Redis) -> RedisStore:
    path = redis.connection_pool.connection_kwargs["path"]
    return RedisStore(RedisOptions(url=f"unix://{path}", process="bench", timeout_s=10), ZoneInfo("UTC"))


def _cpu_s(redis: Redis) -> float:
    used = redis.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def _callgrind(redis: Redis, order: str) -> None:
    pid = str(redis.info("server")["process_id"])
    subprocess.run(["callgrind_control", order, pid], check=True, capture_output=True, timeout=120)


def _counted(redis: Redis) -> int:
    """The instructions since this was asked last, or since they were set to zero."""
    _callgrind(redis, "--dump")
    folder = Path(redis.connection_pool.connection_kwargs["path"]).parent
    newest = max(folder.glob("counted.*"), key=lambda path: int(path.suffix[1:]))
    return int(re.findall(r"^(?:summary|totals): (\d+)", newest.read_text(errors="replace"), re.MULTILINE)[-1])


async def get_us(redis: Redis, calls: int = 20_000) -> float:
    """What Redis takes for a GET that comes the same way: a yardstick, since machines differ."""
    store = opened(redis)
    router = store.client.admissions
    began = _cpu_s(redis)
    for _ in range(0, calls, CLIENTS):
        await asyncio.gather(*[router.ask("gw", ("GET", "gw")) for _ in range(CLIENTS)])
    took = _cpu_s(redis) - began
    await store.close()
    return took * 1e6 / calls


async def memory_mib(redis: Redis) -> float:
    """What 10,000 keys take, each with five limits of its own and a request under way."""
    redis.flushall()
    store = opened(redis)
    kinds = [(Meter.REQUESTS, Per.HOUR), (Meter.TOKENS, Per.HOUR), (Meter.TOKENS, Per.MONTH), (Meter.USD, Per.MONTH)]
    before = redis.info("memory")["used_memory"]
    for first in range(0, KEYS, 200):
        names = [f"{number:012x}" for number in range(first, first + 200)]
        asks = [(name, ask([_of_key(name, *kind) for kind in (*kinds, (Meter.CONCURRENT, None))])) for name in names]
        await asyncio.gather(*[store.admit(msgspec.structs.replace(one, id=name)) for name, one in asks])
    after = redis.info("memory")["used_memory"]
    await store.close()
    return float(after - before) / 2**20


def _of_key(key: str, meter: Meter, per: Per | None) -> Limit:
    return Limit(f"{meter}-{per}", Scope.KEY, key, meter, per, 10**9, 10**9, team="bench")


def table(costs: Sequence[Cost], mib: float, yardstick_us: float) -> list[str]:
    rows = [
        ("limits", "keys", "pairs a second", "gateway, a pair", "Redis, an admission", "Redis, a settlement"),
        ("---",) * 6,
    ]
    for cost in costs:
        aims = [" (aim: 80)", " (aim: 25)"] if cost.limits == 4 and cost.keys == 1 else ["", ""]
        rows.append(
            (f"{cost.limits}", f"{cost.keys:,}", f"{cost.pairs_per_s:,.0f}", f"{cost.gateway_us:.0f} µs{aims[0]}",
             f"{cost.redis_admit_us:.0f} µs{aims[1]}", f"{cost.redis_settle_us:.0f} µs")
        )  # fmt: skip
    return [
        *[f"| {' | '.join(row)} |" for row in rows],
        "",
        (
            f"A GET that comes the same way took Redis {yardstick_us:.1f} µs meanwhile. 10,000 keys, each with five "
            f"limits of its own and a request under way, take {mib:.1f} MiB there."
        ),
    ]


@click.command(epilog="Example: python -m bench.admission --pairs 5000")
@click.option("--pairs", default=10_000, show_default=True, help="Admissions, and settlements, of each run.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
@click.option("--write", is_flag=True, help="Write the table into docs/performance.md.")
@click.option("--instructions", is_flag=True, help="Count what Redis executes with four limits instead (valgrind).")
def main(pairs: int, as_json: bool, write: bool, instructions: bool) -> None:
    """Measure admission and settlement in Redis: processor time of the gateway and of Redis."""
    own, other = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {own})
    if instructions:
        with redis_server(other, counted=True) as redis:
            found = uvloop.run(instructions_of(redis, -(-pairs // TURN)))
        words = f"{found.admission:,} instructions an admission, {found.settlement:,} a settlement"
        click.echo(json.dumps(asdict(found)) if as_json else words)
        return
    with redis_server(other) as redis:
        costs = [least_disturbed(redis, count, 1, pairs) for count in (1, 4, 16)]
        costs.append(least_disturbed(redis, 4, KEYS, pairs))
        yardstick_us = min(uvloop.run(get_us(redis)) for _ in range(ROUNDS))
        mib = uvloop.run(memory_mib(redis))
        version = redis.info("server")["redis_version"]
    if as_json:
        report = {"machine": machine(), "costs": [asdict(cost) for cost in costs], "get_us": yardstick_us}
        click.echo(json.dumps(report | {"memory_mib": mib}))
        return
    lines = table(costs, mib, yardstick_us)
    click.echo("\n".join(lines))
    if write:
        facts = f"Made by `python -m bench.admission` on: {machine()}, Redis {version}."
        text = PAGE.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + "\n".join([BEGIN, *lines, "", facts, END]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
