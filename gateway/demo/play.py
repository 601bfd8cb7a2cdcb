"""Sends the pieces of one answer in their time, and waits whenever the peer reads too slowly."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import islice

from gateway.demo.dialect import Piece
from gateway.demo.reply import Reply
from gateway.demo.truth import Served, Truth

WRITE_BYTES = 65_536
RESET_DELAY_S = 0.01
"""Time for what was written to leave before a reset throws it away."""

AHEAD = 16
LINGER_ZERO = struct.pack("ii", 1, 0)


class Play:
    """One answer on one connection. `over` is called once, at its end, if the connection can go on."""

    __slots__ = (
        "_congested",
        "_due",
        "_loop",
        "_next",
        "_over",
        "_pieces",
        "_reply",
        "_served",
        "_timer",
        "_transport",
        "_truth",
    )

    def __init__(self, reply: Reply, served: Served, truth: Truth, over: Callable[[], None]) -> None:
        self._reply = reply
        self._served = served
        self._truth = truth
        self._over = over
        self._pieces = _ahead(reply.pieces)
        self._next: Piece | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._congested = False
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()

    def start(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._served.status = self._reply.script.status
        self._go_on([])

    def pause(self) -> None:
        self._congested = True

    def resume(self) -> None:
        self._congested = False
        if self._next is None:
            self._go_on([])
        elif self._timer is None:
            self._play_next()

    def cancel(self) -> None:
        """The peer has left."""
        if self._timer is not None:
            self._timer.cancel()
        self._truth.end(self._served, "cancelled")

    def _go_on(self, ready: list[bytes]) -> None:
        """Send what is due, up to the next wait or until the peer's buffers are full."""
        size = 0
        for piece in self._pieces:
            if piece.delay_s:
                self._write(ready)
                self._wait_for(piece)
                return
            self._take(piece, ready)
            if piece.then:
                return
            size += len(piece.data)
            if size > WRITE_BYTES:
                self._write(ready)
                size = 0
                if self._congested:
                    return

    def _wait_for(self, piece: Piece) -> None:
        """Waits count from one to the next, so that a slow turn of the loop delays nothing for good."""
        self._next = piece
        self._due += piece.delay_s
        self._timer = self._loop.call_at(self._due, self._play_next)

    def _play_next(self) -> None:
        self._timer = None
        piece = self._next
        if piece is None or self._congested:
            return
        self._next = None
        ready: list[bytes] = []
        self._take(piece, ready)
        if not piece.then:
            self._go_on(ready)

    def _take(self, piece: Piece, ready: list[bytes]) -> None:
        served = self._served
        ready.append(piece.data)
        if piece.reports:
            served.reported = True
        if piece.tokens and self._reply.counts:
            served.completion_tokens += piece.tokens
            served.prompt_tokens = self._reply.counts.prompt
        if piece.then:
            self._write(ready)
            self._finish(piece.then)

    def _write(self, ready: list[bytes]) -> None:
        if ready:
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
            ready.clear()

    def _finish(self, then: str) -> None:
        if then == "hang":
            return
        if then == "reset":
            self._truth.end(self._served, "halted")
            self._loop.call_later(RESET_DELAY_S, reset, self._transport)
        elif then == "close":
            self._truth.end(self._served, "halted")
            self._transport.close()
        else:
            self._complete(then == "close_done" or self._reply.script.afterwards != "keep")

    def _complete(self, closes: bool) -> None:
        counts = self._reply.counts
        outcome = self._reply.outcome
        if counts and outcome == "completed":
            self._served.prompt_tokens, self._served.completion_tokens = counts.prompt, counts.output
        self._truth.end(self._served, outcome)
        if closes:
            self._transport.close()
        else:
            self._over()


def _ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same, made some at a time: one by one, with other streams' work between, each costs three times as much."""
    while batch := list(islice(pieces, AHEAD)):
        yield from batch


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN."""
    wire = transport.get_extra_info("socket")
    if wire is not None and not transport.is_closing():
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    transport.abort()
