"""Where clients come from: networks in CIDR notation, and the client's address behind proxies.

A proxy appends to X-Forwarded-For the address that it was connected from, so that only the last entries are to be
believed: those that a trusted proxy has written. They are read from the right, until one comes that is no trusted
proxy: that is the client. What stands to the left of it the client may have sent itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
IpAddress = IPv4Address | IPv6Address

NETWORK_ALLOWED = "must be a network in CIDR notation such as 10.0.0.0/8 or 2001:db8::/32, or one address"

_ENTRIES_MAX = 32
"""Of X-Forwarded-For; more proxies than that are in front of no client."""


def read_network(text: str) -> Network:
    """Raises ValueError: what is allowed."""
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(NETWORK_ALLOWED) from None


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of these networks; what is no address is in none."""
    found = _address(address)
    return found is not None and any(found in network for network in networks)


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Iterable[Network]) -> str:
    """The client's address. `peer` is the other end of the connection, `forwarded_for` the values of X-Forwarded-For
    in their order."""
    networks = tuple(trusted)
    entries = [entry.strip() for value in forwarded_for for entry in value.split(",")][-_ENTRIES_MAX:]
    client = peer
    while entries and is_in(client, networks):
        address = _address(entries.pop())
        if address is None:
            break
        client = str(address)
    return client


def _address(text: str) -> IpAddress | None:
    """Some proxies add a port, and IPv6 addresses may stand in brackets. An IPv4 address within IPv6 is the former."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
