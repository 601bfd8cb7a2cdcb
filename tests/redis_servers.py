"""Real redis-server processes for tests: on a unix socket or a loopback port, in a folder of their own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from bench.free_ports import free_port

_PATIENCE_S = 10.0


class RedisServer:
    """One server. It can be stopped, killed, frozen and started again with what it had on disk."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is not installed")
        self.folder = folder
        self.port = port
        self.socket = folder / "redis.sock"
        given = ["--port", str(port), "--dir", str(folder), "--unixsocket", str(self.socket), "--bind", "127.0.0.1"]
        if "--sentinel" in options:
            self._command = [program, options[0], "--sentinel", *given]
        else:
            self._command = [program, "--save", "", *given, *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket}"

    def client(self, **login: Any) -> Any:
        """Untyped: its types say `str | bytes` of every reply, and leave out the rarer commands."""
        return Redis(unix_socket_path=str(self.socket), **login)

    def start(self, patience_s: float = _PATIENCE_S) -> None:
        log = (self.folder / "redis.log").open("ab")
        self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        log.close()
        wait_for(self._answers, "redis-server answers", patience_s)

    def freeze(self) -> None:
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a crash does it: nothing more is written."""
        self._running.kill()
        self._running.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _answers(self) -> bool:
        assert self._running.poll() is None, (self.folder / "redis.log").read_text()
        try:
            with contextlib.closing(self.client()) as client:
                return bool(client.ping())
        except RedisError as error:
            return "NOAUTH" in str(error)


def wait_for(happened: Callable[[], object], what: str, patience_s: float = _PATIENCE_S) -> None:
    """Look again and again, for servers that say nothing when they are ready."""
    end = time.monotonic() + patience_s
    pause_s = 0.005
    while not happened():
        assert time.monotonic() < end, f"it did not happen that {what}"
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)


@contextlib.contextmanager
def redis_server(*options: str, tcp: bool = False) -> Iterator[RedisServer]:
    # Unix sockets have short names: the folders that pytest gives are too long on some systems.
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), *options, port=free_port() if tcp else 0)
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def redis_sentinels() -> Iterator[tuple[RedisServer, RedisServer, list[RedisServer]]]:
    """A master called `main`, its replica, and three sentinels that replace it after half a second."""
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(redis_server(tcp=True))
        replica = stack.enter_context(redis_server("--replicaof", f"127.0.0.1 {master.port}", tcp=True))
        wait_for(lambda: _is_in_sync(replica), "the replica is in sync")
        sentinels = [stack.enter_context(_sentinel(master.port)) for _ in range(3)]
        wait_for(lambda: all(_knows_everybody(one) for one in sentinels), "the sentinels know one another", 30)
        yield master, replica, sentinels


@contextlib.contextmanager
def _sentinel(master_port: int) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="sentinel-") as name:
        folder = Path(name)
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor main 127.0.0.1 {master_port} 2\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
        )
        server = RedisServer(folder, str(folder / "sentinel.conf"), "--sentinel", port=free_port())
        try:
            yield server
        finally:
            server.stop()


def _is_in_sync(replica: RedisServer) -> bool:
    with contextlib.closing(replica.client()) as client:
        return bool(client.info("replication")["master_link_status"] == "up")


def _knows_everybody(sentinel: RedisServer) -> bool:
    with contextlib.closing(sentinel.client()) as client:
        told = client.execute_command("SENTINEL", "MASTERS")
    [master] = told.values() if isinstance(told, dict) else told
    pairs = master if isinstance(master, dict) else dict(zip(master[::2], master[1::2], strict=True))
    told = {str(key, "ascii") if isinstance(key, bytes) else key: value for key, value in pairs.items()}
    return int(told["num-other-sentinels"]) == 2 and int(told["num-slaves"]) == 1


@contextlib.contextmanager
def redis_cluster(*options: str, replicas: bool = False) -> Iterator[list[RedisServer]]:
    """Three masters that share the slots, and behind them, if wanted, a replica of each."""
    buses = [free_port() for _ in range(6 if replicas else 3)]
    bounds = [0, 5461, 10923, 16384]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(redis_server(*_cluster_options(bus), *options, tcp=True)) for bus in buses]
        nodes = servers[:3]
        for place, node in enumerate(nodes):
            with contextlib.closing(node.client()) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[place], bounds[place + 1] - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
        for place, replica in enumerate(servers[3:]):
            with contextlib.closing(replica.client()) as client:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
                master = _cluster_id(nodes[place])
                wait_for(partial(_replicates, client, master), "a replica knows its master", 30)
        for node in servers:
            wait_for(partial(_cluster_is_whole, node), "the cluster is whole", 30)
        for replica in servers[3:]:
            wait_for(partial(_is_in_sync, replica), "a replica is in sync", 30)
        yield servers


def _cluster_id(node: RedisServer) -> bytes:
    with contextlib.closing(node.client()) as client:
        return bytes(client.execute_command("CLUSTER", "MYID"))


def _replicates(client: Any, master: bytes) -> bool:
    try:
        client.execute_command("CLUSTER", "REPLICATE", master)
    except RedisError:
        return False
    return True


def _cluster_options(bus: int) -> list[str]:
    return ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(bus)]


def _cluster_is_whole(node: RedisServer) -> bool:
    with contextlib.closing(node.client()) as client:
        info = client.execute_command("CLUSTER", "INFO")
        slots = client.execute_command("CLUSTER", "SLOTS")
    told = info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.decode().split())
    return told["cluster_state"] == "ok" and told["cluster_slots_assigned"] == "16384" and len(slots) == 3
