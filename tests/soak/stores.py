"""Where the gateways of a soak keep everything: one Redis, or a cluster of three masters with a replica each.

Both keep what they have answered on disk, so a restart loses nothing. In a cluster a replica may take over meanwhile.
It lacks what its master had not sent it yet, of which docs/store.md makes no promise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.redis_servers import RedisServer, redis_cluster, redis_server, wait_for

MASTERS = 3
PATIENCE_S = 60.0
_ON_DISK = ("--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-min-size", "4mb")


class SoakStore:
    """`url` is what gateways get. Its methods block."""

    def __init__(self, servers: Sequence[RedisServer], url: str) -> None:
        self.servers = servers
        self.url = url

    @property
    def is_cluster(self) -> bool:
        return len(self.servers) > 1

    def masters(self) -> list[RedisServer]:
        """Those that have the data now. Raises OSError while one of them is missing."""
        found = [server for server in self.servers if _replication(server).get("role") == "master"]
        if len(found) != (MASTERS if self.is_cluster else 1):
            raise OSError("a master does not answer, or there are two of its kind")
        return found

    def until_replicated(self) -> None:
        """Wait until every master has a replica, and that one all that the master has now."""
        if self.is_cluster:
            wait_for(self._is_whole, "the cluster is whole", PATIENCE_S)
            for master in self.masters():
                written = _replication(master)["master_repl_offset"]
                wait_for(partial(_has_acknowledged, master, written), "a replica has all", PATIENCE_S)

    def fail_over(self, master: RedisServer) -> None:
        """Stop a master, and start it again once its replica has taken over."""
        master.stop()
        wait_for(lambda: self._has_masters_without(master), "a replica takes over", PATIENCE_S)
        master.start(PATIENCE_S)

    def hand_over(self, master: RedisServer) -> None:
        """Have its replica take over as an operator does it: it gets everything before."""
        port = _replication(master)["slave0"]["port"]
        [replica] = [server for server in self.servers if server.port == port]
        with closing(replica.client()) as client:
            client.execute_command("CLUSTER", "FAILOVER")
        wait_for(lambda: _replication(replica).get("role") == "master", "the replica takes over", PATIENCE_S)

    def _has_masters_without(self, gone: RedisServer) -> bool:
        others = [server for server in self.servers if server is not gone]
        return bool(sum(_replication(server).get("role") == "master" for server in others) == MASTERS)

    def _is_whole(self) -> bool:
        try:
            return all(_acknowledged(master) >= 0 for master in self.masters())
        except OSError:
            return False


def _replication(server: RedisServer) -> dict[str, Any]:
    """Nothing while it does not answer."""
    try:
        with closing(Redis(unix_socket_path=str(server.socket), socket_timeout=1)) as client:
            told: dict[str, Any] = client.info("replication")
            return told
    except RedisError:
        return {}


def _has_acknowledged(master: RedisServer, offset: int) -> bool:
    return _acknowledged(master) >= offset


def _acknowledged(master: RedisServer) -> int:
    """How far the replica of a master has come; -1 without one."""
    replica = _replication(master).get("slave0")
    return int(replica["offset"]) if isinstance(replica, dict) and replica["state"] == "online" else -1


@contextmanager
def soak_store(*, cluster: bool) -> Iterator[SoakStore]:
    if cluster:
        with redis_cluster(*_ON_DISK, replicas=True) as servers:
            hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
            yield SoakStore(servers, f"redis+cluster://{hosts}")
    else:
        with redis_server(*_ON_DISK, tcp=True) as server:
            yield SoakStore([server], server.url)
