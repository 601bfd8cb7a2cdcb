"""Real redis-server processes for tests: on a unix socket or a loopback port, in a folder of their own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

_PATIENCE_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One server. It can be stopped, killed, frozen and started again with what it had on disk."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is not installed")
        self.folder = folder
        self.port = port
        self.socket = folder / "redis.sock"
        self._command = [program, "--port", str(port), "--dir", str(folder), "--unixsocket", str(self.socket)]
        self._command += ["--save", "", "--bind", "127.0.0.1", *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket}"

    def client(self, **login: str) -> Redis:
        return Redis(unix_socket_path=str(self.socket), **login)

    def start(self) -> None:
        log = (self.folder / "redis.log").open("ab")
        self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        log.close()
        wait_for(self._answers, "redis-server answers")

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


def wait_for(happened: object, what: str, patience_s: float = _PATIENCE_S) -> None:
    """Look again and again, for servers that say nothing when they are ready."""
    end = time.monotonic() + patience_s
    pause_s = 0.005
    while not happened():  # type: ignore[operator]
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
def redis_servers(count: int, options: Sequence[str]) -> Iterator[list[RedisServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(redis_server(*options, tcp=True)) for _ in range(count)]


@contextlib.contextmanager
def redis_cluster() -> Iterator[list[RedisServer]]:
    """Three masters that share the slots."""
    with redis_servers(3, ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]) as nodes:
        bounds = [0, 5461, 10923, 16384]
        for place, node in enumerate(nodes):
            with contextlib.closing(node.client()) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[place], bounds[place + 1] - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for node in nodes:
            wait_for(lambda node=node: _cluster_is_whole(node), "the cluster is whole", 30)
        yield nodes


def _cluster_is_whole(node: RedisServer) -> bool:
    with contextlib.closing(node.client()) as client:
        info = client.execute_command("CLUSTER", "INFO")
        slots = client.execute_command("CLUSTER", "SLOTS")
    told = info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.decode().split())
    return told["cluster_state"] == "ok" and told["cluster_slots_assigned"] == "16384" and len(slots) == 3
