"""What is measured while a soak runs, and what is judged at its end."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from tests.redis_servers import RedisServer
from tests.soak.traffic import LOOPS, Traffic
from tests.soak.world import BOUNDED, BOUNDED_A_SECOND, BOUNDED_AT_ONCE, FLAKY, LEFT, POLL_S, STEADY, TOKEN, World
from tests.whole_gateway import Json

MIB = 1024 * 1024
GROWTH_MIB_MOST = 12.0
"""Of the worker that lives through it all, over the second half. An allocator settles within the first."""
DESCRIPTORS_MORE_MOST = 40
KEYS_MORE_MOST = 30
"""Of Redis, over the second half: what has a name of its own for each day or user is there after the first."""
HOLDS_RETURN_S = 70.0
"""Reservations of a dead process return by themselves within 60 s."""
ANSWERS = {200, 400, 401, 404, 413, 429, 500, 502, 503}
"""500 is the model server's own, which reaches the caller as it was; one of the gateway's is an error in its log."""
STORE_RETURNS_S = 30.0
"""The last accident may have been a restart of Redis: so long its gateways have to find it again."""


_STORED_KEYS = b":{k}:"
"""Keys of callers stay until long after they are revoked."""


class Sample(NamedTuple):
    at_s: float
    worker_mib: float
    """Of the worker that lives through it all."""
    supervisor_mib: float
    descriptors: int
    threads: int
    in_flight: float
    unsettled: float
    task_failures: float
    redis_keys: int
    """But for the records of what was settled, of which each process writes one a second; they stay for an hour."""
    everlasting_keys: int
    redis_mib: float
    answered: int


class _RedisSeen(NamedTuple):
    keys: int
    everlasting: int
    mib: float


class Verdict(NamedTuple):
    holds: bool
    what: str
    figures: str


class Watch:
    """Samples a running world, and judges it once its traffic is over."""

    def __init__(self, world: World, traffic: Traffic) -> None:
        self.samples: list[Sample] = []
        self._world = world
        self._traffic = traffic
        self._began = time.monotonic()

    async def sample(self) -> Sample | None:
        """None while Redis is out: then there is nothing to compare."""
        try:
            seen = await asyncio.to_thread(self._of_redis)
        except OSError:
            return None
        metrics = await self._metrics()
        first = self._world.gateways[0]
        pid = first.worker_pids[1]
        taken = Sample(
            at_s=time.monotonic() - self._began,
            worker_mib=_resident_mib(pid),
            supervisor_mib=_resident_mib(first.supervisor_pid),
            descriptors=_entries(f"/proc/{pid}/fd"),
            threads=_entries(f"/proc/{pid}/task"),
            in_flight=metrics.get("gateway_requests_in_flight", 0.0),
            unsettled=metrics.get("gateway_unsettled_requests", 0.0),
            task_failures=metrics.get("gateway_task_failures_total", 0.0),
            redis_keys=seen.keys,
            everlasting_keys=seen.everlasting,
            redis_mib=seen.mib,
            answered=sum(sum(counts.values()) for counts in self._traffic.answers.values()),
        )
        self.samples.append(taken)
        return taken

    async def verdicts(self) -> list[Verdict]:
        """Waits until what dead workers held has returned."""
        held = await self._held_at_last()
        last = await self.sample()
        assert last is not None
        half = self.samples[len(self.samples) // 2 :]
        middle = half[0]
        growth = _growth([(sample.at_s, sample.worker_mib) for sample in half])
        defects = [line for gateway in self._world.gateways for line in gateway.defects()]
        return [
            Verdict(growth <= GROWTH_MIB_MOST, "memory of a worker settles", f"{growth:+.1f} MiB over the second half"),
            Verdict(
                last.descriptors <= middle.descriptors + DESCRIPTORS_MORE_MOST,
                "descriptors of a worker settle",
                f"{middle.descriptors} in the middle, {last.descriptors} at the end",
            ),
            Verdict(last.threads <= middle.threads + 2, "threads settle", f"{middle.threads}, then {last.threads}"),
            Verdict(last.in_flight == 0, "no request is left", f"{last.in_flight:.0f} in flight"),
            Verdict(last.unsettled == 0, "nothing is left to be settled", f"{last.unsettled:.0f} unsettled"),
            Verdict(last.task_failures == 0, "no background task failed", f"{last.task_failures:.0f} failures"),
            Verdict(held == 0, "no limit holds anything", f"{held:g} held"),
            Verdict(
                last.redis_keys <= middle.redis_keys + KEYS_MORE_MOST,
                "keys of Redis settle",
                f"{middle.redis_keys} in the middle, {last.redis_keys} at the end",
            ),
            Verdict(last.everlasting_keys == 0, "every key of Redis expires", f"{last.everlasting_keys} do not"),
            Verdict(not defects, "no error of the gateway's own", f"{len(defects)} lines of the log"),
            Verdict(not self._odd(), "every answer is one that may be", "; ".join(self._odd()) or "all of them"),
            *self._limits(),
            *await self._ledger(),
        ]

    def _limits(self) -> list[Verdict]:
        """What the bounded team got, against its limits: however many gateways there are, and whatever dies."""
        traffic = self._traffic
        served = traffic.answers[BOUNDED]["200"]
        # A replica that takes over may lack the last second's counters and holds.
        most = BOUNDED_A_SECOND * (traffic.lasted_s + 1 + traffic.failovers)
        at_once = BOUNDED_AT_ONCE * (2 if traffic.failovers else 1)
        return [
            Verdict(served <= most, "no more requests than the rate gives", f"{served} of {most:.0f}"),
            Verdict(
                0 < traffic.most_at_once <= at_once,
                "no more requests at once than the limit",
                f"{traffic.most_at_once} of {at_once}",
            ),
        ]

    def _odd(self) -> list[str]:
        """What no client should get whatever happens, and what else may not be."""
        odd = [
            f"{count} × {outcome} of {team}"
            for team, counts in self._traffic.answers.items()
            for outcome, count in counts.items()
            if outcome[:3].isdigit() and int(outcome[:3]) not in ANSWERS
        ]
        return odd + self._traffic.faults

    async def _ledger(self) -> list[Verdict]:
        """Ledger against truth. What a killed worker had in flight is settled by nobody."""
        rows = (await self._admin("/admin/v1/usage?by=team"))["rows"]
        ledger = {row["team"]: row for row in rows}
        truth = {model: tally for (model, _), tally in self._world.upstream.truth.tallies.items()}
        steady, paid = truth[STEADY], ledger[STEADY]
        exact = (steady.completed, steady.reported.prompt, steady.reported.completion)
        charged = (paid["requests"], paid["input_tokens"], paid["output_tokens"])
        verdicts = [Verdict(charged == exact, "the steady team pays exactly what it got", f"{charged} of {exact}")]
        kills = self._traffic.kills
        for team in (LEFT, FLAKY, BOUNDED):
            most = truth[team].requests + sum(self._traffic.answers[team].values())
            # Of each loop a failover loses the settlement that was written last, and the one that was on its way.
            lost = (kills + 2 * self._traffic.failovers) * LOOPS[team]
            answered = sum(count for outcome, count in self._traffic.answers[team].items() if outcome.startswith("200"))
            requests = ledger[team]["requests"]
            holds = answered - lost <= requests <= most
            verdicts.append(
                Verdict(
                    holds, f"requests of the team {team!r}", f"{requests} charged, {answered} answered, {kills} kills"
                )
            )
        return verdicts

    async def _held_at_last(self) -> float:
        held = await self._held()
        deadline = time.monotonic() + HOLDS_RETURN_S
        while held and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            held = await self._held()
        return held

    async def _held(self) -> float:
        return float(sum(limit["held"] for limit in (await self._admin("/admin/v1/limits"))["data"]))

    async def _admin(self, path: str) -> Json:
        headers = {"authorization": f"Bearer {TOKEN}"}
        deadline = time.monotonic() + STORE_RETURNS_S
        while True:
            async with self._world.session.get(self._world.gateways[0].admin_url + path, headers=headers) as answer:
                body: Json = await answer.json()
            if answer.status != 503 or time.monotonic() >= deadline:
                break
            await asyncio.sleep(POLL_S)
        assert answer.status == 200, body
        return body

    async def _metrics(self) -> dict[str, float]:
        """The sum of each name's series, over the gateways that answer."""
        sums: dict[str, float] = {}
        for gateway in self._world.gateways:
            try:
                async with self._world.session.get(f"{gateway.admin_url}/metrics") as answer:
                    text = await answer.text()
            except aiohttp.ClientError:
                continue
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def _of_redis(self) -> _RedisSeen:
        try:
            seen = [_seen(master) for master in self._world.redis.masters()]
        except RedisError as error:
            raise OSError(str(error)) from error
        return _RedisSeen(*(sum(figures) for figures in zip(*seen, strict=True)))


def _seen(master: RedisServer) -> _RedisSeen:
    with closing(master.client()) as client:
        keys = list(client.scan_iter(count=1000))
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.ttl(key)
            everlasting = sum(
                rest_s == -1 and _STORED_KEYS not in key for key, rest_s in zip(keys, pipeline.execute(), strict=True)
            )
        counted = sum(b":r:" not in key for key in keys)
        return _RedisSeen(counted, everlasting, client.info("memory")["used_memory"] / MIB)


def _entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / MIB


def _growth(points: list[tuple[float, float]]) -> float:
    """By the line that fits best, from the first point to the last."""
    if len(points) < 3:
        return 0.0
    slope = linear_regression([at for at, _ in points], [value for _, value in points]).slope
    return slope * (points[-1][0] - points[0][0])
