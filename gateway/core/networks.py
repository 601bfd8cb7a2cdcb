"""Networks in CIDR notation: where a key may be used from, and which proxies are trusted."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of these networks; what is no address is in none."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)
