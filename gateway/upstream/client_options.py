"""What the connections of one event loop share, whichever upstream they lead to."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cached_property
from time import monotonic

from gateway.runtime.relay_queue import RelayQueue
from gateway.runtime.tasks import BackgroundTasks
from gateway.runtime.timer_sweep import TimerSweep
from gateway.runtime.turn import Turn
from gateway.upstream.framing import BodyPieces

READ_BYTES = 16_384
"""The most that one read takes from a socket, and so by how much a pause comes late. An upstream that has more waits
for its next turn (runtime/relay_queue.py), so that one that sends at full speed leaves the others theirs."""

SHORT_READ_BYTES = 1024
"""Shorter reads are mostly of one event, and of the same few lengths again and again."""

IDLE_SECONDS = 30.0
"""How long a connection waits for its next exchange: half of what servers and balancers commonly
allow (AWS 60 s, nginx 75 s), so that one is seldom closed under a request. Against servers that
allow less (uvicorn 5 s) sending again helps."""

DISTRUST_SECONDS = 60.0
"""For so long after bytes that no request asked for, no connection to that upstream carries a second request. An answer
that comes late, on a connection that is in use again, cannot be distinguished from the one that is awaited there."""


class ReadBuffer(dict[int, memoryview]):
    """Where the event loop puts what it reads: one serves every connection, since its bytes are parsed before the loop
    goes on to the next. By a number of bytes, it gives the first of them: of a short read, the same view each time,
    since to make one takes as long as to parse an event."""

    __slots__ = ("whole",)

    def __init__(self) -> None:
        self.whole = memoryview(bytearray(READ_BYTES))

    def __missing__(self, size: int) -> memoryview:
        view = self.whole[:size]
        if size < SHORT_READ_BYTES:
            self[size] = view
        return view


_LIBUV_BYTES = 65_536
"""What libuv suggests for every read (uv_alloc_cb)."""


class SuggestedSizes(dict[int, memoryview]):
    """By the size of a buffer that an event loop suggests, what it is given: all there is. Its `__getitem__` serves as
    `get_buffer` of every connection, which is called for each read: for libuv's suggestion that is no frame of
    Python."""

    __slots__ = ("_whole",)

    def __init__(self, buffer: ReadBuffer) -> None:
        self._whole = self[_LIBUV_BYTES] = buffer.whole

    def __missing__(self, suggested: int) -> memoryview:
        return self._whole


class ClientOptions:
    """`report_unrequested_bytes` gets the name of an upstream that sent what answers no request, and whether it was
    trusted until then."""

    def __init__(
        self,
        tasks: BackgroundTasks,
        turn: Turn,
        idle_seconds: float,
        report_unrequested_bytes: Callable[[str, bool], None],
        distrust_seconds: float = DISTRUST_SECONDS,
    ) -> None:
        self.tasks = tasks
        self.idle_seconds = idle_seconds
        self._report_unrequested_bytes = report_unrequested_bytes
        self._distrust_seconds = distrust_seconds
        self._distrusted_until: dict[str, float] = {}
        self.distrusts_any = False
        """Whether any upstream has sent what answers no request."""
        self.relays = RelayQueue(turn)
        self.timers = TimerSweep()
        self.turn = turn
        self.read_buffer = ReadBuffer()
        self.get_buffer = SuggestedSizes(self.read_buffer).__getitem__
        self.body_pieces = BodyPieces()

    def note_unrequested_bytes(self, upstream_name: str) -> None:
        was_trusted = self.may_reuse(upstream_name)
        self.distrusts_any = True
        self._distrusted_until[upstream_name] = monotonic() + self._distrust_seconds
        self._report_unrequested_bytes(upstream_name, was_trusted)

    def may_reuse(self, upstream_name: str) -> bool:
        """Whether a connection to this upstream may carry another request. On the way of a request to be asked
        where it `distrusts_any`."""
        until = self._distrusted_until.get(upstream_name)
        return until is None or monotonic() >= until

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Certificates are verified against the system's authorities, or those in $SSL_CERT_FILE. Made
        when it is first needed: the authorities take time to read and memory to hold."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context
