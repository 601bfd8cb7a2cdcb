"""What the tests ask of an upstream, and how they read its answers."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.header_rules import HeaderLines
from gateway.runtime.tasks import BackgroundTasks
from gateway.runtime.turn import Turn
from gateway.upstream.client import HttpClient
from gateway.upstream.client_options import DISTRUST_SECONDS, IDLE_SECONDS
from gateway.upstream.contract import UpstreamClient, UpstreamRequest, UpstreamResponse

BODY = b'{"model":"gpt-oss","messages":[]}'
ASK = UpstreamRequest(
    path="/chat/completions", headers=HeaderLines(("content-type",), ("application/json",)), body=BODY
)


def unexpected(doing: str, error: BaseException) -> None:
    raise AssertionError(doing) from error


def new_client(
    idle_seconds: float = IDLE_SECONDS,
    report_unrequested_bytes: Callable[[str, bool], None] = lambda upstream, was_trusted: None,
    distrust_seconds: float = DISTRUST_SECONDS,
    max_connections: int = 1_000,
) -> HttpClient:
    tasks = BackgroundTasks(unexpected)
    return HttpClient(tasks, Turn(), report_unrequested_bytes, idle_seconds, distrust_seconds, max_connections)


def plain(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n%s\r\n%s" % (status, len(body), lines, body)


def head(*headers: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\n%s\r\n" % (status, b"".join(header + b"\r\n" for header in headers))


CHUNKED_HEAD = head(b"content-type: text/event-stream", b"transfer-encoding: chunked")
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(*pieces: bytes) -> bytes:
    return CHUNKED_HEAD + b"".join(chunk(piece) for piece in pieces) + LAST_CHUNK


async def body_of(answer: UpstreamResponse) -> bytes:
    pieces: list[bytes] = []
    answer.deliver_to(pieces.append)
    await answer.finished()
    return b"".join(pieces)


async def ask(client: UpstreamClient, upstream: object, outgoing: UpstreamRequest = ASK) -> tuple[int, bytes]:
    answer = await client.send(upstream, outgoing)  # type: ignore[arg-type]
    return answer.status, await body_of(answer)
