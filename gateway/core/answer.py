"""An upstream's answer as the stages see it. The wire in `upstream/` keeps the promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol


class Answer(Protocol):
    """An answer that has begun. Times are monotonic seconds of the event loop."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the last."""
    sent_at: float
    first_byte_at: float

    def pour(self, into: Callable[[bytes], None]) -> None:
        """Hand over what has arrived and, from now on, each piece as it comes. Pieces are decoded of
        the transfer coding and of gzip or deflate, if the upstream used them unasked."""
        ...

    async def finished(self) -> None:
        """Wait for the end. Raises UpstreamBroke or UpstreamTimedOut. To be called after `pour`."""
        ...

    def pause(self) -> None:
        """Take no more from the upstream's socket until `resume`; idle time does not count meanwhile."""
        ...

    def resume(self) -> None: ...

    def abandon(self) -> None:
        """Close the connection, whatever the answer's state; harmless after its end."""
        ...
