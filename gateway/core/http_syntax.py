"""What an HTTP/1.1 request may contain (RFC 9110, RFC 9112). The check of a configuration and the client that sends use
the same rules, so that the client can send whatever the check accepts.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to one connection (RFC 9110, 7.6.1), delimit a message or name its target: the gateway's own."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_METHOD = re.compile(r"[A-Z]+")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TARGET = re.compile(r"/[!-~]*")
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?")
_HOST_MAX = 254
"""A name of 253 characters, and the dot of the root behind it."""


class BaseUrl(NamedTuple):
    """Where an upstream is. `host` is ASCII; `authority` is host and port as the Host header has them; `path` has no
    slash at its end."""

    tls: bool
    host: str
    port: int
    authority: str
    path: str
    query: str


def is_host_name(text: str) -> bool:
    """Whether it has the form of a name that can be looked up (RFC 1123, section 2.1). Names of containers have
    underscores. For a name of another form, the look-up of the system raises UnicodeError."""
    return len(text) <= _HOST_MAX and _HOST.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Whether it is a name that can be looked up, or an address, which has no brackets here."""
    return is_address(text) if ":" in text else is_host_name(text)


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def read_base_url(text: str) -> BaseUrl:
    """Raises ValueError, with what follows the setting's name."""
    try:
        url = urlsplit(text)
        host = url.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
        port = url.port or _DEFAULT_PORTS.get(url.scheme, 0)
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
    if url.scheme not in _DEFAULT_PORTS or not is_host(host):
        raise ValueError("must be http://host… or https://host…")
    if url.username is not None or url.fragment:
        raise ValueError("must have no user, password or fragment")
    if not all(_TARGET.fullmatch(part) for part in (f"/{host}", url.path or "/", f"/{url.query}")):
        raise ValueError("must be percent-encoded")
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port == _DEFAULT_PORTS[url.scheme] else f"{bracketed}:{port}"
    return BaseUrl(url.scheme == "https", host, port, authority, url.path.rstrip("/"), url.query)


def operator_header_fault(name: str, value: str) -> str:
    """Why an operator may not send this header, as the end of a sentence that begins with its name; empty if it may.
    The value is never repeated."""
    if name.lower() in RESERVED_HEADERS:
        return "is a header that the gateway sets itself"
    return header_fault(name, value)


def header_fault(name: str, value: str) -> str:
    """Why this could be read as anything but one header; empty: it cannot."""
    if not is_header_name(name):
        return "is not a valid name of a header"
    return "contains a line break or control character" if has_control(value) else ""


def is_header_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def has_control(value: str) -> bool:
    """Whether this cannot be the value of a header. Tabs are allowed in one."""
    return _CONTROL.search(value) is not None


def is_request_line(method: str, target: str) -> bool:
    return bool(_METHOD.fullmatch(method) and _TARGET.fullmatch(target))
