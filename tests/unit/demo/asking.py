"""Asks the demo upstream over a bare socket, so that tests see every byte of its answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.demo import DemoUpstream

TIMEOUT_S = 5.0


def request(path: str = "/v1/chat/completions", method: str = "POST", close: bool = True, **body: Any) -> bytes:
    """A request with the fields given, beside a model and a message."""
    sent = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}], **body}
    payload = json.dumps(sent).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer k\r\n"
    connection = "connection: close\r\n" if close else ""
    return f"{head}{connection}content-length: {len(payload)}\r\n\r\n".encode() + payload


async def answer(upstream: DemoUpstream, sent: bytes) -> bytes:
    """Everything that comes until the upstream closes. Raises ConnectionError on a reset."""
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), TIMEOUT_S)
    finally:
        writer.close()


def head_and_body(raw: bytes) -> tuple[bytes, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return head, body


def unchunked(body: bytes) -> tuple[list[bytes], bytes]:
    """The chunks of a body, and what stands after the last whole one (the end of the coding, if it is there)."""
    chunks: list[bytes] = []
    while True:
        size, separator, rest = body.partition(b"\r\n")
        length = int(size, 16) if separator else 0
        if length == 0 or len(rest) < length + 2:
            return chunks, body
        chunks.append(rest[:length])
        body = rest[length + 2 :]


def events(stream: bytes) -> list[Any]:
    """The payloads of a stream in the plainest dialect, "[DONE]" as it is."""
    payloads = [event.removeprefix(b"data: ") for event in stream.split(b"\n\n") if event]
    return [payload.decode() if payload == b"[DONE]" else json.loads(payload) for payload in payloads]
