"""A model server with every oddity of HTTP, one chosen at random for each request. Its answers repeat the mark of the
request that they belong to, and so does what it sends although nobody asked: whoever gets another one's mark has
another one's answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import NamedTuple

from gateway.runtime.listening import stop_listening

_MARK = re.compile(rb"mark-[a-z]+-[0-9]+-end")
_LENGTH = re.compile(rb"content-length: ([0-9]+)", re.IGNORECASE)


def mark(caller: str, number: int) -> str:
    return f"mark-{caller}-{number}-end"


def marks_in(data: bytes) -> set[str]:
    return {found.decode() for found in _MARK.findall(data)}


class _Turn(NamedTuple):
    """One request to be answered. `body` is read already unless the oddity answers early."""

    head: bytes
    mark: str
    body: bytes
    writer: asyncio.StreamWriter
    dice: Random

    @property
    def streams(self) -> bool:
        return b'"stream": true' in self.body

    @property
    def answer(self) -> bytes:
        if self.streams:
            delta = json.dumps({"choices": [{"index": 0, "delta": {"content": self.mark}}]}).encode()
            return b"data: " + delta + b"\n\n" + b"data: " + delta + b"\n\ndata: [DONE]\n\n"
        words = " ".join([self.mark] * self.dice.choice((1, 2, 400)))
        counts = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return json.dumps({"choices": [{"message": {"content": words}}], "usage": counts}).encode()

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    def head_of(self, *lines: str, status: str = "200 OK") -> bytes:
        kind = "text/event-stream" if self.streams else "application/json"
        return "\r\n".join([f"HTTP/1.1 {status}", f"content-type: {kind}", *lines, "", ""]).encode()

    def whole(self, *lines: str) -> bytes:
        answer = self.answer
        return self.head_of(f"content-length: {len(answer)}", *lines) + answer

    async def wait(self) -> None:
        await asyncio.sleep(self.dice.random() * 0.003)


async def _plain(turn: _Turn) -> bool:
    turn.say(turn.whole())
    return True


async def _chunked(turn: _Turn) -> bool:
    answer = turn.answer
    cut = turn.dice.randrange(1, len(answer))
    turn.say(turn.head_of("transfer-encoding: chunked"))
    for piece in (answer[:cut], answer[cut:]):
        turn.say(b"%x\r\n%b\r\n" % (len(piece), piece))
        await turn.wait()
    turn.say(b"0\r\n\r\n")
    return True


async def _in_pieces(turn: _Turn) -> bool:
    answer = turn.whole()
    cuts = sorted(turn.dice.sample(range(1, len(answer)), 3))
    for begin, end in zip([0, *cuts], [*cuts, len(answer)], strict=True):
        turn.say(answer[begin:end])
        await turn.wait()
    return True


async def _late(turn: _Turn) -> bool:
    await asyncio.sleep(LATE_S)
    return await _plain(turn)


async def _interim(turn: _Turn) -> bool:
    turn.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + turn.whole())
    return True


async def second_answer(turn: _Turn) -> bool:
    turn.say(turn.whole() + turn.whole())
    return True


async def _second_answer_later(turn: _Turn) -> bool:
    turn.say(turn.whole())
    await turn.wait()
    turn.say(turn.whole())
    return True


async def _longer_than_its_length(turn: _Turn) -> bool:
    answer = turn.answer
    turn.say(turn.head_of(f"content-length: {len(answer) - 3}") + answer)
    return True


async def _two_framings(turn: _Turn) -> bool:
    answer = turn.answer
    head = turn.head_of("content-length: 5", "transfer-encoding: chunked")
    turn.say(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(answer), answer))
    return True


async def _bytes_behind_chunks(turn: _Turn) -> bool:
    await _chunked(turn)
    turn.say(turn.answer)
    return True


async def _until_close(turn: _Turn) -> bool:
    turn.say(turn.head_of("connection: close") + turn.answer)
    return False


async def _says_close_and_stays(turn: _Turn) -> bool:
    turn.say(turn.whole("connection: close"))
    await turn.wait()
    turn.say(turn.whole())
    return True


async def _closes_without_a_word(turn: _Turn) -> bool:
    turn.say(turn.whole())
    return False


async def _http_1_0(turn: _Turn) -> bool:
    turn.say(turn.whole().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    return True


async def _refuses(turn: _Turn) -> bool:
    answer = json.dumps({"error": {"message": f"no {turn.mark}", "type": "invalid_request_error"}}).encode()
    turn.say(turn.head_of(f"content-length: {len(answer)}", status="400 Bad Request") + answer)
    return True


async def _shorter_than_its_length(turn: _Turn) -> bool:
    answer = turn.answer
    turn.say(turn.head_of(f"content-length: {len(answer) + 9}") + answer)
    return False


async def _closes_before(_turn: _Turn) -> bool:
    return False


async def _resets_midway(turn: _Turn) -> bool:
    answer = turn.whole()
    turn.say(answer[: len(answer) // 2])
    await turn.wait()
    turn.writer.transport.abort()
    return False


async def _no_http(turn: _Turn) -> bool:
    turn.say(turn.answer)
    return False


async def _fails(turn: _Turn) -> bool:
    answer = json.dumps({"error": {"message": turn.mark}}).encode()
    turn.say(turn.head_of(f"content-length: {len(answer)}", status="503 Service Unavailable") + answer)
    return True


Oddity = Callable[[_Turn], Awaitable[bool]]
"""Answers a turn, and returns whether another request is read from the connection."""

ANSWERING: tuple[Oddity, ...] = (
    *(_plain, _plain, _plain, _plain, _plain, _plain, _chunked, _in_pieces, _late, _interim, second_answer),
    *(_longer_than_its_length, _bytes_behind_chunks, _until_close),
    *(_says_close_and_stays, _closes_without_a_word, _http_1_0, _refuses),
)
UNASKED: tuple[Oddity, ...] = (_second_answer_later,)
FAILING: tuple[Oddity, ...] = (
    *(_shorter_than_its_length, _closes_before, _resets_midway, _no_http, _fails, _two_framings),
)
LATE_S = 0.02
EARLY_SHARE = 0.1
"""Of the requests that are answered before their body has been read."""
FAILING_SHARE = 0.08


class OddUpstream:
    """`mixed` are requests in which two marks were, `oddities` how often each oddity was played; `answering` are those
    that it chooses from, but for FAILING_SHARE of the requests."""

    def __init__(self, dice: Random, answering: Sequence[Oddity]) -> None:
        self.base_url = ""
        self.answering = answering
        self.mixed: list[set[str]] = []
        self.oddities: Counter[str] = Counter()
        self._dice = dice
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_over = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                # What was accepted in the last moment comes here when all others have been hung up.
                while not self._is_over and await self._turn(reader, writer):
                    continue
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(_LENGTH.findall(head)[0])
        is_early = self._dice.random() < EARLY_SHARE
        body = b"" if is_early else await reader.readexactly(length)
        self._look_at(head + body)
        oddity = self._dice.choice(FAILING if self._dice.random() < FAILING_SHARE else self.answering)
        self.oddities[f"{oddity.__name__}{' early' if is_early else ''}"] += 1
        goes_on = await oddity(_Turn(head, min(marks_in(head)), body, writer, self._dice))
        if is_early and goes_on:
            self._look_at(head + await reader.readexactly(length))
        return goes_on

    def _look_at(self, received: bytes) -> None:
        marks = marks_in(received)
        if len(marks) != 1:
            self.mixed.append(marks)

    def hang_up(self) -> None:
        self._is_over = True
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def odd_upstream(dice: Random, answering: Sequence[Oddity]) -> AsyncIterator[OddUpstream]:
    played = OddUpstream(dice, answering)
    server = await asyncio.start_server(played.serve, "127.0.0.1", 0)
    played.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield played
    finally:
        await stop_listening(server)
        played.hang_up()
