from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.web.client_address import ClientAddresses, plain_address, socket_address

TRUSTED = ClientAddresses([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4 , 10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["1.2.3.4, junk"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, junk, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
        ("fd00::1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("fd00::1", ["::ffff:1.2.3.4"], "1.2.3.4"),
        ("fd00::1", ["fe80::1%\udcff"], "fe80::1"),
        ("fd00::1", ["[fe80::1%eth0]:443"], "fe80::1"),
        ("fe80::2%eth0", [], "fe80::2"),
        ("", ["1.2.3.4"], ""),
        ("10.0.0.1", [", ".join(["6.6.6.6"] + ["10.0.0.2"] * 20)], "10.0.0.2"),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_clients(
    remote: str, forwarded: list[str], client: str
) -> None:
    assert TRUSTED.of(socket_address(remote), forwarded) == client


def test_without_trusted_proxies_the_header_counts_for_nothing() -> None:
    assert ClientAddresses().of("10.0.0.1", ["1.2.3.4"]) == "10.0.0.1"


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4.5", "[::1", "1.2.3.4, 5.6.7.8", "fe80::1%eth0%x/"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert plain_address(text) in ("", "::1")
