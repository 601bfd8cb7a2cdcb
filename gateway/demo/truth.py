"""What the demo upstream really served. Tests compare the gateway's bill with it.

An answer counts as completed once all its bytes are handed to the socket. Tokens of an answer that
stopped or whose reader left count as partial, as far as their events were sent completely.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Outcome = Literal["open", "completed", "failed", "halted", "cancelled"]
KEEP_REQUESTS = 1_000
KEEP_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class ServedRequest:
    """One request. `prompt_tokens` and `completion_tokens` are what was delivered so far, and once it is
    completed what it costs; `reported` says that the peer was sent them. Times are seconds of the monotonic clock.
    `cancelled`: the peer left first; `halted`: the script stopped it; `failed`: it was answered with an error.
    `number` is the answer's, which its id ends with; 0 where no model was asked."""

    method: str
    path: str
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes
    model: str = ""
    bearer: str = ""
    stream: bool = False
    number: int = 0
    status: int = 0
    outcome: Outcome = "open"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reported: bool = False
    began_at: float = 0.0
    ended_at: float | None = None
    tallies: tuple[DemoTally, ...] = ()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """As they arrived, in order and with their case."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers]

    def header(self, name: str) -> str | None:
        """The last of that name, in any case."""
        return {key.lower(): value for key, value in self.headers}.get(name.lower())

    def as_json(self) -> dict[str, Any]:
        hidden = ("tallies", "raw_headers")
        plain = {row.name: getattr(self, row.name) for row in fields(self) if row.name not in hidden}
        return plain | {"headers": self.headers, "body": self.body.decode("utf-8", "replace")}


@dataclass(slots=True)
class TokenSums:
    answers: int = 0
    prompt: int = 0
    completion: int = 0

    def add(self, served: ServedRequest) -> None:
        self.answers += 1
        self.prompt += served.prompt_tokens
        self.completion += served.completion_tokens


@dataclass(slots=True)
class DemoTally:
    """Sums over requests. Tokens of a completed answer are under `reported` or `unreported`, all others
    under `partial`."""

    requests: int = 0
    completed: int = 0
    failed: int = 0
    halted: int = 0
    cancelled: int = 0
    reported: TokenSums = field(default_factory=TokenSums)
    unreported: TokenSums = field(default_factory=TokenSums)
    partial: TokenSums = field(default_factory=TokenSums)

    @property
    def open(self) -> int:
        return self.requests - self.completed - self.failed - self.halted - self.cancelled

    def end(self, served: ServedRequest) -> None:
        if served.outcome == "completed":
            self.completed += 1
            (self.reported if served.reported else self.unreported).add(served)
        elif served.outcome == "failed":
            self.failed += 1
        else:
            self.halted += served.outcome == "halted"
            self.cancelled += served.outcome == "cancelled"
            self.partial.add(served)


class Truth:
    """`total` sums up everything, `tallies` by (model, bearer). `requests` are the last ones, bounded in number
    (`keep_requests`) and bytes; what is no endpoint of a model (GET /v1/models, unknown paths) is
    there and in no tally."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.keep_requests = KEEP_REQUESTS
        self._clock = clock
        self._waiting: list[tuple[Callable[[Truth], bool], asyncio.Future[None]]] = []
        self.connections_open = 0
        self.connections_made = 0
        self.reset()

    def reset(self) -> None:
        """Forget every request; those that are running are not counted when they end."""
        self.total = DemoTally()
        self.tallies: dict[tuple[str, str], DemoTally] = {}
        self.requests: deque[ServedRequest] = deque()
        self._bytes = 0

    def connected(self) -> None:
        self.connections_open += 1
        self.connections_made += 1
        self._changed()

    def disconnected(self) -> None:
        self.connections_open -= 1
        self._changed()

    def begin(self, served: ServedRequest, metered: bool) -> None:
        self.requests.append(served)
        self._bytes += len(served.body)
        while len(self.requests) > self.keep_requests or self._bytes > KEEP_BYTES:
            self._bytes -= len(self.requests.popleft().body)
        served.began_at = self._clock()
        if metered:
            served.tallies = self.total, self.tallies.setdefault((served.model, served.bearer), DemoTally())
        for tally in served.tallies:
            tally.requests += 1
        self._changed()

    def end(self, served: ServedRequest, outcome: Outcome) -> None:
        """Note how a request ended; only the first end counts."""
        if served.outcome != "open":
            return
        served.outcome, served.ended_at = outcome, self._clock()
        for tally in served.tallies:
            tally.end(served)
        self._changed()

    async def when(self, condition: Callable[[Truth], bool], timeout_s: float = 5.0) -> None:
        """Return as soon as the condition holds. Raises TimeoutError."""
        if condition(self):
            return
        entry = condition, asyncio.get_running_loop().create_future()
        self._waiting.append(entry)
        try:
            await asyncio.wait_for(entry[1], timeout_s)
        finally:
            self._waiting = [other for other in self._waiting if other is not entry]

    async def quiet(self, timeout_s: float = 5.0) -> None:
        """Return as soon as no request is running."""
        await self.when(lambda truth: truth.total.open == 0, timeout_s)

    def _changed(self) -> None:
        for condition, future in self._waiting:
            if not future.done() and condition(self):
                future.set_result(None)

    def as_json(self) -> dict[str, Any]:
        rows = [{"model": key[0], "bearer": key[1], **asdict(tally)} for key, tally in self.tallies.items()]
        return {
            "connections_open": self.connections_open,
            "connections_made": self.connections_made,
            "total": asdict(self.total) | {"open": self.total.open},
            "tallies": rows,
            "requests": [served.as_json() for served in self.requests],
        }
