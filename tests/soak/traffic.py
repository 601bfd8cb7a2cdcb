"""What happens during a soak: the requests of several teams, and accidents.

Requests of the steady team are all answered in full, so what the ledger holds of them is known exactly. They pause
while a process is killed, since nobody can settle what a dead process had in flight; all the others go on. Each request
goes to any of the gateways, as if a load balancer chose that does not look whether they live.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

import aiohttp

from tests.redis_servers import RedisServer
from tests.soak.world import (
    BOUNDED,
    FLAKY,
    LEFT,
    LIMITED,
    POLL_S,
    START_S,
    STEADY,
    TOKEN,
    GatewayUnderSoak,
    World,
    configuration,
    key_of,
)
from tests.whole_gateway import Json

LOOPS: dict[str, int] = {STEADY: 10, LEFT: 8, FLAKY: 6, LIMITED: 2, BOUNDED: 6}
"""How many requests of each team are on their way at once, at most."""
PAUSE_S = 0.1
"""Between two requests of a loop, at most."""
USERS = 50
REDIS_IS_OUT_S = 1.5
FROZEN_S = 2.0
REVOKED_S = 1.0
TRIES_OF_A_REVOKED_KEY = 10
BOUNDED_CHUNKS = 40
"""Long enough that more than its limit would run at once."""

_MISHAPS: tuple[Json, ...] = (
    {"status": 500},
    {"status": 503, "headers": {"retry-after": "1"}},
    {"status": 429},
    {"halt": "close"},
    {"halt": "reset", "halt_after": 3},
    {"halt": "close", "halt_at": "before_headers"},
    {"error_after": 2},
    {"usage": "never"},
)
_BAD_BODIES = (b"", b"{", b"[]", b'{"model":"absent","messages":[{"role":"user","content":"x"}]}', b'{"model":7}')


class Accident(NamedTuple):
    """`pauses_steady`: the steady team's requests wait meanwhile."""

    name: str
    happen: Callable[[], Awaitable[None]]
    pauses_steady: bool = False


class Traffic:
    """`answers` counts what clients got, by team and outcome; `accidents` what happened; `faults` are what may not
    happen, in words. `most_at_once` is how many answers the bounded team was reading at once, `lasted_s` how long it
    asked, `kills` how many processes with requests were killed, `failovers` how often a replica may have taken over
    from a master that died."""

    def __init__(self, world: World, dice: Random) -> None:
        self.answers: dict[str, Counter[str]] = {team: Counter() for team in LOOPS}
        self.accidents: Counter[str] = Counter()
        self.faults: list[str] = []
        self.most_at_once = 0
        self.lasted_s = 0.0
        self.kills = 0
        self.failovers = 0
        self._world = world
        self._dice = dice
        self._over = asyncio.Event()
        self._steady_may_send = asyncio.Event()
        self._steady_may_send.set()
        self._steady_open = 0
        self._bounded_open = 0
        self._generation = 0

    async def run(self, seconds: float, accident_every_s: float) -> None:
        ask = {
            STEADY: self._steady,
            LEFT: self._leave,
            FLAKY: self._flaky,
            LIMITED: self._limited,
            BOUNDED: self._bounded,
        }
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for team, count in LOOPS.items():
                for _ in range(count):
                    group.create_task(self._loop(team, ask[team]))
            group.create_task(self._have_accidents(accident_every_s))
            await asyncio.sleep(seconds)
            self._over.set()
            self._steady_may_send.set()
        self.lasted_s = time.monotonic() - began

    async def _loop(self, team: str, ask: Callable[[], Awaitable[str]]) -> None:
        while not self._over.is_set():
            if team == STEADY:
                await self._steady_may_send.wait()
            try:
                outcome = await ask()
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                outcome = type(error).__name__
            self.answers[team][outcome] += 1
            await asyncio.sleep(self._dice.random() * PAUSE_S)

    # What each team does.

    async def _steady(self) -> str:
        self._steady_open += 1
        try:
            return await self._chat(STEADY, {})
        finally:
            self._steady_open -= 1

    async def _flaky(self) -> str:
        return await self._chat(FLAKY, self._dice.choice(_MISHAPS) if self._dice.random() < 0.3 else {})

    async def _bounded(self) -> str:
        body = self._body(BOUNDED, {"chunks": BOUNDED_CHUNKS}) | {"stream": True}
        async with self._post(BOUNDED, body) as answer:
            if answer.status == 200:
                self._bounded_open += 1
                self.most_at_once = max(self.most_at_once, self._bounded_open)
            try:
                await answer.read()
            finally:
                self._bounded_open -= answer.status == 200
            return str(answer.status)

    async def _leave(self) -> str:
        async with self._post(LEFT, self._body(LEFT, {"chunks": 50})) as answer:
            if answer.status == 200:
                await answer.content.readany()
                await asyncio.sleep(self._dice.random() * 0.1)
            answer.close()
            return f"{answer.status} left"

    async def _limited(self) -> str:
        if self._dice.random() < 0.5:
            return await self._chat(STEADY, {}, team=LIMITED, refused=True)
        key = key_of(LIMITED) if self._dice.random() < 0.7 else "gw_unknown"
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        body = self._dice.choice((*_BAD_BODIES, b"x" * 1_100_000))
        url = f"{self._any_gateway().url}/v1/chat/completions"
        async with self._world.session.post(url, data=body, headers=headers) as answer:
            await answer.read()
            return str(answer.status)

    async def _chat(self, model: str, demo: Json, *, team: str = "", refused: bool = False) -> str:
        body = self._body("absent" if refused and self._dice.random() < 0.1 else model, demo)
        if refused:
            body["model"] = "absent" if self._dice.random() < 0.5 else FLAKY
        async with self._post(team or model, body) as answer:
            received = await answer.read()
            if answer.status != 200 or not body["stream"]:
                return str(answer.status)
            return "200" if received.endswith(b"data: [DONE]\n\n") else "200 broken"

    def _body(self, model: str, demo: Json) -> Json:
        words = "x " * self._dice.randrange(1, 200)
        return {
            "model": model,
            "messages": [{"role": "user", "content": words}],
            "stream": self._dice.random() < 0.6,
            "user": f"user-{self._dice.randrange(USERS)}",
            **({"demo": demo} if demo else {}),
        }

    def _post(self, team: str, body: Json) -> aiohttp.client._RequestContextManager:
        headers = {"authorization": f"Bearer {key_of(team)}"}
        return self._world.session.post(f"{self._any_gateway().url}/v1/chat/completions", json=body, headers=headers)

    # Accidents.

    async def _have_accidents(self, every_s: float) -> None:
        accidents: tuple[Accident, ...] = (
            Accident("reload", self._reload),
            Accident("Redis restarts", self._restart_redis, pauses_steady=self._world.redis.is_cluster),
            Accident("Redis frozen", self._freeze_redis, pauses_steady=self._world.redis.is_cluster),
            Accident("Redis forgets scripts and connections", self._cut_redis),
            Accident("worker frozen", self._freeze_worker),
            Accident("requests cancelled", self._cancel_requests),
            Accident("key used and revoked", self._revoke_key),
            Accident("grant given and ended", self._grant),
            Accident("worker killed", self._kill_worker, pauses_steady=True),
        )
        if self._others:
            accidents += (
                Accident("gateway killed", self._kill_gateway, pauses_steady=True),
                Accident("gateway restarts", self._restart_gateway),
                Accident("gateway frozen", self._freeze_gateway),
            )
        if self._world.redis.is_cluster:
            accidents += (
                Accident("master fails over", self._fail_over, pauses_steady=True),
                Accident("master hands over", self._hand_over),
            )
        to_come: list[Accident] = []
        while not self._over.is_set():
            try:
                async with asyncio.timeout(every_s):
                    await self._over.wait()
            except TimeoutError:
                # Each before any comes again, in an order by chance.
                to_come = to_come or self._dice.sample(accidents, len(accidents))
                await self._have(to_come.pop())

    async def _have(self, accident: Accident) -> None:
        if accident.pauses_steady:
            self._steady_may_send.clear()
            while self._steady_open:
                await asyncio.sleep(POLL_S)
            await self._until_steady_has_paid()
        try:
            await accident.happen()
        finally:
            self.accidents[accident.name] += 1
            self._steady_may_send.set()

    async def _until_steady_has_paid(self) -> None:
        """What ended last may still be settled. The verdict at the end says what is missing for good."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            served = sum(t.completed for (model, _), t in self._world.upstream.truth.tallies.items() if model == STEADY)
            rows = (await self._admin("GET", "usage?by=team")).get("rows", [])
            if served == sum(row["requests"] for row in rows if row["team"] == STEADY):
                return
            await asyncio.sleep(POLL_S)

    async def _reload(self) -> None:
        """One after the other, as a rollout does."""
        world = self._world
        self._generation += 1
        for gateway in world.gateways:
            folder = gateway.folder.parent
            changed = configuration(world.upstream.base_url, world.redis.url, folder, generation=self._generation)
            # What it restarts with, too.
            gateway.config = {**changed, "listen": gateway.config["listen"], "admin": gateway.config["admin"]}
            gateway.write(gateway.config)
            await asyncio.sleep(self._dice.random())

    async def _restart_redis(self) -> None:
        master = await self._a_master()
        await asyncio.to_thread(master.stop)
        await asyncio.sleep(REDIS_IS_OUT_S)
        await asyncio.to_thread(master.start, START_S)
        await self._until_redis_is_whole()

    async def _freeze_redis(self) -> None:
        master = await self._a_master()
        master.freeze()
        await asyncio.sleep(FROZEN_S)
        master.thaw()
        await self._until_redis_is_whole()

    async def _fail_over(self) -> None:
        await asyncio.to_thread(self._world.redis.fail_over, await self._a_master())
        await self._until_redis_is_whole()

    async def _hand_over(self) -> None:
        """The replica waits until it has everything: this alone costs nobody anything."""
        await asyncio.to_thread(self._world.redis.until_replicated)
        master = self._dice.choice(await asyncio.to_thread(self._world.redis.masters))
        await asyncio.to_thread(self._world.redis.hand_over, master)
        await self._until_redis_is_whole()

    async def _a_master(self) -> RedisServer:
        """One that is about to be missed: what the steady team has paid is on its replica by then."""
        redis = self._world.redis
        self.failovers += redis.is_cluster
        await asyncio.to_thread(redis.until_replicated)
        return self._dice.choice(await asyncio.to_thread(redis.masters))

    async def _until_redis_is_whole(self) -> None:
        await asyncio.to_thread(self._world.redis.until_replicated)

    async def _cut_redis(self) -> None:
        def cut() -> None:
            for server in self._world.redis.servers:
                with closing(server.client()) as client:
                    client.script_flush()
                    client.client_kill_filter(_type="normal", skipme=True)

        await asyncio.to_thread(cut)

    async def _freeze_worker(self) -> None:
        """No pause of the gateway counts as one of the store."""
        await _freeze([self._any_gateway().worker_pids[2]])

    async def _freeze_gateway(self) -> None:
        frozen = self._dice.choice(self._others)
        await _freeze([frozen.supervisor_pid, *frozen.worker_pids.values()])

    async def _cancel_requests(self) -> None:
        """Of the teams of which not everything has to be delivered."""
        for team in (LEFT, FLAKY):
            for gateway in self._world.gateways:
                for request in (await self._admin("GET", f"requests?team={team}", of=gateway))["data"]:
                    await self._admin("DELETE", f"requests/{request['id']}?team={team}", of=gateway)

    async def _revoke_key(self) -> None:
        """A key that is revoked serves nobody a second later, in whichever worker."""
        made = await self._admin("POST", "keys", {"team": LIMITED, "name": f"key-{self._dice.randrange(10**9)}"})
        if "key" not in made:
            return  # The store was out.
        await self._ask_with(made["key"])
        if "error" in await self._admin("DELETE", f"keys/{made['id']}"):
            return
        await asyncio.sleep(REVOKED_S)
        for _ in range(TRIES_OF_A_REVOKED_KEY):
            if await self._ask_with(made["key"]) == 200:
                self.faults.append("a revoked key was served")

    async def _grant(self) -> None:
        # Each of its days has a key in Redis.
        until = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
        fields = {"team": STEADY, "limit": "tokens-per-day", "amount": 1, "until": until, "why": "an accident"}
        made = await self._admin("POST", "grants", fields)
        if "id" in made:
            await self._admin("DELETE", f"grants/{made['id']}")
        elif made.get("error", {}).get("code") != "store_unavailable":
            self.faults.append(f"a grant was refused: {made}")

    async def _ask_with(self, key: str) -> int:
        """On a connection of its own, so that any worker may have it."""
        headers = {"authorization": f"Bearer {key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{self._any_gateway().url}/v1/models") as answer,
        ):
            return answer.status

    async def _admin(
        self, method: str, path: str, body: Json | None = None, *, of: GatewayUnderSoak | None = None
    ) -> Json:
        url = f"{(of or self._any_gateway()).admin_url}/admin/v1/{path}"
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with self._world.session.request(method, url, json=body, headers=headers) as answer:
            if answer.status >= 500 and answer.status != 503:
                self.faults.append(f"{method} {path} was answered with {answer.status}")
            told: Json = await answer.json() if answer.content_type == "application/json" else {}
            return told

    async def _kill_worker(self) -> None:
        """The second one: the first lives through it all, so that its memory can be judged."""
        self.kills += 1
        await self._any_gateway().kill_worker(2)

    async def _kill_gateway(self) -> None:
        """Others charge what its journal holds, or it does so itself after its start."""
        killed = self._dice.choice(self._others)
        self.kills += 1
        await killed.kill()
        await killed.start()

    async def _restart_gateway(self) -> None:
        """It ends what it has in flight."""
        restarted = self._dice.choice(self._others)
        if status := await restarted.stop():
            self.faults.append(f"a gateway that was asked to end did so with status {status}")
        await restarted.start()

    def _any_gateway(self) -> GatewayUnderSoak:
        return self._dice.choice(self._world.gateways)

    @property
    def _others(self) -> list[GatewayUnderSoak]:
        """All but the first, which lives through it all."""
        return self._world.gateways[1:]


async def _freeze(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
