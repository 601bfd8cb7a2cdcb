"""Upstreams with an authority of their own, and those that ask for the gateway's certificate."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.errors import UpstreamUnreachable
from gateway.core.snapshot import UpstreamTls
from gateway.upstream.client import HttpClient
from tests.contract.upstream.asking import ASK, ask, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import Peer, hears, says

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = str(CERTIFICATES / "authority.pem")
OK = plain(b"ok")

Issue = Callable[[str], UpstreamTls]


@pytest.fixture
def issue(tmp_path: Path) -> Issue:
    """Makes a certificate of the gateway's, signed by itself, for this name."""

    def make(name: str) -> UpstreamTls:
        tls = UpstreamTls(AUTHORITY, str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key"), digest=name)
        request = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        files = ("-days", "2", "-subj", f"/CN={name}", "-out", tls.cert, "-keyout", tls.key)
        subprocess.run([*request, *files], check=True, capture_output=True)
        return tls

    return make


def asking_for(*trusted: UpstreamTls) -> ssl.SSLContext:
    """A server that takes only who has one of these certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    for tls in trusted:
        context.load_verify_locations(tls.cert)
    return context


def join(first: str, second: str) -> None:
    with Path(first).open("ab") as opened:
        opened.write(Path(second).read_bytes())


def sees_the_certificate(seen: list[str]) -> Callable[[Peer], object]:
    async def step(peer: Peer) -> None:
        ((name,),) = peer.writer.get_extra_info("peercert")["subject"]
        seen.append(name[1])

    return step


async def test_an_authority_of_its_own_vouches_for_an_upstream(client: HttpClient, play: Play) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "localhost.pem")
    server = await play([hears, says(OK)], [], tls=context)
    assert await ask(client, server.upstream(tls=UpstreamTls(ca=AUTHORITY))) == (200, b"ok")
    with pytest.raises(UpstreamUnreachable, match="its certificate is not trusted"):
        await client.send(server.upstream("other"), ASK)


@pytest.mark.usefixtures("trusted_by_the_system")
async def test_an_authority_of_its_own_replaces_those_of_the_system(
    client: HttpClient, play: Play, issue: Issue
) -> None:
    server = await play([], tls=asking_for(issue("gateway")))
    with pytest.raises(UpstreamUnreachable, match="its certificate is not trusted"):
        await client.send(server.upstream(tls=UpstreamTls(ca=issue("other").cert)), ASK)


@pytest.fixture
def trusted_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", AUTHORITY)


async def test_the_gateway_proves_itself_with_its_certificate(client: HttpClient, play: Play, issue: Issue) -> None:
    seen: list[str] = []
    own = issue("gateway")
    server = await play([hears, sees_the_certificate(seen), says(OK)], tls=asking_for(own))
    assert await ask(client, server.upstream(tls=own)) == (200, b"ok")
    assert seen == ["gateway"]


async def test_a_key_may_be_in_the_file_of_its_certificate(client: HttpClient, play: Play, issue: Issue) -> None:
    own = issue("gateway")
    join(own.cert, own.key)
    server = await play([hears, says(OK)], tls=asking_for(own))
    assert await ask(client, server.upstream(tls=UpstreamTls(AUTHORITY, own.cert))) == (200, b"ok")


async def test_a_renewed_certificate_gets_connections_of_its_own(client: HttpClient, play: Play, issue: Issue) -> None:
    seen: list[str] = []
    steps = [hears, sees_the_certificate(seen), says(OK)]
    old, new = issue("old"), issue("new")
    server = await play([*steps], [*steps], tls=asking_for(old, new))
    assert await ask(client, server.upstream(tls=old)) == (200, b"ok")
    assert await ask(client, server.upstream(tls=new)) == (200, b"ok")
    assert seen == ["old", "new"]


async def test_a_gateway_without_a_certificate_is_turned_away(client: HttpClient, play: Play, issue: Issue) -> None:
    server = await play([], tls=asking_for(issue("gateway")))
    with pytest.raises(UpstreamUnreachable):
        await client.send(server.upstream(tls=UpstreamTls(ca=AUTHORITY)), ASK)


async def test_files_that_have_gone_make_the_upstream_unreachable(client: HttpClient, play: Play, issue: Issue) -> None:
    own = issue("gateway")
    server = await play([], tls=asking_for(own))
    os.unlink(own.key)  # noqa: PTH108 # Of a file in memory, and no loop waits for it.
    with pytest.raises(
        UpstreamUnreachable, match=r"the files of its `tls` cannot be used \(no such file or directory\)"
    ):
        await client.send(server.upstream(tls=own), ASK)
    assert server.connections == 0
