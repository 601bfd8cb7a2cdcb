"""Where a store's URL leads: one server, the master that sentinels name, or the nodes of a cluster.

`redis://` · `rediss://` (TLS) · `unix://` · `redis+sentinel://h1:p1,h2:p2/name[/db]` · `redis+cluster://h1:p1,h2:p2`,
and the last two with `rediss+`. Options follow as a query: those of OPTIONS, files of certificates first.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gateway.store.in_redis.line import Dial

Node = tuple[str, int]

OPTIONS = {
    "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs",
    "sentinel_username", "sentinel_password",
}  # fmt: skip

_CONNECT_S = 10.0
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_PORTS = {"sentinel": 26379}


class Address(msgspec.Struct, frozen=True):
    """`kind` is single, sentinel or cluster; `service` is the master's name among the sentinels."""

    kind: str
    tls: bool = False
    nodes: tuple[Node, ...] = ()
    path: str = ""
    service: str = ""
    login: dict[str, Any] = {}
    sentinel_login: dict[str, Any] = {}
    tls_options: dict[str, Any] = {}

    def dial(self, node: Node) -> Dial:
        """How to reach one server."""

        async def connect() -> AbstractConnection:
            return await self._connect(node, self.login)

        return connect

    def dial_master(self) -> Dial:
        """How to reach the master that the sentinels name now, or the only server there is."""
        return self._dial_named if self.kind == "sentinel" else self.dial(self.nodes[0] if self.nodes else ("", 0))

    async def _dial_named(self) -> AbstractConnection:
        trouble: Exception = RedisConnectionError("there is no sentinel to ask")
        for node in self.nodes:
            try:
                sentinel = await self._connect(node, self.sentinel_login)
                try:
                    await sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
                    found = await sentinel.read_response()
                finally:
                    await sentinel.disconnect(nowait=True)
            except (RedisError, OSError) as error:
                trouble = error
                continue
            if found is not None:
                return await self._connect((found[0].decode(), int(found[1])), self.login)
            trouble = RedisConnectionError(f"the sentinels know no master {self.service!r}")
        raise trouble

    async def _connect(self, node: Node, login: dict[str, Any]) -> AbstractConnection:
        """A connection, logged in. RESP2 has all that is needed, and servers of any age speak it."""
        given: dict[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": _CONNECT_S, **login}
        given["driver_info"] = None
        connection: AbstractConnection
        if self.path:
            connection = UnixDomainSocketConnection(path=self.path, **given)
        elif self.tls:
            connection = SSLConnection(host=node[0], port=node[1], **self.tls_options, **given)
        else:
            connection = Connection(host=node[0], port=node[1], **given)
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection


def parse_address(url: str) -> Address:
    """Raises ValueError, saying what is wrong without repeating a password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{known}://' for known in _SCHEMES)}")
    rest, _, query = rest.partition("?")
    options = dict(parse_qsl(query))
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise ValueError(f"has the unknown option {unknown[0]!r}; there are {', '.join(sorted(OPTIONS))}")
    account, at, place = rest.rpartition("@")
    hosts, _, path = place.partition("/")
    login = _login(account) if at else {}
    kind = scheme.partition("+")[2] or "single"
    address = Address(
        kind=kind,
        tls=scheme.startswith("rediss"),
        nodes=() if scheme == "unix" else _nodes(hosts, _PORTS.get(kind, 6379)),
        path="/" + unquote(path) if scheme == "unix" else "",
        login=login,
        sentinel_login=_sentinel_login(options),
        tls_options=_tls_options(options),
    )
    return _with_path(address, "" if scheme == "unix" else path)


def _with_path(address: Address, path: str) -> Address:
    """What follows the hosts: the number of a database, for sentinels the master's name before it."""
    service, database = "", path
    if address.kind == "sentinel":
        service, _, database = path.partition("/")
        if not service:
            raise ValueError("needs the name of the master after the sentinels, such as /mymaster")
    if database and (address.kind == "cluster" or not database.isdigit()):
        raise ValueError(f"ends in {database!r}, which is not the number of a database")
    login = address.login | ({"db": int(database)} if database else {})
    return msgspec.structs.replace(address, service=unquote(service), login=login)


def _nodes(hosts: str, port: int) -> tuple[Node, ...]:
    return tuple(_node(host, port) for host in hosts.split(",")) if hosts else (("localhost", port),)


def _node(text: str, port: int) -> Node:
    host, _, given = text.rpartition(":") if text.rpartition(":")[2].isdigit() else (text, "", "")
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise ValueError(f"names no host in {text!r}")
    return host, int(given) if given else port


def _login(account: str) -> dict[str, Any]:
    username, _, password = account.partition(":")
    return {name: unquote(value) for name, value in (("username", username), ("password", password)) if value}


def _sentinel_login(options: dict[str, str]) -> dict[str, Any]:
    named = {"sentinel_username": "username", "sentinel_password": "password"}
    return {named[name]: value for name, value in options.items() if name in named}


def _tls_options(options: dict[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if "ssl_check_hostname" in given:
        given["ssl_check_hostname"] = given["ssl_check_hostname"].lower() in ("true", "yes", "1")
    return given
