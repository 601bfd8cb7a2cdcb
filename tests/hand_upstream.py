"""A model server that the test plays by hand: it sees each request, and says each byte when it wants."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.runtime.listening import stop_listening
from tests.whole_gateway import PATIENCE_S, Json

DONE = b"data: [DONE]\n\n"


class Turn:
    """One request, and the connection to answer it on."""

    def __init__(self, head: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.request_line = lines[0]
        self.headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:-2])]
        self.body = body
        self._reader = reader
        self._writer = writer

    @property
    def json(self) -> Json:
        parsed: Json = json.loads(self.body)
        return parsed

    async def heard(self, size: int) -> bytes:
        """The next so many bytes of a body that was left unread."""
        return await asyncio.wait_for(self._reader.readexactly(size), PATIENCE_S)

    def answer(self, body: bytes, status: int = 200) -> None:
        """The whole answer, and the end of the connection."""
        head = f"HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.say(head.encode() + b"connection: close\r\n\r\n" + body)
        self._writer.close()

    def begin_stream(self) -> None:
        self.say(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    def send(self, data: bytes) -> None:
        """One piece of a body in chunks."""
        self.say(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.say(b"0\r\n\r\n")

    def say(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)

    async def taken(self) -> None:
        """Wait until the gateway has taken nearly all that was said."""
        await self._writer.drain()

    def hang_up(self) -> None:
        self._writer.transport.abort()

    async def close(self) -> None:
        """End the connection once all was sent."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def left(self) -> None:
        """Wait until the gateway closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self._reader.read(2**16):
                    continue
            except ConnectionError:
                return


class HandUpstream:
    """`asked` gives the requests in the order in which they came."""

    def __init__(self, *, reads_bodies: bool) -> None:
        self.base_url = ""
        self._reads_bodies = reads_bodies
        self._turns: asyncio.Queue[Turn] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self._is_over = False

    async def asked(self) -> Turn:
        return await asyncio.wait_for(self._turns.get(), PATIENCE_S)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self._is_over:  # It is accepted as the server stops.
            self.hang_up()
            return
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if not self._reads_bodies:
                    await self._turns.put(Turn(head, b"", reader, writer))
                    return
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                body = await reader.readexactly(length)
                await self._turns.put(Turn(head, body, reader, writer))
                if length or b"transfer-encoding: chunked" in head.lower():
                    return  # The turn's owner has the connection from here on.
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()

    def hang_up(self) -> None:
        self._is_over = True
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def hand_upstream(*, send_bytes: int | None = None, reads_bodies: bool = True) -> AsyncIterator[HandUpstream]:
    """`send_bytes` makes its socket and buffers small, so that it soon feels a reader that does not read. Without
    `reads_bodies` the test reads the requests' bodies itself (`Turn.heard`)."""
    played = HandUpstream(reads_bodies=reads_bodies)
    sock = socket.socket()
    if send_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    sock.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(played.serve, sock=sock)
    played.base_url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
    try:
        yield played
    finally:
        await stop_listening(server)
        played.hang_up()


def event(**fields: object) -> bytes:
    """One event with a chunk of a chat completion."""
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", **fields}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def content(text: str, *, index: int = 0) -> bytes:
    return event(choices=[{"index": index, "delta": {"content": text}, "finish_reason": None}])


def finish(reason: str = "stop", **fields: object) -> bytes:
    return event(choices=[{"index": 0, "delta": {}, "finish_reason": reason}], **fields)


def usage(prompt: int, completion: int) -> Json:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
