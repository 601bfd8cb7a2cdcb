"""A gateway of the first version on the Redis of a newer one.

`first_schema/*.txt` are its scripts as it sends them. `OlderGateway` gives them the arguments that it gives, and reads
the ledger as it does.
"""

from __future__ import annotations

import contextlib
from itertools import count
from pathlib import Path
from struct import pack, unpack

from gateway.core.buckets import pace
from gateway.core.calendar import window
from gateway.core.limits import Limit, Meter
from gateway.core.reservation import Hold, Holds, LimitStatuses, Reservation, Settlement
from tests.contract.store.keepers import UTC
from tests.redis_servers import RedisServer

_FOLDER = Path(__file__).with_name("first_schema")
ADMIT, SETTLE = (_FOLDER.joinpath(f"{name}.txt").read_text(encoding="utf-8") for name in ("admit", "settle"))
DAY_MS = 86_400_000
STEP_MS = 10_000
"""Holds last for six of these at most."""

_RATE, _QUOTA, _LEASES = 0, 1, 2
_numbers = count()


class OlderGateway:
    def __init__(self, redis: RedisServer, process: str) -> None:
        self._redis = redis
        self._process = process

    def settle(self, settlement: Settlement) -> None:
        """Charge the entry to the ledger, and the lines to limits of team `red`."""
        entry = settlement.entry
        figures, names = [0] * 7, ("", "")
        team, day = ("red", "") if entry is None else (entry.team, entry.day)
        if entry is not None:
            usage = entry.usage
            figures = [1, usage.input, usage.cached_input, usage.output, usage.reasoning, 0, entry.cost]
            names = (f"{entry.key}|{entry.model}", entry.day)
        keys = [
            f"gw:1:{{o}}:r:{self._process}:{settlement.at_ms // 1000}",
            f"gw:1:{{t/{team}}}:l:{day}",
            f"gw:1:{{t/{team}}}:days",
            f"gw:1:{{o}}:j:{self._process}",
        ]
        numbers = [STEP_MS, 0, 400 * DAY_MS, 400 * DAY_MS, *figures]
        for hold, actual in zip(settlement.holds, settlement.actual, strict=True):
            key, kind, terms = _counter(hold.limit, settlement.at_ms)
            keys.append(key)
            held = 0 if hold.limit.meter is Meter.REQUESTS else hold.amount
            numbers += [kind, held, actual, *terms]
        with contextlib.closing(self._redis.client()) as client:
            if entry is not None:
                client.sadd("gw:1:{o}:teams", entry.team)
            packed = pack(f"<{len(numbers)}d", *numbers)
            client.eval(SETTLE, len(keys), *keys, settlement.id, 7 * DAY_MS, *names, packed)

    def admit(self, one: Limit, *, fixed: int, output: int) -> Reservation | None:
        """One request at one limit of team `red`; None where it is refused."""
        with contextlib.closing(self._redis.client()) as client:
            seconds, micros = client.time()
            at_ms = seconds * 1000 + micros // 1000
            key, kind, terms = _counter(one, at_ms)
            at_once = int(one.meter is Meter.REQUESTS)
            per_output = 0 if at_once else 1_000_000
            request = (at_ms, 60_000, STEP_MS, output, output, 1)
            charge = (kind, 1, at_once, fixed, per_output, one.burst if kind == _RATE else one.amount, *terms)
            name = f"older-{next(_numbers)}"
            keys = (f"gw:1:{{o}}:r:{self._process}:{at_ms // 1000}", key)
            told = client.eval(ADMIT, len(keys), *keys, name, 7 * DAY_MS, pack("<14d", *request, *charge))
        verdict, _, granted, borne = told[:4]
        assert verdict in {0, 1}
        hold = Hold(one, borne, terms[0] if kind == _QUOTA else 0)
        return Reservation(name, at_ms, granted, False, Holds.of([hold]), LimitStatuses()) if verdict else None

    def usage(self) -> dict[str, tuple[float, ...]]:
        """Figures by team, day, key and model."""
        rows: dict[str, tuple[float, ...]] = {}
        with contextlib.closing(self._redis.client()) as client:
            for team in sorted(client.smembers("gw:1:{o}:teams")):
                for day in client.zrange(b"gw:1:{t/%b}:days" % team, 0, -1):
                    for field, figures in client.hgetall(b"gw:1:{t/%b}:l:%b" % (team, day)).items():
                        rows[f"{team.decode()}|{day.decode()}|{field.decode()}"] = unpack("<7d", figures)
        return rows


def _counter(one: Limit, at_ms: int) -> tuple[str, int, tuple[int, int]]:
    """The key of a limit of team `red`, its kind, and the two terms of that."""
    stem = f"gw:1:{{t/red}}:c:team:red:{one.meter}:{one.per or 'now'}:{one.name}"
    if one.per is None:
        return stem, _LEASES, (0, 0)
    if one.is_rate:
        return stem, _RATE, pace(one)
    start, end = window(one.per, UTC, at_ms)
    return f"{stem}:{start}", _QUOTA, (start, end)
