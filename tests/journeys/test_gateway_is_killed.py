"""A process of the gateway gets SIGKILL at each stage of a request: what was charged then, what is charged after the
next start, and that what it held returns by itself.

No stage is met by chance: a proxy in front of Redis holds the call or the reply that it begins or ends with, and the
upstream is played by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from gateway.store.contract import HOLD_STEPS, HOLD_TTL_MS, UsageQuery
from gateway.store.in_redis import RedisOptions, RedisStore
from gateway.store.in_redis.scripts import ADMIT, SETTLE
from tests.contract.store.asking import limit
from tests.contract.store.keepers import set_clock
from tests.faulty_disk import HANG, TORN, FaultyDisk
from tests.forms import field as form_field
from tests.forms import file, form, form_head
from tests.gateway_process import GatewayProcess, gateway_process
from tests.hand_upstream import DONE, HandUpstream, content, event, finish, hand_upstream, usage
from tests.raw_client import RawClient, http_chat, raw_client
from tests.redis_proxy import RedisProxy, redis_proxy
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import KEY, MODEL, PATIENCE_S, Json, chat_body, configuration
from tests.workers import metric

UTC = ZoneInfo("UTC")
USED = usage(30, 12)
POLL_S = 0.01
"""Between two looks at what says nothing when it has happened."""
OF_THE_TEAM = {"subject": "search", "team": "search"}
LIMITS = [
    limit("requests", "total", 100, name="most", **OF_THE_TEAM),
    limit("concurrent", None, 10, name="at-once", **OF_THE_TEAM),
]


class Charged(NamedTuple):
    """`billed`: requests in the ledger, with their input and output; `counted`: what the limit of requests has used;
    `holding`: requests that hold their slots and tokens."""

    billed: tuple[int, int, int]
    counted: int
    holding: int

    def then(self, more: Charged) -> Charged:
        requests, tokens_in, tokens_out = [one + other for one, other in zip(self.billed, more.billed, strict=True)]
        return Charged((requests, tokens_in, tokens_out), self.counted + more.counted, self.holding + more.holding)


NOTHING = Charged((0, 0, 0), 0, 0)
IN_FLIGHT = Charged((0, 0, 0), 1, 1)
"""It was admitted, and nobody settles it: docs/store.md, "What an outage can cost"."""
CHARGED = Charged((1, 30, 12), 1, 0)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@dataclass
class World:
    """A gateway behind a proxy of its store, and in front of an upstream that is played by hand."""

    redis: RedisServer
    proxy: RedisProxy
    upstream: HandUpstream
    session: aiohttp.ClientSession
    folder: Path
    workers: int
    stack: AsyncExitStack
    disk: FaultyDisk
    prefix: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    gateways: list[GatewayProcess] = field(default_factory=list)

    @property
    def gateway(self) -> GatewayProcess:
        return self.gateways[-1]

    @property
    def processes(self) -> list[int]:
        """Those that have served requests for the gateway."""
        return [line["pid"] for line in self.gateway.lines if line["event"] == "worker serving"] or [self.gateway.pid]

    async def start(self) -> None:
        """The first gateway, or the next one."""
        folder = self.folder / f"gateway-{len(self.gateways)}"
        folder.mkdir()
        started = gateway_process(config=self._config(), folder=folder, environment=self.disk.environment)
        self.gateways.append(await self.stack.enter_async_context(started))
        await self.gateway.times("worker serving", self.workers if self.workers > 1 else 0)

    async def kill(self, pid: int) -> None:
        """And have its successor: workers get it from their supervisor."""
        assert pid in self.processes
        serving = len([line for line in self.gateway.lines if line["event"] == "worker serving"])
        os.kill(pid, signal.SIGKILL)
        if self.workers == 1:
            assert await self.gateway.exit_status() == -signal.SIGKILL
            await self.start()
        else:
            await self.gateway.line("worker died")
            await self.gateway.times("worker serving", serving + 1)

    def serving(self, client: RawClient) -> int:
        """The process that has this client's connection."""
        socket = f"socket:[{_inode(self.gateway.port, client.port)}]"
        return next(pid for pid in self.processes if socket in _open_files(pid))

    def ask(self, **fields: object) -> asyncio.Task[bytes]:
        """What a client is given of an answer, until it ends or breaks."""
        return asyncio.create_task(self._ask(chat_body(**fields)))

    async def unsettled(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await metric(self.gateway, "gateway_unsettled_requests") != count:
                await asyncio.sleep(POLL_S)

    async def charged(self) -> Charged:
        """Read past the proxy."""
        store = RedisStore(RedisOptions(self.redis.url, "reader", self.prefix, timeout_s=PATIENCE_S), UTC)
        try:
            rows = await store.usage(UsageQuery())
            row = (rows[0].requests, rows[0].input, rows[0].output) if rows else (0, 0, 0)
            requests, concurrent = await store.limit_statuses(LIMITS)
        finally:
            await store.close()
        return Charged(row, requests.used, concurrent.held)

    async def replayed(self) -> None:
        """Wait until nothing is left of any journal."""
        async with asyncio.timeout(PATIENCE_S):
            while any(path.stat().st_size for path in (self.folder / "journal").glob("*.journal")):
                await asyncio.sleep(POLL_S)

    async def _ask(self, body: Json) -> bytes:
        url = f"http://127.0.0.1:{self.gateway.port}/v1/chat/completions"
        given = b""
        try:
            async with self.session.post(url, json=body, headers={"authorization": f"Bearer {KEY}"}) as answer:
                async for piece in answer.content.iter_any():
                    given += piece
        except aiohttp.ClientError:
            return given
        return given

    def _config(self) -> Json:
        limits = [{"name": "most", "requests": 100, "per": "total"}, {"name": "at-once", "concurrent": 10}]
        # A call that is held is no outage.
        store = {
            "url": self.proxy.url,
            "timeout": "60s",
            "prefix": self.prefix,
            "journal": str(self.folder / "journal"),
        }
        admin = {"listen": "127.0.0.1:0", "token": "operators-token"}
        return configuration(
            self.upstream.base_url, team={"limits": limits}, store=store, admin=admin, workers=self.workers
        )


def _inode(port: int, peers_port: int) -> str:
    """Of the socket between these two ports of loopback."""
    ports = [f"{port:04X}", f"{peers_port:04X}"]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return next(row[9] for row in rows if [end.rpartition(":")[2] for end in row[1:3]] == ports)


def _open_files(pid: int) -> list[str]:
    """What they are; none of a process that is dead."""
    found = []
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(str(file.readlink()))
    return found


async def while_a_body_is_received(world: World, stream: bool) -> Charged:
    body = http_chat(stream=stream, headers={"expect": "100-continue"})
    async with raw_client(world.gateway.port) as client:
        head, _, rest = body.partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        assert (await client.head())[0] == 100
        assert await client.takes(rest[: len(rest) // 2])
        await world.kill(world.serving(client))
    return NOTHING


async def while_a_form_is_received(world: World, stream: bool) -> Charged:
    """Its request is under way before its end has come."""
    sound = form(form_field("model", MODEL), file(bytes(200_000)))
    async with raw_client(world.gateway.port) as client:
        client.send(form_head(len(sound)) + sound[: len(sound) // 2])
        await world.upstream.asked()
        await world.kill(world.proxy.admitting)
    return IN_FLIGHT


async def before_the_admission_is_carried_out(world: World, stream: bool) -> Charged:
    world.proxy.hold_call(ADMIT)
    world.ask(stream=stream)
    await world.kill(await world.proxy.held())
    return NOTHING


async def between_the_admission_and_its_reply(world: World, stream: bool) -> Charged:
    world.proxy.hold_reply(ADMIT)
    world.ask(stream=stream)
    await world.kill(await world.proxy.held())
    return IN_FLIGHT


async def while_the_upstream_thinks(world: World, stream: bool) -> Charged:
    world.ask(stream=stream)
    await world.upstream.asked()
    await world.kill(world.proxy.admitting)
    return IN_FLIGHT


async def within_an_answer(world: World, stream: bool) -> Charged:
    world.ask(stream=stream)
    turn = await world.upstream.asked()
    whole = whole_answer(stream)
    turn.say(whole[: len(whole) // 2])
    await turn.taken()
    await world.kill(world.proxy.admitting)
    return IN_FLIGHT


async def kill_what_settles(world: World, stream: bool) -> None:
    """Have an answer whole, and kill the process whose settlement the proxy holds."""
    client = await answered(world, stream)
    killed = await world.proxy.held()
    await client
    await world.kill(killed)


async def behind_an_answer_that_nobody_has_settled(world: World, stream: bool) -> Charged:
    world.proxy.hold_call(SETTLE)
    await kill_what_settles(world, stream)
    return IN_FLIGHT


async def between_the_settlement_and_its_reply(world: World, stream: bool) -> Charged:
    world.proxy.hold_reply(SETTLE)
    await kill_what_settles(world, stream)
    return CHARGED


async def while_it_waits_in_the_journal(world: World, stream: bool) -> Charged:
    await settled_in_an_outage(world, stream)
    await world.kill(world.proxy.admitting)
    await world.proxy.open()
    return CHARGED


async def before_it_is_replayed(world: World, stream: bool) -> Charged:
    await settled_in_an_outage(world, stream)
    world.proxy.hold_call(SETTLE)
    await world.proxy.open()
    await world.kill(await world.proxy.held())
    return CHARGED


async def between_its_replay_and_the_reply(world: World, stream: bool) -> Charged:
    await settled_in_an_outage(world, stream)
    world.proxy.hold_reply(SETTLE)
    await world.proxy.open()
    await world.kill(await world.proxy.held())
    return CHARGED


async def while_it_replays_what_a_dead_one_left(world: World, stream: bool) -> Charged:
    await settled_in_an_outage(world, stream)
    first = world.proxy.admitting
    world.proxy.hold_reply(SETTLE)
    await world.kill(first)
    await world.proxy.open()
    heir = await world.proxy.held()
    assert heir != first
    await world.kill(heir)
    return CHARGED


async def while_half_a_line_is_written(world: World, stream: bool) -> Charged:
    """No part of it counts."""
    await killed_at_the_disk(world, stream, write=TORN)
    return IN_FLIGHT


async def between_a_line_and_its_sync(world: World, stream: bool) -> Charged:
    """What a process has written outlives it, as long as the machine does."""
    await killed_at_the_disk(world, stream, fdatasync=HANG)
    return CHARGED


async def with_a_line_that_the_disk_refused_and_kept(world: World, stream: bool) -> Charged:
    """It is charged from memory, and then found on the disk by the next one."""
    world.disk.fail(fdatasync="EIO", ftruncate="EIO")
    await settled_in_an_outage(world, stream)
    await world.proxy.open()
    await world.unsettled(0)
    world.disk.work()
    await world.kill(world.proxy.admitting)
    return CHARGED


async def after_the_disk_took_what_it_refused(world: World, stream: bool) -> Charged:
    world.disk.fail(write="ENOSPC", ftruncate="EIO")
    await settled_in_an_outage(world, stream)
    world.disk.work()
    async with asyncio.timeout(PATIENCE_S):
        while not any(path.stat().st_size for path in (world.folder / "journal").glob("*.journal")):
            await asyncio.sleep(POLL_S)
    await world.kill(world.proxy.admitting)
    await world.proxy.open()
    return CHARGED


Stage = Callable[[World, bool], Awaitable[Charged]]
IN_A_BODY: list[Stage] = [while_a_body_is_received, while_a_form_is_received]
IN_A_REQUEST: list[Stage] = [
    before_the_admission_is_carried_out,
    between_the_admission_and_its_reply,
    while_the_upstream_thinks,
    within_an_answer,
    behind_an_answer_that_nobody_has_settled,
    between_the_settlement_and_its_reply,
]
IN_THE_JOURNAL: list[Stage] = [
    while_it_waits_in_the_journal,
    before_it_is_replayed,
    between_its_replay_and_the_reply,
    while_it_replays_what_a_dead_one_left,
]
ON_THE_DISK: list[Stage] = [
    while_half_a_line_is_written,
    between_a_line_and_its_sync,
    with_a_line_that_the_disk_refused_and_kept,
    after_the_disk_took_what_it_refused,
]


STAGES = ["in a request", "in the journal", "on the disk"]


def whole_answer(stream: bool) -> bytes:
    if not stream:
        body = json.dumps({"choices": [{"message": {"content": "Hello."}}], "usage": USED}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        return head + body
    events = [content("Hel"), content("lo."), finish(), event(choices=[], usage=USED), DONE]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join([b"%x\r\n%b\r\n" % (len(one), one) for one in events]) + b"0\r\n\r\n"


async def answered(world: World, stream: bool) -> asyncio.Task[bytes]:
    """A request to which the upstream has said everything."""
    client = world.ask(stream=stream)
    turn = await world.upstream.asked()
    turn.say(whole_answer(stream))
    return client


async def settled_in_an_outage(world: World, stream: bool) -> None:
    """A request is delivered while Redis is out, and on the disk."""
    client = world.ask(stream=stream)
    turn = await world.upstream.asked()
    world.proxy.cut()
    turn.say(whole_answer(stream))
    assert b"lo." in await client
    await world.unsettled(1)


async def killed_at_the_disk(world: World, stream: bool, **faults: str) -> None:
    """In an outage of Redis, while the journal takes its settlement."""
    world.disk.fail(**faults)
    client = world.ask(stream=stream)
    turn = await world.upstream.asked()
    world.proxy.cut()
    turn.say(whole_answer(stream))
    assert b"lo." in await client
    killed = await world.disk.hangs()
    world.disk.work()
    await world.kill(killed)
    await world.proxy.open()


async def kill_at(stages: Sequence[Stage], redis: RedisServer, folder: Path, *, stream: bool, workers: int) -> None:
    """One after the other: the successor of the one that was killed is the next one's gateway."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(redis_proxy(redis))
        upstream = await stack.enter_async_context(hand_upstream())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        world = World(redis, proxy, upstream, session, folder, workers, stack, FaultyDisk(folder / "disk"))
        await world.start()
        expected = NOTHING
        for stage in stages:
            expected = expected.then(await stage(world, stream))
            await world.replayed()
            assert (stage.__name__, await world.charged()) == (stage.__name__, expected)
            # As if a minute passed: what the dead held is free again, and nothing else has changed.
            set_clock(redis, HOLD_TTL_MS, HOLD_TTL_MS // HOLD_STEPS)
            expected = expected._replace(holding=0)
            assert (stage.__name__, await world.charged()) == (stage.__name__, expected)
        client = await answered(world, stream)
        assert b"lo." in await client
        await world.gateway.line("request")
        assert await world.charged() == expected.then(CHARGED)


@pytest.mark.slow
async def test_a_body_that_is_cut_by_a_kill_costs_what_its_request_held(redis: RedisServer, tmp_path: Path) -> None:
    await kill_at(IN_A_BODY, redis, tmp_path, stream=False, workers=1)


@pytest.mark.slow
async def test_a_killed_gateway_loses_what_it_had_in_flight_and_holds_none_of_it(
    redis: RedisServer, tmp_path: Path
) -> None:
    await kill_at(IN_A_REQUEST, redis, tmp_path, stream=True, workers=1)


@pytest.mark.slow
async def test_what_a_killed_gateway_has_written_down_is_charged_once(redis: RedisServer, tmp_path: Path) -> None:
    await kill_at(IN_THE_JOURNAL, redis, tmp_path, stream=False, workers=1)


@pytest.mark.slow
async def test_what_a_disk_makes_of_a_line_is_charged_once_or_not_at_all(redis: RedisServer, tmp_path: Path) -> None:
    await kill_at(ON_THE_DISK, redis, tmp_path, stream=False, workers=1)


@pytest.mark.slow
@pytest.mark.skipif("CHAOS" not in os.environ, reason="`make chaos` runs it")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("stages", [[*IN_A_BODY, *IN_A_REQUEST], IN_THE_JOURNAL, ON_THE_DISK], ids=STAGES)
async def test_every_stage_is_the_same_for_every_kind_of_request(
    stages: list[Stage], stream: bool, workers: int, redis: RedisServer, tmp_path: Path
) -> None:
    await kill_at(stages, redis, tmp_path, stream=stream, workers=workers)
