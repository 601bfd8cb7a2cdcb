"""Forward proxies: how one is written, and which one the environment names for an upstream.

`HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` are read as curl, requests and Go read them: the name in lower case comes
first, even if it is empty. `NO_PROXY` is `*`, or a list of names (with everything below them), addresses and networks
in CIDR notation, each optionally with a port. As in Go, the environment puts no proxy in front of a loopback address.

Only proxies that are spoken to in plain HTTP are supported. Any other (SOCKS, HTTPS) is an error and is never ignored:
the requests would leave by a way that the operator has closed.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

import msgspec

from gateway.core.address import Address
from gateway.core.http_syntax import BaseUrl, is_host

PROXY_ALLOWED = "must be http://HOST:PORT, perhaps with USER:PASSWORD@ (percent-encoded) before the host"

_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?/?")
_DEFAULT_PORT = 80


class Proxy(msgspec.Struct, frozen=True):
    """`authorization` is the value of Proxy-Authorization, empty where none is sent."""

    host: str
    port: int
    authorization: str = ""

    def __str__(self) -> str:
        """Its address, without the credential."""
        return str(Address(self.host, self.port))

    def __repr__(self) -> str:
        return f"Proxy({self})"


def read_proxy(text: str) -> Proxy:
    """Raises ValueError: what is allowed, never what was given."""
    scheme, separator, rest = text.partition("://")
    login, _, place = rest.rpartition("@")
    parts = _PLACE.fullmatch(place)
    if scheme.lower() != "http" or not separator or parts is None:
        raise ValueError(PROXY_ALLOWED)
    host, port = parts["host"].strip("[]"), int(parts["port"] or _DEFAULT_PORT)
    if not 1 <= port <= 65_535 or not is_host(host):
        raise ValueError(PROXY_ALLOWED)
    return Proxy(host, port, _basic(login) if login else "")


def _basic(login: str) -> str:
    """RFC 7617."""
    user, _, password = login.partition(":")
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


class EnvironmentProxies(msgspec.Struct, frozen=True):
    """What the environment says. `http` and `https` are URLs, empty where there is no proxy."""

    http: str = ""
    https: str = ""
    exceptions: tuple[str, ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> EnvironmentProxies:
        def value(name: str) -> str:
            return environ.get(name, environ.get(name.upper(), "")).strip()

        return cls(value("http_proxy"), value("https_proxy"), tuple(re.findall(r"[^\s,]+", value("no_proxy"))))

    def proxy_for(self, url: BaseUrl) -> Proxy | None:
        """Raises ValueError, which names the variable, for a proxy that cannot be used."""
        text = self.https if url.tls else self.http
        if not text or is_loopback(url.host) or any(_excepts(entry, url) for entry in self.exceptions):
            return None
        try:
            return read_proxy(text if "://" in text else f"http://{text}")
        except ValueError as error:
            name = "HTTPS_PROXY" if url.tls else "HTTP_PROXY"
            raise ValueError(f"would be reached through {name} of the environment, which {error}") from None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _excepts(entry: str, url: BaseUrl) -> bool:
    """Whether an entry of NO_PROXY has this URL reached directly."""
    if entry == "*":
        return True
    if "/" in entry:
        return _is_in_network(url.host, entry)
    name, _, port = entry.rpartition(":")
    if port.isdigit() and name and (":" not in name or name.endswith("]")):
        if int(port) != url.port:
            return False
        entry = name
    host = entry.strip("[]").lstrip("*.").lower()
    return bool(host) and (url.host == host or url.host.endswith("." + host))


def _is_in_network(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
