"""Where an upstream is, how a request to it begins, and how a connection to it is opened: name, address, TCP, TLS.

With a forward proxy, name, address and TCP are the proxy's. A request in plain HTTP then has its whole URL (RFC 9112,
3.2.2) and the proxy's credential. One under TLS goes through a tunnel that CONNECT opens (RFC 9110, 9.3.6), and the
proxy sees nothing of it.

`UpstreamOrigin` has what does not change between requests. What could smuggle a second header or request into the first
is refused: the operator's text when the origin is made, a caller's for each request.

Addresses of both families race (RFC 8305, by aiohappyeyeballs: uvloop's own connector tries one after the other, so
that a dead IPv6 route would cost the whole connect timeout).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

import aiohappyeyeballs

from gateway.core.header_rules import REMEMBERED_LINES, HeaderLines
from gateway.core.http_syntax import (
    RESERVED_HEADERS,
    BaseUrl,
    has_control,
    is_header_name,
    is_request_line,
    operator_header_fault,
    read_base_url,
)
from gateway.core.proxies import Proxy
from gateway.core.snapshot import Upstream
from gateway.runtime.name_lookup import LookupFailed, NameLookups
from gateway.runtime.tasks import BackgroundTasks
from gateway.upstream.contract import UpstreamRequest

HEAD_START_SECONDS = 0.25
"""What the preferred address gets before the next one joins (RFC 8305, section 5)."""

TUNNEL_HEAD_MAX = 16_384
"""Bytes of a proxy's answer to CONNECT."""

_REMEMBERED = 256
"""How many beginnings of requests an origin remembers, each for a path and a set of headers' names. Clients send the
same few dozen; what is remembered must stay bounded."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class UpstreamOrigin:
    """An upstream's address and the fixed part of every request to it. Raises ValueError for a base
    URL or a header that cannot be used; the message never repeats a header's value."""

    def __init__(self, upstream: Upstream) -> None:
        try:
            url = read_base_url(upstream.base_url)
        except ValueError as error:
            raise ValueError(f"base_url of upstream {upstream.name!r} {error}") from None
        for name, value in (*upstream.headers, *upstream.other_headers):
            if fault := operator_header_fault(name, value):
                raise ValueError(f"header {name!r} of upstream {upstream.name!r} {fault}")
        self.host = url.host
        self.port = url.port
        self.tls = url.tls
        self.proxy = upstream.proxy
        self.tunnel_request = _tunnel_request(url, upstream.proxy) if url.tls and upstream.proxy is not None else b""
        """What has the proxy open a tunnel; empty where none is needed."""
        self._prefix = url.path
        self._query = "&".join(part for part in (url.query, upstream.query) if part)
        own = {"host": url.authority, "accept-encoding": "identity"}
        self._before_target = ""
        if upstream.proxy is not None and not url.tls:
            self._before_target = f"http://{url.authority}"
            if upstream.proxy.authorization:
                own["proxy-authorization"] = upstream.proxy.authorization
        self._fixed = _FixedHeaders(own, upstream.headers)
        self._other_fixed = self._fixed
        if upstream.other_dialect is not None:
            self._other_fixed = _FixedHeaders(own, upstream.other_headers)
        self._remembered_beginning = lru_cache(_REMEMBERED)(self._beginning)

    def head(self, request: UpstreamRequest) -> bytes:
        """The request's head, to its empty line. The operator's headers replace the caller's of the
        same name. Raises ValueError for what could be read as more than one header or request."""
        other, headers = request.takes_other_headers, request.headers
        names, values = headers.names, headers.values
        # What can be printed has no control character, which is seen in a moment. The rule is for all else.
        if not "".join(values).isprintable():
            (self._other_fixed if other else self._fixed).refuse_control(headers)
        beginning = self._remembered_beginning if len(names) <= REMEMBERED_LINES else self._beginning
        begun = beginning(request.method, request.base_path, request.path, request.query, other, names)
        # Where the body ends (RFC 9112, section 6).
        rest, size = request.rest, len(request.body)
        if rest is None:
            framing = f"content-length: {size}\r\n" if size or request.method != "GET" else ""
        elif rest.length is None:
            framing = "transfer-encoding: chunked\r\n"
        else:
            framing = f"content-length: {size + rest.length}\r\n"
        # A header that is not UTF-8 arrives with its bytes as surrogates and leaves as it came.
        return f"{begun % values}{framing}\r\n".encode("utf-8", "surrogateescape")

    def _beginning(
        self, method: str, base_path: str | None, path: str, query: str, other: bool, names: tuple[str, ...]
    ) -> str:
        """The request's line and those of its headers, into which the values of the caller's are formatted."""
        fixed = self._other_fixed if other else self._fixed
        begun = self._request_line(method, base_path, path, query) + fixed.lines
        return begun.replace("%", "%%") + fixed.template(names)

    def _request_line(self, method: str, base_path: str | None, path: str, query: str) -> str:
        target = (self._prefix if base_path is None else base_path) + path
        if queries := [part for part in (query, self._query) if part]:
            target += ("&" if "?" in target else "?") + "&".join(queries)
        if not is_request_line(method, target):
            raise ValueError(f"{method!r} {target!r} is not a request line")
        return f"{method} {self._before_target}{target} HTTP/1.1\r\n"


class _FixedHeaders:
    """Those of every request: their lines, and the names that no other line may have. The gateway's own give way to the
    operator's."""

    def __init__(self, own: Mapping[str, str], operators: Iterable[tuple[str, str]]) -> None:
        fixed = {**own, **{name.lower(): value for name, value in operators}}
        self.lines = "".join([f"{name}: {value}\r\n" for name, value in fixed.items()])
        self._names = RESERVED_HEADERS | fixed.keys()

    def template(self, names: tuple[str, ...]) -> str:
        """The lines of a caller's headers with these names, into which their values are formatted."""
        return "".join([self._line(name) for name in names])

    def refuse_control(self, headers: HeaderLines) -> None:
        """Raises ValueError for a header that is sent and has a control character."""
        if has_control("".join([value for name, value in headers.lines() if self._is_sent(name)])):
            raise ValueError("a header of the request contains a line break or control character")

    def _line(self, name: str) -> str:
        if not self._is_sent(name):
            return "%.0s"  # Nothing of the value.
        if not is_header_name(name):
            raise ValueError(f"the request's header {name!r} is not a valid name of a header")
        return f"{name.replace('%', '%%')}: %s\r\n"

    def _is_sent(self, name: str) -> bool:
        return name.lower() not in self._names


def _tunnel_request(url: BaseUrl, proxy: Proxy) -> bytes:
    host = f"[{url.host}]" if ":" in url.host else url.host
    login = f"proxy-authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    return f"CONNECT {host}:{url.port} HTTP/1.1\r\nhost: {host}:{url.port}\r\n{login}\r\n".encode()


class CannotConnect(Exception):
    """Why not, in words that reveal no address but the proxy's."""


P = TypeVar("P", bound=asyncio.BaseProtocol)


class Connector:
    """Opens connections to one origin.

    However many connect at once, one name lookup is on its way: a name server that hangs for one upstream holds up no
    other.
    """

    def __init__(self, origin: UpstreamOrigin, tls: Callable[[], ssl.SSLContext], tasks: BackgroundTasks) -> None:
        self._origin = origin
        self._tls = tls
        self._lookups = NameLookups(tasks)
        self._peer = origin if origin.proxy is None else origin.proxy

    async def connect(self, make: Callable[[], P]) -> P:
        """Raises CannotConnect."""
        tls, name = (self._tls_context(), self._origin.host) if self._origin.tls else (None, None)
        connected = await self._reach()
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(make, sock=connected, ssl=tls, server_hostname=name)
        except (OSError, RuntimeError) as error:
            raise CannotConnect(_reason(error)) from error
        return connection

    async def _reach(self) -> socket.socket:
        """A socket whose other end is the upstream, or a proxy that takes requests to it."""
        try:
            return await self._open()
        # uvloop has a RuntimeError for some addresses.
        except (OSError, RuntimeError, CannotConnect) as error:
            reason = str(error) if isinstance(error, CannotConnect) else _reason(error)
            through = "" if self._origin.proxy is None else f"its proxy {self._origin.proxy}: "
            raise CannotConnect(through + reason) from error

    async def _open(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        connected = await aiohappyeyeballs.start_connection(
            await self._lookups.addresses(self._peer.host, self._peer.port),
            happy_eyeballs_delay=HEAD_START_SECONDS,
            loop=loop,
        )
        if self._origin.tunnel_request:
            try:
                await _open_tunnel(connected, self._origin.tunnel_request)
            except BaseException:
                connected.close()
                raise
        return connected

    def _tls_context(self) -> ssl.SSLContext:
        try:
            return self._tls()
        except OSError as error:
            raise CannotConnect(f"the files of its `tls` cannot be used ({_reason(error)})") from error


async def _open_tunnel(connected: socket.socket, request: bytes) -> None:
    """Have a proxy connect the socket to the upstream. Raises CannotConnect, OSError."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connected, request)
    # Nothing follows the head: under TLS the client speaks first.
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await loop.sock_recv(connected, TUNNEL_HEAD_MAX)
        head += piece
        if not piece or len(head) > TUNNEL_HEAD_MAX:
            raise CannotConnect("it did not answer CONNECT as a proxy does")
    status = _STATUS_LINE.match(head)
    if status is None:
        raise CannotConnect("it did not answer CONNECT as a proxy does")
    if not status[1].startswith(b"2"):
        raise CannotConnect(f"it refused CONNECT with status {status[1].decode()}")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason})"
    if isinstance(error, LookupFailed):
        return "its name cannot be resolved"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "the connection failed"
