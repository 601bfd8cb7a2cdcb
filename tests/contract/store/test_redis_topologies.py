"""Redis behind TLS, behind an ACL, behind sentinels, and as a cluster that moves its slots."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from bench.free_ports import free_port
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, Scope
from gateway.store.backlog import Policy
from gateway.store.contract import UsageQuery
from gateway.store.in_redis import RedisStore
from gateway.store.journal import Journal
from gateway.store.outbox import OutboxStore
from tests.contract.store.asking import admitted, ask, bill, limit, refused, set_clock, truth, used_and_held
from tests.contract.store.conftest import emptied
from tests.contract.store.keepers import UTC, redis_options, sure_tasks
from tests.redis_servers import RedisServer, redis_sentinels, redis_server

EVERYBODY = {"scope": Scope.ORGANISATION, "subject": "", "team": ""}
QUOTA = limit("tokens", "month", 1_000)

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def opened(url: str, timeout_s: float = 5.0) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_options(url, timeout_s=timeout_s), UTC)
    try:
        yield store
    finally:
        await store.close()


async def works(store: RedisStore) -> None:
    await store.settle(truth(await admitted(store, ask(QUOTA)), 7, bill()))
    assert await used_and_held(store, QUOTA) == (7, 0)
    assert (await store.usage(UsageQuery()))[0].requests == 1


async def patiently(store: RedisStore, name: str) -> None:
    """Admit once the store lets it."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await admitted(store, ask(QUOTA, name=name))
                return
            await asyncio.sleep(store.now_ms() % 7 / 100)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that signs itself, for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def tls_port(certificates: Path) -> Iterator[int]:
    port = free_port()
    with redis_server(
        "--tls-port", str(port), "--tls-cert-file", f"{certificates}/cert.pem", "--tls-key-file",
        f"{certificates}/key.pem", "--tls-ca-cert-file", f"{certificates}/cert.pem", "--tls-auth-clients", "no",
    ):  # fmt: skip
        yield port


async def test_a_store_behind_tls_works(tls_port: int, certificates: Path) -> None:
    async with opened(f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificates}/cert.pem") as store:
        await works(store)


async def test_a_server_that_proves_nothing_is_not_spoken_to(tls_port: int) -> None:
    async with opened(f"rediss://127.0.0.1:{tls_port}", 2.0) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        assert "certificate verify failed" in (store.trouble or ""), store.trouble
    # A transport that was left behind is complained of when it is collected.
    gc.collect()


ACL = (
    "user gateway on >se%cret ~gw:* resetchannels -@all +@read +@write +@scripting +time +ping +pexpire +select "
    "-@dangerous"
)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "users.acl").write_text(f"user default on nopass ~* +@all\n{ACL}\n")
    with redis_server("--aclfile", f"{tmp_path}/users.acl", tcp=True) as server:
        yield server


async def test_a_user_with_few_rights_is_enough(guarded: RedisServer) -> None:
    async with opened(f"redis://gateway:se%25cret@127.0.0.1:{guarded.port}/3") as store:
        await works(store)
        reservation = await admitted(store, ask(QUOTA))
        await store.renew([reservation.id])


async def test_a_wrong_password_is_an_outage_that_says_why(guarded: RedisServer) -> None:
    async with opened(f"redis://gateway:guess@127.0.0.1:{guarded.port}", 1.0) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        assert "invalid username-password pair" in (store.trouble or ""), store.trouble
        assert "guess" not in (store.trouble or "")


async def test_a_right_that_is_missing_is_named(guarded: RedisServer) -> None:
    with contextlib.closing(guarded.client()) as client:
        client.execute_command("ACL", "SETUSER", "gateway", "-psetex")
        async with opened(f"redis://gateway:se%25cret@127.0.0.1:{guarded.port}") as store:
            with pytest.raises(StoreUnavailable):
                await store.admit(ask(QUOTA))
            # In the words of Redis 7 and of Redis 8.
            assert re.search(r"can't run this command|no permissions to run the 'psetex'", store.trouble or "")
            client.execute_command("ACL", "SETUSER", "gateway", "+psetex")
            await admitted(store, ask(QUOTA))
            async with asyncio.timeout(10):
                while store.trouble:
                    await asyncio.sleep(store.now_ms() % 7 / 10)


async def test_a_cluster_that_is_taken_for_one_server_is_named(cluster: list[RedisServer]) -> None:
    async with opened(f"redis://127.0.0.1:{cluster[0].port}") as store:
        lost = [limit("tokens", "day", 10, team=team, subject=team) for team in "abcdefgh"]
        assert any(isinstance(one, StoreUnavailable) for one in [await _outcome(store, one) for one in lost])


async def _outcome(store: RedisStore, one: Limit) -> object:
    try:
        return await store.admit(ask(one))
    except StoreUnavailable as error:
        assert "redis+cluster://" in (store.trouble or ""), store.trouble
        return error


async def test_a_failover_costs_nothing_that_was_answered() -> None:
    with redis_sentinels() as (master, replica, sentinels):
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
        async with opened(f"redis+sentinel://{hosts}/main", 0.5) as store:
            reservation = await admitted(store, ask(QUOTA))
            await store.settle(truth(await admitted(store, ask(QUOTA)), 7, bill()))
            with contextlib.closing(master.client()) as client:
                assert client.wait(1, 5_000) == 1
            master.kill()
            await patiently(store, "after")
            with contextlib.closing(replica.client()) as client:
                assert client.info("replication")["role"] == "master"
            await store.settle(truth(reservation, 8, bill()))
            assert (await store.limit_statuses([QUOTA]))[0].used == 15
            assert (await store.usage(UsageQuery()))[0].requests == 2


@pytest.mark.parametrize("strike", [RedisServer.kill, RedisServer.freeze], ids=["killed", "frozen"])
async def test_a_failover_under_load_loses_no_settlement(strike: Callable[[RedisServer], None], tmp_path: Path) -> None:
    with redis_sentinels() as (master, replica, sentinels):
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
        inner = RedisStore(redis_options(f"redis+sentinel://{hosts}/main", timeout_s=0.5), UTC)
        policy = Policy(pytest.fail, pause_s=0.05)
        store = OutboxStore(inner, Journal(tmp_path, "one", sure_tasks()), policy, UTC, sure_tasks())
        store.start()
        stop, settled = asyncio.Event(), Settled()
        clients = [asyncio.create_task(_use(store, stop, settled)) for _ in range(8)]
        await settled.reaches(200)
        strike(master)
        while await asyncio.to_thread(_role, replica) != "master":
            await asyncio.sleep(0)
        if strike is RedisServer.freeze:
            # It wakes as a master, and learns of the other later; what was sent to it meanwhile is forgotten then. A
            # sentinel that does not know of the other yet would still name it.
            while {await asyncio.to_thread(_named_by, sentinel) for sentinel in sentinels} != {replica.port}:
                await asyncio.sleep(0)
            master.thaw()
        await settled.reaches(settled.count + 200)
        stop.set()
        await asyncio.gather(*clients)
        async with asyncio.timeout(30):
            while store.unsettled:
                await asyncio.sleep(inner.now_ms() % 7 / 100)
        assert settled.refused > 0
        assert (await store.usage(UsageQuery()))[0].requests == settled.count
        assert (await store.limit_statuses([UNBOUND]))[0].used == settled.count
        await store.close()


UNBOUND = limit("tokens", "month", 1_000_000)


class Settled:
    def __init__(self) -> None:
        self.count = self.refused = 0
        self._more = asyncio.Condition()

    async def one_more(self) -> None:
        async with self._more:
            self.count += 1
            self._more.notify_all()

    async def reaches(self, goal: int) -> None:
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: self.count >= goal)


async def _use(store: OutboxStore, stop: asyncio.Event, settled: Settled) -> None:
    """Ask and settle, one after the other; what is admitted is settled, whatever happens meanwhile."""
    while not stop.is_set():
        try:
            reservation = await admitted(store, ask(UNBOUND))
        except StoreUnavailable:
            settled.refused += 1
            await asyncio.sleep(settled.refused % 7 / 500)
            continue
        await store.settle(truth(reservation, 1, bill()))
        await settled.one_more()


async def test_a_planned_failover_under_load_loses_little(tmp_path: Path) -> None:
    """The old master takes writes until it is made a replica, and forgets them then. Who listens to the sentinels has
    left it before."""
    with redis_sentinels() as (_, replica, sentinels):
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in sentinels)
        inner = RedisStore(redis_options(f"redis+sentinel://{hosts}/main", timeout_s=0.5), UTC)
        journal, policy = Journal(tmp_path, "one", sure_tasks()), Policy(pytest.fail, pause_s=0.05)
        store = OutboxStore(inner, journal, policy, UTC, sure_tasks())
        store.start()
        stop, settled = asyncio.Event(), Settled()
        clients = [asyncio.create_task(_use(store, stop, settled)) for _ in range(2)]
        await settled.reaches(500)
        began, before = time.monotonic(), settled.count
        with contextlib.closing(sentinels[1].client()) as client:
            client.execute_command("SENTINEL", "FAILOVER", "main")
        while await asyncio.to_thread(_role, replica) != "master":
            await asyncio.sleep(0)
        # For longer than the sentinels leave the old master a master.
        while time.monotonic() - began < 12:
            await settled.reaches(settled.count + 50)
        took_s, after = time.monotonic() - began, settled.count
        stop.set()
        await asyncio.gather(*clients)
        async with asyncio.timeout(30):
            while store.unsettled:
                await asyncio.sleep(inner.now_ms() % 7 / 100)
        lost = settled.count - (await store.usage(UsageQuery()))[0].requests
        lost_s = lost / (after - before) * took_s
        assert lost_s < 2.5, f"{lost} of {settled.count} settlements: those of {lost_s:.2f} s"
        await store.close()


def _named_by(sentinel: RedisServer) -> int:
    """The port of the master."""
    with contextlib.closing(sentinel.client()) as client:
        return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1])


def _role(server: RedisServer) -> str:
    with contextlib.closing(server.client()) as client:
        return str(client.info("replication")["role"])


async def test_a_master_that_is_demoted_is_left() -> None:
    """It still answers, but takes no writes."""
    with redis_sentinels() as (_, replica, sentinels):
        async with opened(f"redis+sentinel://127.0.0.1:{sentinels[0].port}/main", 0.5) as store:
            await admitted(store, ask(QUOTA))
            with contextlib.closing(sentinels[0].client()) as client:
                client.execute_command("SENTINEL", "FAILOVER", "main")
            for name in ("one", "two"):
                await patiently(store, name)
            async with asyncio.timeout(30):
                while True:
                    with contextlib.closing(replica.client()) as client:
                        if client.info("replication")["role"] == "master":
                            break
                    await asyncio.sleep(store.now_ms() % 7 / 100)
            await patiently(store, "three")


@pytest.fixture
def cluster(shared_cluster: list[RedisServer]) -> list[RedisServer]:
    emptied(*shared_cluster)
    return shared_cluster


def url_of(cluster: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster)


async def test_every_node_of_a_cluster_has_a_clock_of_its_own(cluster: list[RedisServer]) -> None:
    async with opened(url_of(cluster)) as store:
        await store.ping()
        client = store.client.admissions
        clocks = {id(client.clock_of(f"{{t/{number}}}")): client.clock_of(f"{{t/{number}}}") for number in range(50)}
        assert len(clocks) == 3
        for hours, clock in enumerate(clocks.values()):
            set_clock(clock, clock.now_ms() + hours * 3_600_000)
        teams = [limit("requests", "day", 9, team=name, subject=name) for name in "abcdef"]
        for one in teams:
            await admitted(store, ask(one, limit("concurrent", None, 50, **EVERYBODY)))


async def test_what_another_slot_refuses_is_given_back_everywhere(cluster: list[RedisServer]) -> None:
    team, model = limit("requests", "day", 9), limit("tokens", "hour", 900, scope=Scope.MODEL, subject="m", team="")
    lanes, tight = limit("concurrent", None, 5), limit("requests", "hour", 1, **EVERYBODY)
    mine = [team, lanes, model, limit("usd", "month", 900), limit("requests", "minute", 5)]
    async with opened(url_of(cluster)) as store:
        await admitted(store, ask(tight, *mine))
        before = [(one.used, one.held) for one in await store.limit_statuses([tight, *mine])]
        refusal = await refused(store, ask(tight, *mine))
        assert refusal.limit_status.limit == tight
        assert [(one.used, one.held) for one in refusal.limit_statuses] == before
        assert [(one.used, one.held) for one in await store.limit_statuses([tight, *mine])] == before
    assert sorted(records(cluster)) == ["m/m", "o", "t/red"]


def records(cluster: list[RedisServer]) -> list[str]:
    """The homes of all that was ever admitted, once for each reservation."""
    homes: list[str] = []
    for node in cluster:
        with contextlib.closing(node.client()) as client:
            for key in client.scan_iter("*:r:*"):
                homes += [key.decode().split("{")[1].split("}")[0]] * client.hlen(key)
    return homes


async def test_a_storm_over_several_slots_admits_no_more_than_any_limit_allows(cluster: list[RedisServer]) -> None:
    team, everybody = limit("requests", "hour", 40), limit("concurrent", None, 15, **EVERYBODY)
    async with opened(url_of(cluster)) as store:
        verdicts = await asyncio.gather(*[store.admit(ask(team, everybody)) for _ in range(60)])
        count = sum(hasattr(verdict, "holds") for verdict in verdicts)
        assert count == 15
        assert await used_and_held(store, everybody) == (0, 15)
        assert await used_and_held(store, team) == (15, 0)


async def test_slots_that_move_are_followed(cluster: list[RedisServer]) -> None:
    slot = key_slot(b"{t/red}")
    owner = next(node for place, node in enumerate(cluster) if slot <= [5460, 10922, 16383][place])
    heir = next(node for node in cluster if node is not owner)
    async with opened(url_of(cluster)) as store:
        reservation = await admitted(store, ask(QUOTA))
        names = {}
        for node in (owner, heir):
            with contextlib.closing(node.client()) as client:
                names[node] = client.execute_command("CLUSTER", "MYID").decode()
        with contextlib.closing(heir.client()) as to, contextlib.closing(owner.client()) as source:
            to.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[owner])
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[heir])
            keys = source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
            source.execute_command("MIGRATE", "127.0.0.1", heir.port, "", 0, 5_000, "KEYS", *keys)
            settling = asyncio.create_task(store.settle(truth(reservation, 7, bill())))
            await asyncio.sleep(store.now_ms() % 7 / 100)
            for client in (to, source):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[heir])
            await settling
            await works_on(store)
            keys = to.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
            source.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[heir])
            to.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[owner])
            to.execute_command("MIGRATE", "127.0.0.1", owner.port, "", 0, 5_000, "KEYS", *keys)
            for client in (source, to):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[owner])
        await works_on(store)


async def works_on(store: RedisStore) -> None:
    before, _ = await used_and_held(store, QUOTA)
    await store.settle(truth(await admitted(store, ask(QUOTA)), 1, bill()))
    assert await used_and_held(store, QUOTA) == (before + 1, 0)
