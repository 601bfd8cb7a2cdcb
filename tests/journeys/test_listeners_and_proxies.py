"""Where clients come from: by IPv4 and IPv6 at one address, and through proxies that say who asked."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from gateway.app.gateway import Gateway
from gateway.app.snapshot_builder import loaded_snapshot
from gateway.core.address import Address
from gateway.demo import DemoUpstream
from gateway.runtime.listening import listen, listen_on_all
from gateway.telemetry.log import Log
from tests.whole_gateway import KEY, configuration, settings_of, whole_gateway

NOWHERE = "http://127.0.0.1:1/v1"
IPV6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@IPV6
async def test_one_address_takes_both_families() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, listen="[::]:0") as gateway:
        for host in ("127.0.0.1", "[::1]"):
            url = f"http://{host}:{gateway.port}/v1/models"
            async with gateway.session.get(url, headers={"authorization": f"Bearer {KEY}"}) as reply:
                assert reply.status == 200
            await gateway.ended()
        assert [line["client_ip"] for line in gateway.lines] == ["127.0.0.1", "::1"]


async def test_several_addresses_are_one_listener() -> None:
    async with DemoUpstream() as upstream:
        config = configuration(upstream.base_url, listen=["127.0.0.1:0", "127.0.0.2:0"])
        gateway = Gateway(loaded_snapshot(settings_of(config)), Log(lambda _line: None))
        addresses, _ = await gateway.start()
        try:
            assert [address.host for address in addresses] == ["127.0.0.1", "127.0.0.2"]
            async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
                for address in addresses:
                    async with session.get(f"http://{address}/v1/models") as reply:
                        assert reply.status == 200
        finally:
            await gateway.close()
        for address in addresses:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)


async def test_where_one_address_is_taken_none_is() -> None:
    holder = await listen(asyncio.Protocol, Address("127.0.0.2", 0))
    taken = Address("127.0.0.2", holder.sockets[0].getsockname()[1])
    with pytest.raises(OSError, match="in use"):
        await listen_on_all(asyncio.Protocol, [Address("127.0.0.1", taken.port), taken])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", taken.port)
    holder.close()


@IPV6
async def test_processes_share_it() -> None:
    first = await listen(asyncio.Protocol, Address("::", 0), shared=True)
    port = first.sockets[0].getsockname()[1]
    second = await listen(asyncio.Protocol, Address("::", port), shared=True)
    with pytest.raises(OSError, match="in use"):
        await listen(asyncio.Protocol, Address("::", port))
    first.close()
    second.close()


async def test_a_trusted_proxy_says_who_asks_and_a_reload_whom_to_trust() -> None:
    forwarded = {"authorization": f"Bearer {KEY}", "x-forwarded-for": "6.6.6.6, 203.0.113.9"}
    async with whole_gateway(NOWHERE, trusted_proxies=["127.0.0.0/8"]) as gateway:
        await gateway.request("GET", "/v1/models", headers=forwarded)
        await gateway.ended()
        assert gateway.lines[-1]["client_ip"] == "203.0.113.9"
        settings = settings_of(configuration(NOWHERE))
        gateway.gateway.swap(loaded_snapshot(settings))
        await gateway.request("GET", "/v1/models", headers=forwarded)
        await gateway.ended()
        assert gateway.lines[-1]["client_ip"] == "127.0.0.1"
