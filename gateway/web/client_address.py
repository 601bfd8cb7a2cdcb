"""The address that a request comes from: the socket's, or the one that a trusted proxy in front of the gateway reports.

`X-Forwarded-For` has an address for each hop, the last one written by the nearest proxy. The sender of a request can
write anything in front of them. So they are read from the end, as long as each was written by a trusted proxy; the
first that is not a trusted proxy is the client (as in nginx with `real_ip_recursive`).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from gateway.core.networks import Network, is_in
from gateway.core.remembered import remembered

_REMEMBERED = 1_024
"""The number of addresses that are remembered as trusted or not."""

_HOPS_MAX = 16
"""More are not read: the last one that was read counts as the client."""


class ClientAddresses:
    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        self._trusted = tuple(trusted)
        self.trusts_any = bool(self._trusted)
        """Whether `X-Forwarded-For` is looked at."""
        self._is_trusted = remembered(_REMEMBERED)(self._trusts)

    def of(self, remote: str, forwarded: Iterable[str]) -> str:
        """`remote` is the `socket_address`, `forwarded` the lines of `X-Forwarded-For`, in their order."""
        address = remote
        if not self._is_trusted(address):
            return address
        hops = [hop.strip() for line in forwarded for hop in line.split(",")]
        for hop in reversed(hops[-_HOPS_MAX:]):
            named = plain_address(hop)
            if not named:
                break  # This entry is not understood: the proxy that passed it on is all that is known.
            address = named
            if not self._is_trusted(address):
                break
        return address

    def _trusts(self, address: str) -> bool:
        return is_in(address, self._trusted)


@remembered(_REMEMBERED)
def socket_address(remote: str) -> str:
    """The address of a socket's other end, as it is usually written. Remembered, because a few come again and again, as
    their connections do."""
    return plain_address(remote)


def plain_address(text: str) -> str:
    """An address as it is usually written, without a port; empty for what is none. IPv4 in IPv6 is IPv4, as a socket of
    both gives it. The zone of an IPv6 address (fe80::1%eth0) is left out: it has a meaning on one host alone, and in a
    header it is whatever a client writes, of any length and not always text."""
    text = text.removeprefix("[").partition("]")[0] if text.startswith("[") else text
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return ""
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed).partition("%")[0]
