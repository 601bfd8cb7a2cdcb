from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.core.networks import is_in

NETWORKS = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("192.0.2.1"))


@pytest.mark.parametrize("address", ["10.255.0.1", "2001:db8::7", "192.0.2.1"])
def test_an_address_is_in_a_network(address: str) -> None:
    assert is_in(address, NETWORKS)


@pytest.mark.parametrize("address", ["", "11.0.0.1", "2001:db9::7", "192.0.2.2", "unknown", "10.0.0.1:80"])
def test_what_is_elsewhere_or_no_address_is_in_none(address: str) -> None:
    assert not is_in(address, NETWORKS)
