"""Both ends of an answer as the stages see them: the response of the upstream, and the writer to the client.

`upstream/response_stream.py` implements the one, `web/response_writer.py` the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from gateway.core.errors import GatewayError

Headers = Sequence[tuple[str, str]]

Work = Callable[[], Coroutine[Any, Any, None]]
"""What is still to be done until a client has its answer. No coroutine yet: the client may leave before it begins."""


class UpstreamResponse(Protocol):
    """An answer that has begun. Times are monotonic seconds of the event loop."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the last, or, of those that reach the client in several lines, all with
    line feeds between them."""
    sent_at: float
    first_byte_at: float

    def available(self) -> bytes | None:
        """All of the body, where it is short and has come whole: the answer is over then. None where it is to be
        delivered. To be called before `deliver_to`."""
        ...

    def deliver_to(self, into: Callable[[bytes], None]) -> None:
        """Hand over what has arrived and, from now on, each piece as it comes. Pieces are decoded of
        the transfer coding and of the content coding, if the upstream used one unasked. One that is not known
        is in `headers` still."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the last piece was handed over, or the answer has failed."""
        ...

    async def finished(self) -> None:
        """Wait for the end. Raises UpstreamBroke or UpstreamTimedOut. To be called after `deliver_to`."""
        ...

    def end(self) -> None:
        """The same of an answer that is over."""
        ...

    def woken(self) -> Awaitable[None]:
        """Done at the end, or when `wake` is called. To be called while it is not over, by one reader."""
        ...

    def wake(self) -> None: ...

    def pause(self) -> None:
        """Take no more from the upstream's socket until `resume`; idle time does not count meanwhile."""
        ...

    def resume(self) -> None: ...

    def abandon(self) -> None:
        """Close the connection, whatever the answer's state; harmless after its end."""
        ...


class AnswerSource(Protocol):
    """Where the pieces of an answer come from, as its writer sees it."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def is_between_events(self) -> bool:
        """Whether what was written so far ends between two events of a stream, so that another may follow."""
        ...


class ResponseWriter(Protocol):
    """Either `send` once, or `start`, any number of `write`, then `finish`; `fail` may come at any point."""

    @property
    def started(self) -> bool:
        """Whether the status line is on its way, after which no other answer can be given."""
        ...

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        ...

    @property
    def congested(self) -> bool:
        """Whether the client reads more slowly than is written: its source has to be paused."""
        ...

    def control_source(self, source: AnswerSource) -> None:
        """Pause the source each time that a congestion begins, at once if there is one, and resume it when that
        ends."""
        ...

    def keep_alive(self, every_s: float, limit_lines: Callable[[], str]) -> None:
        """From now on, after each `every_s` of silence, send a comment (0: never). The first one begins an event
        stream with what `limit_lines` gives, if no answer has begun."""
        ...

    def send(self, status: int, headers: Headers, body: bytes, limit_lines: str = "") -> None:
        """The whole answer at once. `limit_lines` are more headers, as lines, each with a line break in front of it."""
        ...

    def start(self, status: int, headers: Headers, limit_lines: str = "") -> None:
        """Send the head of an answer whose length is not known, with the first piece; nothing, if it has begun already.
        Raises ClientGone."""
        ...

    def write(self, data: bytes) -> None:
        """Send a piece at the end of this turn of the event loop; never waits, never raises (see `congested` and
        `gone`)."""
        ...

    def flush(self) -> None:
        """Send now what was to be sent at the end of this turn. For a task: the end is behind what comes next."""
        ...

    def finish(self) -> None:
        """The answer is whole."""
        ...

    def fail(self, error: GatewayError) -> None:
        """Send an error: as the whole answer, or, where one has begun, as the last event of a stream whose
        connection then closes without an end, so that it is not taken for a whole answer."""
        ...
