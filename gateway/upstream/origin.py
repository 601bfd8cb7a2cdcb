"""Where an upstream is and how a request to it is written, as plain values and bytes.

Everything that does not change between requests is worked out once. What could smuggle a second
header or request into the first is refused: the operator's when the origin is made, a client's per request.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from gateway.core.snapshot import Upstream
from gateway.upstream.contract import Outgoing

Pairs = tuple[tuple[str, str], ...]

FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to one connection (RFC 9110, 7.6.1) or delimit a message: the wire's alone."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_METHOD = re.compile(r"[A-Z]+")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TARGET = re.compile(r"/[!-~]*")


class Origin:
    """An upstream's address and the fixed part of every request to it. Raises ValueError for a base
    URL or a header that cannot be used; the message never repeats a header's value."""

    def __init__(self, upstream: Upstream) -> None:
        try:
            url = urlsplit(upstream.base_url)
            host = url.hostname or ""
            self.host = host if host.isascii() else host.encode("idna").decode()
            self.port = url.port or _DEFAULT_PORTS.get(url.scheme, 0)
        except ValueError as error:
            raise ValueError(f"base_url of upstream {upstream.name!r} is not a URL: {error}") from None
        _refuse_unsafe(upstream, url)
        self.tls = url.scheme == "https"
        self._prefix = url.path.rstrip("/")
        self._query = url.query
        fixed = {"host": self._authority(url.scheme), "accept-encoding": "identity"}
        fixed.update({name.lower(): value for name, value in upstream.headers})
        self._fixed_names = FRAMING | fixed.keys()
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())

    def head(self, outgoing: Outgoing) -> bytes:
        """The request's head, to its empty line. The operator's headers replace the client's of the
        same name. Raises ValueError for what could be read as more than one header or request."""
        target = self._target(outgoing.path)
        headers = [(name, value) for name, value in outgoing.headers if name.lower() not in self._fixed_names]
        _refuse_smuggling(outgoing.method, target, headers)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        head = f"{outgoing.method} {target} HTTP/1.1\r\n{self._fixed}{lines}{_framing(outgoing)}\r\n"
        # A header that is not UTF-8 arrives with its bytes as surrogates and leaves as it came.
        return head.encode("utf-8", "surrogateescape")

    def _target(self, path: str) -> str:
        if not self._query:
            return self._prefix + path
        return f"{self._prefix}{path}{'&' if '?' in path else '?'}{self._query}"

    def _authority(self, scheme: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[scheme] else f"{host}:{self.port}"


def _framing(outgoing: Outgoing) -> str:
    """The line that says where the body ends (RFC 9112, section 6)."""
    rest = outgoing.rest
    if rest is None:
        return f"content-length: {len(outgoing.body)}\r\n" if outgoing.body or outgoing.method != "GET" else ""
    if rest.length is None:
        return "transfer-encoding: chunked\r\n"
    return f"content-length: {len(outgoing.body) + rest.length}\r\n"


def _refuse_unsafe(upstream: Upstream, url: SplitResult) -> None:
    """What an operator can get wrong, in words for the operator."""
    if url.scheme not in _DEFAULT_PORTS or not url.hostname:
        raise ValueError(f"base_url of upstream {upstream.name!r} must be http://host… or https://host…")
    if url.username is not None or url.fragment:
        raise ValueError(f"base_url of upstream {upstream.name!r} must have no user, password or fragment")
    if not _TARGET.fullmatch(url.path or "/") or not _TARGET.fullmatch(f"/{url.query}"):
        raise ValueError(f"base_url of upstream {upstream.name!r} must be percent-encoded")
    for name, value in upstream.headers:
        if not _NAME.fullmatch(name):
            raise ValueError(f"upstream {upstream.name!r} has a header whose name is not valid: {name!r}")
        if name.lower() in FRAMING:
            raise ValueError(f"upstream {upstream.name!r} must not set the header {name!r}: the gateway does")
        if _CONTROL.search(value):
            raise ValueError(
                f"header {name!r} of upstream {upstream.name!r} contains a line break or control character"
            )


def _refuse_smuggling(method: str, target: str, headers: list[tuple[str, str]]) -> None:
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target):
        raise ValueError(f"{method!r} {target!r} is not a request line")
    for name, value in headers:
        if not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise ValueError(f"the request's header {name!r} contains a line break or control character")
