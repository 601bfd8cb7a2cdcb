"""How an answer is framed, as the client's socket gets it."""

from __future__ import annotations

import pytest

from gateway.core.endpoints import Dialect
from gateway.runtime.timer_sweep import TimerSweep
from gateway.runtime.turn import Turn
from gateway.web.client_request import ClientRequest
from gateway.web.listener import ClientLimits, Listener
from gateway.web.response_writer import HttpResponseWriter
from tests.unit.web.test_http_connection import TakingClient, settled


async def _answer_to(head: bytes, status: int, body: bytes, headers: list[tuple[str, str]] | None = None) -> bytes:
    """What the client of one request gets."""

    def answer(request: ClientRequest) -> None:
        writer = HttpResponseWriter(request, "id-1", Dialect.OPENAI, closing=False, timers=TimerSweep())
        writer.send(status, headers or [], body)

    listener, client = Listener(answer, lambda: "id", ClientLimits(1), Turn()), TakingClient()
    connection = listener()
    connection.connection_made(client)
    connection.data_received(head)
    await settled()
    connection.force_close()
    connection.connection_lost(None)
    await settled()
    return client.read


HEAD = b"POST /v1/x HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n"


async def test_an_answer_says_how_long_it_is() -> None:
    answer = await _answer_to(HEAD, 200, b"{}", [("content-type", "application/json")])
    assert answer.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: id-1\r\n")
    assert answer.endswith(b"\r\n\r\n{}")
    assert (answer.count(b"content-length: 2\r\n"), answer.count(b"connection:")) == (1, 0)


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    answer = await _answer_to(HEAD, status, b"")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-length" not in answer


async def test_a_client_that_closes_is_told_that_the_connection_ends() -> None:
    answer = await _answer_to(HEAD.replace(b"host", b"connection: close\r\nhost"), 200, b"{}")
    assert b"\r\nconnection: close\r\n" in answer


async def test_requests_on_one_connection_are_each_answered() -> None:
    answers = await _answer_to(HEAD * 3, 200, b"{}")
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
