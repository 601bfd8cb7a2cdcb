"""How upstreams are reached: names, families of addresses, TLS."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from pathlib import Path

import pytest

from gateway.core.errors import UpstreamUnreachable
from gateway.core.header_rules import HeaderLines
from gateway.core.snapshot import Timeouts, Upstream
from gateway.upstream.client import HttpClient
from tests.contract.upstream.asking import ASK, ask, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import (
    Peer,
    hangs_up,
    hears,
    notes,
    says,
    sees_the_client_leave,
)

CERTIFICATES = Path(__file__).parent / "certificates"
OK = plain(b"ok")


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        return probe.connect_ex(("::1", 9)) != errno.EADDRNOTAVAIL


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem")
    return context


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "authority.pem"))


async def test_an_upstream_that_listens_nowhere_is_unreachable(client: HttpClient) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        upstream = Upstream("nowhere", f"http://127.0.0.1:{unheard.getsockname()[1]}")
        with pytest.raises(
            UpstreamUnreachable, match=r"^Upstream 'nowhere' cannot be reached: connection refused\.$"
        ) as caught:
            await client.send(upstream, ASK)
        assert caught.value.outcome == "not_reached"


async def test_an_upstream_that_no_request_can_be_written_for_is_unreachable(client: HttpClient) -> None:
    upstream = Upstream("odd", "http://localhost", headers=(("upgrade", "h2c"),))
    with pytest.raises(UpstreamUnreachable, match="'odd' is misconfigured: header 'upgrade'") as caught:
        await client.send(upstream, ASK)
    assert caught.value.outcome == "not_reached"


async def test_a_name_that_nobody_knows_is_unreachable(client: HttpClient) -> None:
    with pytest.raises(UpstreamUnreachable, match="its name cannot be resolved"):
        await client.send(Upstream("unknown", "http://no-such-host.invalid"), ASK)


async def test_a_name_that_dns_cannot_carry_is_unreachable(client: HttpClient) -> None:
    with pytest.raises(UpstreamUnreachable, match="'endless' is misconfigured: base_url"):
        await client.send(Upstream("endless", f"http://{'x' * 70}.example"), ASK)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_address_of_ipv6_is_reached(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK)], host="::1")
    assert await ask(client, server.upstream(base_url=f"http://[::1]:{server.port}")) == (200, b"ok")
    assert server.requests[0].header("host") == f"[::1]:{server.port}"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))]
)
async def test_a_name_with_addresses_of_both_families_is_reached_by_either(
    client: HttpClient, play: Play, host: str
) -> None:
    server = await play([hears, says(OK)], host=host)
    both = {address[4][0] for address in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)}
    if host not in both:
        pytest.skip(f"localhost is not {host} here")
    assert await ask(client, server.upstream()) == (200, b"ok")


async def test_connections_send_small_pieces_at_once(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK)])
    answer = await client.send(server.upstream(), ASK)
    [connection] = next(iter(client._pools.values()))._idle
    used = connection._transport.get_extra_info("socket")
    assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    answer.abandon()


@pytest.mark.usefixtures("trusted")
async def test_tls_is_spoken_with_the_name_of_the_host(
    client: HttpClient, play: Play, server_tls: ssl.SSLContext
) -> None:
    names: list[str | None] = []
    server_tls.sni_callback = lambda connection, name, context: names.append(name)
    server = await play([hears, says(OK), hears, says(OK)], tls=server_tls)
    assert await ask(client, server.upstream()) == (200, b"ok")
    assert await ask(client, server.upstream()) == (200, b"ok")
    assert names == ["localhost"]


@pytest.mark.usefixtures("trusted")
async def test_a_large_request_and_answer_pass_through_tls(
    client: HttpClient, play: Play, server_tls: ssl.SSLContext
) -> None:
    much = bytes(range(256)) * 20_000
    server = await play([hears, says(plain(much)), hears, says(OK)], tls=server_tls)
    large = type(ASK)(path="/x", headers=HeaderLines(), body=much)
    assert await ask(client, server.upstream(), large) == (200, much)
    assert server.requests[0].body == much
    assert await ask(client, server.upstream()) == (200, b"ok")
    assert server.connections == 1


@pytest.mark.usefixtures("trusted")
async def test_a_kept_connection_under_tls_that_closed_before_the_request_arrived_is_replaced(
    client: HttpClient, play: Play, server_tls: ssl.SSLContext
) -> None:
    peers: list[Peer] = []
    server = await play([hears, says(OK), notes(peers)], [hears, says(plain(b"second"))], tls=server_tls)
    assert await ask(client, server.upstream()) == (200, b"ok")
    peers[0].writer.close()
    assert await ask(client, server.upstream()) == (200, b"second")


@pytest.mark.usefixtures("trusted")
async def test_a_server_under_tls_that_heard_the_whole_request_is_not_asked_again(
    client: HttpClient, play: Play, server_tls: ssl.SSLContext
) -> None:
    server = await play([hears, says(OK), hears, hangs_up], [hears, says(OK)], tls=server_tls)
    assert await ask(client, server.upstream()) == (200, b"ok")
    with pytest.raises(UpstreamUnreachable, match="before it answered"):
        await ask(client, server.upstream())
    assert server.connections == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    client: HttpClient, play: Play, server_tls: ssl.SSLContext
) -> None:
    server = await play([], tls=server_tls)
    with pytest.raises(UpstreamUnreachable, match="its certificate is not trusted"):
        await client.send(server.upstream(), ASK)


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_for_another_host_is_refused(
    client: HttpClient, play: Play, server_tls: ssl.SSLContext
) -> None:
    server = await play([], tls=server_tls)
    with pytest.raises(UpstreamUnreachable, match="its certificate is not trusted"):
        await client.send(server.upstream(base_url=f"https://127.0.0.1:{server.port}"), ASK)


async def test_tls_asked_of_a_server_without_it_is_unreachable(client: HttpClient, play: Play) -> None:
    server = await play([says(b"HTTP/1.1 400 Bad Request\r\n\r\n")])
    with pytest.raises(UpstreamUnreachable, match="TLS failed"):
        await client.send(server.upstream(base_url=f"https://localhost:{server.port}"), ASK)


async def test_a_handshake_that_hangs_ends_with_the_time_to_connect(client: HttpClient, play: Play) -> None:
    server = await play([sees_the_client_leave])
    upstream = Upstream("hung", f"https://localhost:{server.port}", timeouts=Timeouts(connect=1.0))
    with pytest.raises(UpstreamUnreachable, match="did not accept a connection within"):
        await client.send(upstream, ASK)
    await server.sees_the_client_gone()


async def test_who_gives_up_a_lookup_leaves_it_to_the_others(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK)])
    upstream = server.upstream(base_url=f"http://localhost:{server.port}")
    first, second = (asyncio.create_task(ask(client, upstream)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == (200, b"ok")
    assert first.cancelled()


async def test_who_is_connecting_as_the_wire_closes_is_turned_away(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK)])
    sending = asyncio.create_task(ask(client, server.upstream()))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(UpstreamUnreachable):
        await sending


async def test_giving_up_while_connecting_leaves_no_connection(client: HttpClient, play: Play) -> None:
    reached = asyncio.Event()

    async def notes(peer: Peer) -> None:
        reached.set()

    server = await play([notes, sees_the_client_leave])
    sending = asyncio.create_task(client.send(Upstream("hung", f"https://localhost:{server.port}"), ASK))
    await reached.wait()
    sending.cancel()
    await server.sees_the_client_gone()
    await asyncio.wait([sending])
    assert client._pools == {}
