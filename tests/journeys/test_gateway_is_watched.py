"""`gateway top` in a terminal of its own, beside a gateway that serves."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.hand_upstream import content, hand_upstream
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import PATIENCE_S, Json, WholeGateway, configuration, whole_gateway

TOKEN = "operators-token"
ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
CONTROL = re.compile(rb"\x1b\[[?0-9;]*[A-Za-z]")
TOP = ("-m", "gateway", "top")
DEAF = """
import os, signal, sys
from gateway.cli.admin_client import AdminClient
from gateway.cli.configuration import settings_or_end
from gateway.cli.top import Watched, _show

class Deaf(Watched):
    looks = 0

    def look(self):
        view = super().look()
        self.looks += 1
        if self.looks == 3:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                pass
        return view

settings = settings_or_end(sys.argv[-1], None)
_show(Deaf(AdminClient.for_settings(settings), ""), 0.2)
"""
"""Drops what the signal raises, as Python does within a destructor."""
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """A terminal with a program in it: `screen` is the last whole frame that it drew."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self.written = b""
        self._master = master
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    @property
    def screen(self) -> list[str]:
        whole = self.written.rpartition(b"\x1b[J")[0]
        return CONTROL.sub(b"", whole.rpartition(b"\x1b[H")[2]).decode().split("\r\n")

    async def shows(self, words: str, columns: int = 1_000, rows: int = 1_000) -> list[str]:
        """The next frame with these words in it that fits into such a window."""
        self.written = b""
        async with asyncio.timeout(PATIENCE_S):
            while (
                words not in "\n".join(self.screen) or len(self.screen) > rows or max(map(len, self.screen)) > columns
            ):
                await self._more()
        return self.screen

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def _more(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _read(self) -> None:
        try:
            self.written += os.read(self._master, 65_536)
        except OSError:  # The program has ended.
            asyncio.get_running_loop().remove_reader(self._master)
        self._news.set()


@asynccontextmanager
async def terminal(config: Json, folder: Path, *words: str, program: tuple[str, ...] = TOP) -> AsyncIterator[Terminal]:
    """`gateway top` with this configuration, in a window of 100 by 30."""
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(config))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, "-c", str(file), *words),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        # Shells export a size that is old by now.
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200", "LINES": "60"},
        preexec_fn=_own_terminal,
    )
    running = Terminal(process, master)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(slave)
        os.close(master)


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def config_of(gateway: WholeGateway, upstream_url: str) -> Json:
    return configuration(upstream_url, admin={"listen": f"127.0.0.1:{gateway.admin_port}", "token": TOKEN})


async def test_a_terminal_shows_what_happens_follows_its_size_and_is_left_as_it_was(tmp_path: Path) -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN) as gateway:
        config = config_of(gateway, upstream.base_url)
        async with terminal(config, tmp_path, "--every", "0.2") as watching, raw_client(gateway.port) as client:
            screen = await watching.shows("No request is in flight.")
            assert screen[0].startswith(f"gateway 127.0.0.1:{gateway.admin_port}")
            assert not watching.echoes()
            client.send(http_chat(headers={"x-request-id": "watched"}, stream=True))
            turn = await upstream.asked()
            turn.begin_stream()
            turn.send(content("Once"))
            await client.until(content("Once"))
            screen = await watching.shows("watched")
            assert any(line.startswith("up1 ") and " up " in line for line in screen)
            assert "in flight 1" in screen[1]

            watching.resize(40, 6)
            small = await watching.shows("gateway", columns=40, rows=6)
            assert "watched" not in "\n".join(small)
            watching.resize(160, 50)
            await watching.shows("watched")
            watching.type(b"q")
            assert await watching.ended() == 0
            assert watching.echoes()
            assert LEAVE in watching.written


async def test_a_gateway_that_goes_away_is_asked_again_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    async with hand_upstream() as upstream:
        async with whole_gateway(upstream.base_url, admin=ADMIN) as gateway:
            config = config_of(gateway, upstream.base_url)
            watching = await (context := terminal(config, tmp_path, "--every", "0.2")).__aenter__()
            await watching.shows("No request is in flight.")
            port = gateway.admin_port
        try:
            await watching.shows("No gateway answers")
            async with whole_gateway(upstream.base_url, admin={"listen": f"127.0.0.1:{port}", "token": TOKEN}):
                await watching.shows("requests/s")
                watching.type(b"\x03")
                assert await watching.ended() == 0
                assert LEAVE in watching.written
                assert watching.echoes()
        finally:
            await context.__aexit__(None, None, None)


async def test_a_signal_to_end_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN) as gateway,
        terminal(config_of(gateway, upstream.base_url), tmp_path) as watching,
    ):
        await watching.shows("in flight")
        watching.process.send_signal(signal.SIGTERM)
        await watching.ended()
        assert watching.echoes()


async def test_ctrl_c_ends_it_although_its_exception_is_lost(tmp_path: Path) -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN) as gateway,
        terminal(config_of(gateway, upstream.base_url), tmp_path, program=("-c", DEAF)) as watching,
    ):
        assert await watching.ended() == 0
        assert watching.echoes()


async def test_without_a_terminal_one_view_is_printed(tmp_path: Path) -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN) as gateway:
        file = tmp_path / "gateway.yaml"
        for config, status in ((config_of(gateway, upstream.base_url), 0), (configuration(upstream.base_url), 1)):
            file.write_text(json.dumps(config))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", "top", "-c", str(file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(PATIENCE_S):
                shown, problem = await process.communicate()
            assert process.returncode == status
            assert b"\x1b" not in shown + problem
            if status:
                assert problem.startswith(b"Error: The admin API is closed.")
            else:
                assert b"requests/s 0.0  in flight 0" in shown
