"""An answer while it is collected, before the client gets any of it.

Its first bytes tell what it is. An answer that is passed on as it comes, such as a stream, is collected no further. Of
any other, no byte is passed on yet, so that another target can still be asked if the answer breaks or its body says
that the provider failed. At most `max_bytes` are held: the rest waits at the upstream until the answer is passed on.
Everything is redacted before it is read; of an answer that was `available`, `redact_body` is to do that, as for every
whole one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from gateway.core.body_kind import BodyKind, kind_of
from gateway.core.redaction import Redactor, StreamRedactor
from gateway.core.refusals import Fault
from gateway.core.response import UpstreamResponse


class CollectedResponse:
    """Implements `UpstreamResponse`: gives what was collected first, then what the upstream still sends."""

    __slots__ = (
        "_max_bytes",
        "_pieces",
        "_redacted_whole",
        "_redactor",
        "_response",
        "_size",
        "_stream_redactor",
        "fault",
        "first_byte_at",
        "headers",
        "is_stream",
        "is_too_long",
        "is_whole",
        "kind",
        "sent_at",
        "status",
    )

    def __init__(self, response: UpstreamResponse, max_bytes: int, redactor: Redactor | None = None) -> None:
        self._response = response
        self._redactor = redactor
        self.status, self.headers = response.status, response.headers
        self.sent_at, self.first_byte_at = response.sent_at, response.first_byte_at
        self.kind: BodyKind | None = None
        """What it is by its first bytes; None until they show it."""
        self.is_stream = False
        """Whether it is passed on as an event stream."""
        self.is_whole = False
        """Whether `body` is all of it."""
        self.is_too_long = False
        """Whether more has come than is to be collected."""
        self.fault: Fault | None = None
        """Whose fault the failure is that the status reports; None for a status below 400."""
        self._stream_redactor: StreamRedactor | None = None
        self._redacted_whole = 0
        if redactor is not None:
            self.headers, self._redacted_whole = redactor.headers(response.headers)
        body = response.available()
        if body is not None:
            # Of what is whole no piece has to be redacted by itself.
            self._pieces: list[bytes] = [body]
            self.kind = kind_of(body)
            self.is_whole = True
            return
        self._max_bytes = max_bytes
        self._pieces = []
        self._size = 0
        if redactor is not None:
            self._stream_redactor = StreamRedactor(redactor, self._take)
        self._deliver_to(self._take)

    @property
    def body(self) -> bytes:
        """What has come so far."""
        return b"".join(self._pieces)  # Of one piece, that is the piece itself.

    def is_called_stream(self) -> bool:
        """Whether its content type says that it is an event stream."""
        return self.headers.get("content-type", "").lower().startswith("text/event-stream")

    def is_opaque(self) -> bool:
        """Whether its content coding is one that is not known here, and is more than a name: `utf-8` is used as one."""
        return "content-encoding" in self.headers and self.kind is BodyKind.OTHER

    @property
    def is_over(self) -> bool:
        return self._response.is_over

    @property
    def redacted(self) -> int:
        """How often the upstream's credential has been in it so far."""
        return self._redacted_whole + (self._stream_redactor.count if self._stream_redactor is not None else 0)

    def keep_headers(self, names: Iterable[str]) -> None:
        """Forget the headers but these: many open streams would hold some thirty each."""
        headers = self.headers
        self.headers = self._response.headers = {name: headers[name] for name in names if name in headers}

    def available(self) -> bytes | None:
        return b"".join(self._pieces) if self.is_whole else None

    def deliver_to(self, into: Callable[[bytes], None]) -> None:
        for piece in self._pieces:
            into(piece)
        self._pieces.clear()
        self._deliver_to(into)

    async def finished(self) -> None:
        while not self.is_over:
            await self._response.woken()
        self.end()

    def end(self) -> None:
        self._response.end()
        if self._stream_redactor is not None:
            self._stream_redactor.end()

    def woken(self) -> Awaitable[None]:
        """Also done when `kind` is known, and when it is too long."""
        return self._response.woken()

    def wake(self) -> None:
        self._response.wake()

    def redact_body(self) -> None:
        """Check the whole `body`, once it is complete, for what no single piece shows."""
        if self._redactor is not None:
            body, count = self._redactor.body(self.body)
            if count:
                self._pieces = [body]
                self._redacted_whole += count

    def pause(self) -> None:
        self._response.pause()

    def resume(self) -> None:
        self._response.resume()

    def abandon(self) -> None:
        self._response.abandon()

    def _deliver_to(self, into: Callable[[bytes], None]) -> None:
        """Give each piece to `into`, redacted."""
        redactor = self._stream_redactor
        if redactor is None:
            self._response.deliver_to(into)
        else:
            redactor.into = into
            self._response.deliver_to(redactor.feed)

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        response = self._response
        if self.kind is None:
            self.kind = kind_of(data if self._size == len(data) else self.body)
            if self.kind is not None:
                response.wake()
        if self._size > self._max_bytes:
            self.is_too_long = True
            response.pause()
            response.wake()
