"""Reads the URL of a store: memory, one server, the master that sentinels name, or a cluster.

`memory://` · `redis://[user:password@]host[:port][/db]` · `rediss://` (TLS) · `unix:///path` ·
`redis+sentinel://h1:p1,h2:p2/name[/db]` · `redis+cluster://h1:p1,h2:p2`, the last two also `rediss+`.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import msgspec

from gateway.core.http_syntax import is_host

Node = tuple[str, int]

IN_MEMORY = "memory://"
"""The store of one process, which keeps everything in its memory."""

TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs")
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")

_KINDS = {
    "memory": "memory",
    "redis": "single",
    "rediss": "single",
    "unix": "single",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}

SCHEMES = tuple(f"{scheme}://" for scheme in _KINDS)


class Login(msgspec.Struct, frozen=True):
    username: str = ""
    password: str = ""


class StoreUrl(msgspec.Struct, frozen=True):
    """`kind` is memory, single, sentinel or cluster; `path` is that of a unix socket; `service` is the master's
    name among the sentinels; `tls_options` are those of TLS_OPTIONS, as written."""

    kind: str
    tls: bool = False
    nodes: tuple[Node, ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    login: Login = Login()
    sentinel_login: Login = Login()
    tls_options: tuple[tuple[str, str], ...] = ()


def read_store_url(url: str) -> StoreUrl:
    """Raises ValueError: what is wrong, never its contents."""
    scheme, separator, rest = url.partition("://")
    kind = _KINDS.get(scheme)
    if kind is None or not separator:
        raise ValueError(f"must begin with one of {', '.join(SCHEMES)}")
    rest, _, query = rest.partition("?")
    options = _options(query)
    account, _, place = rest.rpartition("@")
    common = StoreUrl(
        kind=kind,
        tls=scheme.startswith("rediss"),
        login=_login(account),
        sentinel_login=Login(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
        tls_options=tuple((name, options[name]) for name in TLS_OPTIONS if name in options),
    )
    if kind == "memory":
        if url != IN_MEMORY:
            raise ValueError(f"must be {IN_MEMORY} and no more")
        return common
    if scheme == "unix":
        return msgspec.structs.replace(common, path=unquote(place))
    hosts, _, path = place.partition("/")
    service, database = _path(kind, path)
    nodes = _nodes(hosts, 26379 if kind == "sentinel" else 6379)
    if kind == "single" and len(nodes) > 1:
        raise ValueError("names several hosts; those of a cluster follow redis+cluster://, sentinels redis+sentinel://")
    return msgspec.structs.replace(common, nodes=nodes, service=service, database=database)


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query))
    known = (*TLS_OPTIONS, *SENTINEL_OPTIONS)
    if not set(options) <= set(known):
        raise ValueError(f"has an unknown option after `?`; there are {', '.join(known)}")
    return options


def _path(kind: str, path: str) -> tuple[str, int]:
    """(the master's name, the database)"""
    service, database = "", path
    if kind == "sentinel":
        service, _, database = path.partition("/")
        if not service:
            raise ValueError("needs the name of the master after the sentinels, such as /mymaster")
    if database and kind == "cluster":
        raise ValueError("must end after the hosts: a cluster has one database")
    if database and not database.isdecimal():
        raise ValueError("must end in the number of a database, such as /0, or in none")
    return unquote(service), int(database or 0)


def _nodes(hosts: str, port: int) -> tuple[Node, ...]:
    return tuple(_node(host, port) for host in hosts.split(","))


def _node(text: str, port: int) -> Node:
    host, colon, given = text.rpartition(":")
    if not colon or given.endswith("]"):
        host, given = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not is_host(host) or not given.isdecimal() or not 0 < int(given) < 65536:
        raise ValueError("needs hosts with ports, such as redis.example.com:6379 or [::1]:6379")
    return host, int(given)


def _login(account: str) -> Login:
    username, _, password = account.partition(":")
    return Login(unquote(username), unquote(password))
