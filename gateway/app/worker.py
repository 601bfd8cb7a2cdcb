"""Run one of several gateways that share a port, until its supervisor says so, or a signal.

Whether a drain is cut short is the supervisor's to say: a second signal may be the first one again,
from whoever signals every process of a group.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import uvloop

from gateway.app.gateway import Gateway
from gateway.app.post import DRAIN, HURRY, RELOAD, Post, follow
from gateway.app.reload import Reloader
from gateway.app.serve import END_SIGNALS, Ending, allow_many_connections, run
from gateway.settings import Settings
from gateway.telemetry.log import Log, configure


def work(post: Post, path: str, settings: Settings) -> None:
    """`path` is the file that the settings come from. Raises OSError where the port cannot be listened on."""
    allow_many_connections()
    uvloop.run(_work(post, path, settings, configure(worker=post.worker)))


async def _work(post: Post, path: str, settings: Settings, log: Log) -> None:
    ending = Ending(asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()
    for number in END_SIGNALS:
        loop.add_signal_handler(number, ending.stop.set)

    def cut_short() -> None:
        ending.stop.set()
        ending.hurry.set()

    gateway = Gateway(settings, log)
    reloader = Reloader(path, gateway, log, settings)
    watching = reloader.begin()
    data = await gateway.start_at(post)
    log.info("worker serving", listen=str(data), pid=os.getpid())
    following = loop.create_task(follow({DRAIN: ending.stop.set, HURRY: cut_short, RELOAD: reloader.ask}))
    await run(gateway, ending, watching)
    if not following.cancel():
        _leave_nothing(post)
    log.info("worker stopped")


def _leave_nothing(post: Post) -> None:
    """The supervisor is gone, and cannot remove its folder: the last of its workers does."""
    with suppress(OSError):
        Path(post.socket).unlink()
        Path(post.socket).parent.rmdir()
