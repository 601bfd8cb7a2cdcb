"""Upstreams behind a forward proxy: plain HTTP names its whole URL to it, TLS goes through a tunnel."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from gateway.core.errors import UpstreamUnreachable
from gateway.core.proxies import Proxy, read_proxy
from gateway.core.snapshot import Timeouts, UpstreamTls
from gateway.upstream.client import HttpClient
from tests.contract.upstream.asking import ASK, ask, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import Peer, Server, Step, hangs_up, hears, says, sees_the_client_leave

CERTIFICATES = Path(__file__).parent / "certificates"
TRUSTED = UpstreamTls(ca=str(CERTIFICATES / "authority.pem"))
OK = plain(b"ok")
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem")
    return context


def through(proxy: Server, login: str = "") -> Proxy:
    return read_proxy(f"http://{login}127.0.0.1:{proxy.port}")


def tunnels_to(server: Server) -> Step:
    """Passes bytes on, both ways, until the client leaves."""

    async def step(peer: Peer) -> None:
        reader, writer = await asyncio.open_connection("localhost", server.port)
        peer.writer.write(OPENED)
        async with asyncio.TaskGroup() as passing:
            passing.create_task(passes(peer.reader, writer))
            passing.create_task(passes(reader, peer.writer))

    return step


async def passes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_a_request_in_plain_http_names_its_whole_url_to_the_proxy(client: HttpClient, play: Play) -> None:
    proxy = await play([hears, says(OK), hears, says(OK)])
    upstream = proxy.upstream(base_url="http://llm.invalid:8000/v1?a=b", proxy=through(proxy, "user:p%40ss@"))
    assert await ask(client, upstream) == (200, b"ok")
    assert await ask(client, upstream) == (200, b"ok")
    assert proxy.connections == 1
    heard = proxy.requests[0]
    assert heard.line == "POST http://llm.invalid:8000/v1/chat/completions?a=b HTTP/1.1"
    assert heard.header("host") == "llm.invalid:8000"
    assert heard.header("proxy-authorization") == "Basic dXNlcjpwQHNz"
    assert heard.body == ASK.body


async def test_a_proxy_without_a_credential_is_sent_none(client: HttpClient, play: Play) -> None:
    proxy = await play([hears, says(OK)])
    assert await ask(client, proxy.upstream(base_url="http://llm.invalid", proxy=through(proxy))) == (200, b"ok")
    assert proxy.requests[0].header("proxy-authorization") is None


async def test_tls_goes_through_a_tunnel_that_ends_at_the_upstream(
    client: HttpClient, play: Play, server_tls: ssl.SSLContext
) -> None:
    server = await play([hears, says(plain(b"x" * 300_000)), hears, says(OK)], tls=server_tls)
    proxy = await play([hears, tunnels_to(server)])
    upstream = server.upstream(proxy=through(proxy, "user:hunter2@"), tls=TRUSTED)
    assert await ask(client, upstream) == (200, b"x" * 300_000)
    assert await ask(client, upstream) == (200, b"ok")
    assert (proxy.connections, server.connections) == (1, 1)
    assert proxy.requests[0].line == f"CONNECT localhost:{server.port} HTTP/1.1"
    assert proxy.requests[0].header("host") == f"localhost:{server.port}"
    assert proxy.requests[0].header("proxy-authorization") == "Basic dXNlcjpodW50ZXIy"
    assert server.requests[0].line == "POST /v1/chat/completions HTTP/1.1"
    assert server.requests[0].header("proxy-authorization") is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
            "it refused CONNECT with status 407",
        ),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n<html>", "it refused CONNECT with status 403"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "it did not answer CONNECT as a proxy does"),
        (b"x" * 20_000, "it did not answer CONNECT as a proxy does"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_named_without_its_credential(
    client: HttpClient, play: Play, answer: bytes, reason: str
) -> None:
    proxy = await play([hears, says(answer), sees_the_client_leave])
    upstream = proxy.upstream(base_url="https://llm.invalid/v1", proxy=through(proxy, "user:hunter2@"))
    with pytest.raises(UpstreamUnreachable) as caught:
        await client.send(upstream, ASK)
    address = f"127.0.0.1:{proxy.port}"
    assert caught.value.message == f"Upstream 'inducta' cannot be reached: its proxy {address}: {reason}."
    assert caught.value.outcome == "not_reached"
    await proxy.sees_the_client_gone()


async def test_a_proxy_that_hangs_up_opens_no_tunnel(client: HttpClient, play: Play) -> None:
    proxy = await play([hears, hangs_up])
    with pytest.raises(UpstreamUnreachable, match=r"its proxy 127\.0\.0\.1:[0-9]+: it did not answer CONNECT"):
        await client.send(proxy.upstream(base_url="https://llm.invalid", proxy=through(proxy)), ASK)


async def test_a_proxy_that_listens_nowhere_is_named(client: HttpClient, play: Play) -> None:
    server = await play([])
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        proxy = Proxy("127.0.0.1", unheard.getsockname()[1])
        with pytest.raises(UpstreamUnreachable, match=r"its proxy 127\.0\.0\.1:[0-9]+: connection refused\.$"):
            await client.send(server.upstream(proxy=proxy), ASK)
    assert server.connections == 0


async def test_a_proxy_that_does_not_answer_ends_with_the_time_to_connect(client: HttpClient, play: Play) -> None:
    proxy = await play([hears, sees_the_client_leave])
    upstream = proxy.upstream(base_url="https://llm.invalid", proxy=through(proxy), timeouts=Timeouts(connect=1.0))
    with pytest.raises(UpstreamUnreachable, match="did not accept a connection within"):
        await client.send(upstream, ASK)
    await proxy.sees_the_client_gone()


async def test_a_certificate_that_nobody_vouches_for_is_refused_behind_a_proxy_too(
    client: HttpClient, play: Play, server_tls: ssl.SSLContext
) -> None:
    server = await play([], tls=server_tls)
    proxy = await play([hears, tunnels_to(server)])
    with pytest.raises(UpstreamUnreachable, match=r"cannot be reached: its certificate is not trusted"):
        await client.send(server.upstream(proxy=through(proxy)), ASK)
