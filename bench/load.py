"""The load generator: keep-alive connections over bare sockets, so that it costs little of the core it shares.

Times are nanoseconds of the monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httptools


class LoadFailed(Exception):
    """An answer was another than is asked for, or a connection ended: figures would be wrong."""


@dataclass(frozen=True)
class Target:
    """Where a load goes: to the upstream itself or through the gateway. `status` is what each answer is to have."""

    name: str
    port: int
    key: str
    path: str = "/v1/chat/completions"
    status: int = 200

    def request(self, model: str, **fields: Any) -> bytes:
        messages = [{"role": "user", "content": "Say hello to everyone who measures gateways today, please."}]
        body = json.dumps({"model": model, "messages": messages, **fields}).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\n"
            f"host: 127.0.0.1:{self.port}\r\n"
            f"authorization: Bearer {self.key}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass
class Seen:
    """What came back: durations of whole answers, times to first byte, events counted as they come, the longest time
    between two pieces of one answer."""

    durations_ns: list[int] = field(default_factory=list)
    first_byte_ns: list[int] = field(default_factory=list)
    events: int = 0
    longest_gap_ns: int = 0


class Caller(asyncio.Protocol):
    """One connection that sends a request, reads the answer, and asks `next_request` for another.

    `next_request` returns None to stop. Whatever goes wrong is the `done` future's exception, an answer with another
    status than `status` as well. Between an answer and the next request passes a random time of at most `rest_s`.
    """

    def __init__(
        self, seen: Seen, next_request: Callable[[], bytes | None], rest_s: float = 0.0, status: int = 200
    ) -> None:
        self._rest_s = rest_s
        self._status = status
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seen = seen
        self._next_request = next_request
        self._parser = httptools.HttpResponseParser(self)
        self._sent_ns = self._last_ns = 0
        self._begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def start(self) -> None:
        request = self._next_request()
        if request is None:
            self._stop(None)
            return
        self._begun = False
        self._sent_ns = time.monotonic_ns()
        self._transport.write(request)

    def leave(self) -> None:
        """End the connection, whatever of an answer is still to come."""
        self._stop(None)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        now_ns, seen = time.monotonic_ns(), self._seen
        if not self._begun:
            self._begun = True
            seen.first_byte_ns.append(now_ns - self._sent_ns)
        elif now_ns - self._last_ns > seen.longest_gap_ns:
            seen.longest_gap_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        seen.events += body.count(b"data: {")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != self._status:
            self._stop(LoadFailed(f"The answer's status is {status}."))
            return
        self._seen.durations_ns.append(time.monotonic_ns() - self._sent_ns)
        if self._rest_s:
            asyncio.get_running_loop().call_later(random.uniform(0, self._rest_s), self.start)
        else:
            self.start()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._stop(LoadFailed("A connection ended in the middle of the load."))

    def _stop(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._transport.close()


async def connect(target: Target, seen: Seen, next_request: Callable[[], bytes | None], rest_s: float = 0.0) -> Caller:
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(
        lambda: Caller(seen, next_request, rest_s, target.status), "127.0.0.1", target.port
    )
    return caller


async def run(callers: list[Caller]) -> None:
    """Start them all and wait until each has stopped. Raises LoadFailed."""
    for caller in callers:
        caller.start()
    await asyncio.gather(*(caller.done for caller in callers))
