"""One question to a worker, in HTTP/1.1 over its unix socket."""

from __future__ import annotations

import asyncio

from gateway.web.passing import Asked, Reply

_PATIENCE_S = 3.0
"""A worker that does not answer by then counts as away: probes give up soon after."""


class NoReply(Exception):
    """The worker is not there, or too busy to answer."""


async def ask(path: str, asked: Asked) -> Reply:
    """Raises NoReply."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return _reply(await _exchange(path, asked), bodiless=asked.method == "HEAD")
    except (OSError, TimeoutError) as error:
        raise NoReply(str(error)) from error


async def _exchange(path: str, asked: Asked) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(_written(asked))
        return await reader.read()
    finally:
        writer.close()


def _written(asked: Asked) -> bytes:
    headers = [("host", "worker"), ("connection", "close"), ("content-length", str(len(asked.body))), *asked.headers]
    lines = [f"{asked.method} {asked.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + asked.body


def _reply(answer: bytes, *, bodiless: bool) -> Reply:
    """Workers send their answers with a Content-Length."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    if not bodiless and len(body) != int(dict(headers).get("content-length", -1)):
        raise ConnectionError("the answer broke off")
    return Reply(int(first.split()[1]), headers, body)
