"""Many streams of one event loop at the same time, in an order by chance, beside a model of what each reader is to
have: every byte that came, once and in its order, until its end."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from gateway.core.errors import UpstreamError
from gateway.runtime.relay_queue import COSTLY_S
from gateway.upstream.client_options import READ_BYTES
from gateway.upstream.response_stream import HELD_BYTES
from tests.unit.upstream.test_connection import CHUNKED, Wire

STREAMS = 40
STEPS = 1_200
PAUSED_BYTES = HELD_BYTES + 2 * READ_BYTES
"""What waits of one stream at most."""

WAYS = (*["says"] * 5, *["turns"] * 2, *["resumes"] * 2, "pauses", "ends", "costs", "breaks")
BREAKS = ("hangs up", "is reset", "is silent", "is no HTTP", "leaves", "is shut down", "raises")


class _Defect(Exception):
    """The reader's own."""


class _Stream:
    """One connection with one answer after the other, and the model of the present one."""

    def __init__(self, beside: Wire | None, dice: Random) -> None:
        self.wire = Wire(beside)
        self._beside = beside or self.wire
        self._dice = dice
        self.answers = 0
        self.begin()

    def begin(self) -> None:
        if not self.wire.socket.is_open or self.wire.connection.closed:
            self.wire = Wire(self._beside)
        self.sent, self.received = b"", b""
        self.may_miss = self.is_paused = self.has_left = self.raises = self.is_ended = False
        self.wire.socket.written = b""
        self.answer = self.wire.hears()

    def _has_begun(self) -> bool:
        """Once the request is written, which may be at the end of a turn."""
        if not self.sent and self.wire.socket.written:
            self.sent = b"<"
            self.wire.says(CHUNKED + b"\r\n1\r\n<\r\n")
            self.answer.deliver_to(self._take)
        return bool(self.sent)

    def _take(self, piece: bytes) -> None:
        wants_none = self.is_paused or self.has_left
        assert not wants_none
        if self.raises:
            raise _Defect
        self.received += piece
        assert self.sent.startswith(self.received), "each byte once and in its order"
        if self._dice.random() < 0.1:
            self.pauses()

    def says(self) -> None:
        if not self._has_begun() or self.is_ended or not self.wire.socket.is_read:
            return
        size = self._dice.choice((1, 20, 200, 900, READ_BYTES // 2, READ_BYTES))
        chunk = b"%x\r\n" % size
        # Of a whole read some is framing.
        text = b"%d," % len(self.sent) * size
        text = text[: size if size < READ_BYTES else READ_BYTES - len(chunk) - 2]
        chunk = b"%x\r\n%s\r\n" % (len(text), text)
        self.sent += text
        if self._dice.random() < 0.05:
            self.is_ended = True
            chunk += b"0\r\n\r\n"
        self.wire.says(chunk)
        assert self.answer._buffer.size <= PAUSED_BYTES

    def pauses(self) -> None:
        self.is_paused = True
        self.answer.pause()

    def resumes(self) -> None:
        self.is_paused = False
        self.answer.resume()

    def ends(self) -> None:
        if self._has_begun() and not self.is_ended and self.wire.socket.is_read:
            self.is_ended = True
            self.wire.says(b"0\r\n\r\n")

    def costs(self) -> None:
        self.wire.connection.cost_s = self._dice.choice((0, COSTLY_S / 3, COSTLY_S * 1.1))

    def breaks(self) -> None:
        if not self._has_begun() or self.is_ended:
            return
        self.is_ended = True
        wire, how = self.wire, self._dice.choice(BREAKS)
        if how == "hangs up":
            wire.connection.eof_received()
        elif how == "is reset":
            wire.connection.connection_lost(ConnectionResetError())
        elif how == "is silent":
            wire.connection._deadlines._total_at = 0.0
            wire.connection.expired()
            self.may_miss = self.is_paused  # What a reader has left waiting does not wait any more.
            assert self.answer.is_over
        elif how == "is no HTTP":
            wire.says(b"no chunk\r\n")
        elif how == "leaves":
            self.has_left = self.may_miss = True
            self.answer.abandon()
        elif how == "is shut down":
            wire.connection.shut_down()
        else:
            self.may_miss = self.raises = True
            try:
                wire.says(b"1\r\n>\r\n")
            except _Defect as defect:  # As the event loop does it.
                wire.connection.connection_lost(defect)

    def judge(self) -> None:
        """What the reader has of an answer that is over, and begin another."""
        if not self.answer.is_over:
            return
        self.answers += 1
        assert self.answer._buffer.size == 0
        assert self.may_miss or self.received == self.sent
        try:
            self.answer.end()
        except (_Defect, UpstreamError):
            assert not self.wire.socket.is_open
        else:
            assert self.wire.shelf.free[-1] is self.wire.connection
        self.begin()


@pytest.mark.parametrize("seed", range(8))
async def test_each_reader_gets_what_came_once_and_in_its_order(seed: int) -> None:
    dice = Random(seed)
    streams = [_Stream(None, dice)]
    streams += [_Stream(streams[0].wire, dice) for _ in range(STREAMS - 1)]
    for _ in range(STEPS):
        stream, way = dice.choice(streams), dice.choice(WAYS)
        if way == "turns":
            await asyncio.sleep(0)
        else:
            getattr(stream, way)()
        stream.judge()
    last = {stream: stream.answer for stream in streams}
    async with asyncio.timeout(30):
        while any(not answer.is_over for answer in last.values()):
            for stream in streams:
                if stream.is_paused:
                    stream.resumes()
                stream.ends()
            await asyncio.sleep(0)
    for stream in streams:
        stream.judge()
        stream.wire.connection.abort()
    assert sum(stream.answers for stream in streams) > STREAMS
