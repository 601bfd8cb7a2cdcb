"""The client's side of an answer: what the journey writes to. The door keeps the promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.core.errors import GatewayError

Headers = Sequence[tuple[str, str]]


class Sink(Protocol):
    """Either `whole` once, or `begin`, any number of `write`, then `end`; `refuse` may come at any point."""

    @property
    def begun(self) -> bool:
        """Whether the status line is on its way, after which no other answer can be given."""
        ...

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        ...

    @property
    def congested(self) -> bool:
        """Whether the client reads more slowly than is written: whoever writes pauses its source."""
        ...

    def on_relief(self, relieved: Callable[[], None]) -> None:
        """Call `relieved` each time the congestion ends."""
        ...

    def keep_alive(self, every_s: float, headers: Headers) -> None:
        """From now on, after each `every_s` of silence, say in a comment that more is to come (0: never).
        The first one begins an event stream with these headers, if no answer has begun."""
        ...

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer at once."""
        ...

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the head of an answer whose length is not known; nothing, if it has begun already."""
        ...

    def write(self, data: bytes) -> None:
        """Send a piece now; never waits, never raises (see `congested` and `gone`)."""
        ...

    def end(self) -> None:
        """The answer is whole."""
        ...

    def refuse(self, error: GatewayError) -> None:
        """Tell an error: as the whole answer, or, where one has begun, as the last event of a stream whose
        connection then closes without an end, so that nobody takes it for a whole answer."""
        ...
