"""How to reach what a store's URL names: one server, or the master that sentinels name at the moment."""

from __future__ import annotations

from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gateway.core.store_url import Login, Node, StoreUrl
from gateway.store.in_redis.line import Dial

_CONNECT_S = 10.0
"""Longer than anybody waits: a line gives up before."""


class Address:
    def __init__(self, url: StoreUrl) -> None:
        self.nodes = url.nodes
        self._url = url

    def dial(self, node: Node) -> Dial:
        """To one server."""

        async def connect() -> AbstractConnection:
            return await self._connect(node, self._url.login, self._url.database)

        return connect

    def dial_master(self) -> Dial:
        """To the master that the sentinels name, or to the only server there is."""
        return self._connect_to_named if self._url.kind == "sentinel" else self.dial((self.nodes or (("", 0),))[0])

    async def _connect_to_named(self) -> AbstractConnection:
        trouble: Exception = RedisConnectionError("there is no sentinel to ask")
        for node in self.nodes:
            try:
                found = await self._named_by(node)
            except (RedisError, OSError) as error:
                trouble = error
                continue
            if found is not None:
                return await self._connect(found, self._url.login, self._url.database)
            trouble = RedisConnectionError(f"the sentinels know no master {self._url.service!r}")
        raise trouble

    async def _named_by(self, node: Node) -> Node | None:
        sentinel = await self._connect(node, self._url.sentinel_login, 0)
        try:
            await sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service)
            found = await sentinel.read_response()
        finally:
            await sentinel.disconnect(nowait=True)
        return (found[0].decode(), int(found[1])) if found else None

    async def _connect(self, node: Node, login: Login, database: int) -> AbstractConnection:
        """A connection, logged in. RESP2 has all that is needed, and servers of any age speak it."""
        given: dict[str, Any] = {
            "protocol": 2,
            "db": database,
            "username": login.username or None,
            "password": login.password or None,
            "socket_timeout": None,
            "socket_connect_timeout": _CONNECT_S,
            "driver_info": None,
        }
        connection: AbstractConnection
        if self._url.path:
            connection = UnixDomainSocketConnection(path=self._url.path, **given)
        elif self._url.tls:
            connection = SSLConnection(host=node[0], port=node[1], **_tls(self._url), **given)
        else:
            connection = Connection(host=node[0], port=node[1], **given)
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection


def _tls(url: StoreUrl) -> dict[str, Any]:
    given: dict[str, Any] = dict(url.tls_options)
    if "ssl_check_hostname" in given:
        given["ssl_check_hostname"] = given["ssl_check_hostname"].lower() in ("true", "yes", "1")
    return given
