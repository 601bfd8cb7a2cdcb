"""Finds the servers of a store: at the URL's address, by sentinels, or by the slots of a cluster.

A client that asks sentinels only when a connection breaks is late: after a planned failover the old master still
accepts writes for seconds, and loses them when it becomes a replica. So `Sentinels` subscribes to the events of one
sentinel, also asks it each second, and changes to the next one if it does not answer. It connects to a new master at
once.
"""

from __future__ import annotations

import asyncio
import ssl
from binascii import crc_hqx
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway.core.store_url import Login, Node, StoreUrl
from gateway.runtime.name_lookup import LookupFailed, NameLookups
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.client import RedisNode, RedisServers, ServerClock
from gateway.store.in_redis.connection import Connect, ConnectionDown, ErrorReply, RedisStream

_SLOTS = 16_384

_SENTINEL_TIMEOUT_S = 1.0
_ASK_SENTINEL_S = 1.0
"""Between two questions to the sentinel that is listened to."""

_MASTER_CHANNELS = ("+switch-master", "+promoted-slave")
"""The second comes first, from the sentinel that leads the failover; from then on it names the new master."""

_VERIFICATION = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class RedisConnector:
    """Opens streams to the servers of one URL. `lookups` find the addresses of those that are named."""

    def __init__(self, url: StoreUrl, lookups: NameLookups) -> None:
        self._url = url
        self._lookups = lookups

    async def open(self, node: Node) -> RedisStream:
        """To a server that keeps data, logged in. Raises OSError, ErrorReply, ConnectionDown."""
        return await self._open(node, self._url.login, self._url.database)

    async def open_sentinel(self, node: Node, on_message: Callable[[Any], None] | None = None) -> RedisStream:
        """Raises OSError, ErrorReply, ConnectionDown."""
        return await self._open(node, self._url.sentinel_login, 0, on_message)

    def to(self, node: Node) -> Connect:
        async def connect() -> RedisStream:
            return await self.open(node)

        return connect

    async def _open(
        self, node: Node, login: Login, database: int, on_message: Callable[[Any], None] | None = None
    ) -> RedisStream:
        """RESP2 has all that is needed, and servers of any age speak it."""
        stream = await self._reach(node, lambda: RedisStream(on_message))
        try:
            if login.username:
                await stream.ask(("AUTH", login.username, login.password))
            elif login.password:
                await stream.ask(("AUTH", login.password))
            if database:
                await stream.ask(("SELECT", database))
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _reach(self, node: Node, make: Callable[[], RedisStream]) -> RedisStream:
        """Tries each address of the node in turn. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._url.path:
            _, stream = await loop.create_unix_connection(make, self._url.path)
            return stream
        host, port = node
        context, name = (_tls_context(dict(self._url.tls_options)), host) if self._url.tls else (None, None)
        trouble: OSError = LookupFailed("has no address")
        for *_, address in await self._lookups.addresses(host, port):
            try:
                _, stream = await loop.create_connection(make, address[0], port, ssl=context, server_hostname=name)
            except OSError as error:
                trouble = error
            else:
                return stream
        raise trouble


def servers_of(url: StoreUrl, timeout_s: float, tasks: BackgroundTasks) -> RedisServers:
    connector = RedisConnector(url, NameLookups(tasks))
    if url.kind == "cluster":
        return Cluster(connector, url.nodes, timeout_s, tasks)
    if url.kind == "sentinel":
        return Sentinels(connector, url, timeout_s, tasks)
    return OneServer(RedisNode(connector.to((url.nodes or (("", 0),))[0]), timeout_s, tasks))


class OneServer:
    by_slot = False

    def __init__(self, node: RedisNode) -> None:
        self._node = node

    def node_of(self, key: str) -> RedisNode:
        return self._node

    async def discover(self) -> None:
        """There is only one."""

    def clock_of(self, key: str) -> ServerClock:
        return self._node.clock

    def moved(self, error: ErrorReply) -> RedisNode:
        raise ErrorReply("it is a node of a cluster; store.url must begin with redis+cluster://")

    def trouble(self) -> str | None:
        return self._node.trouble

    def close(self) -> None:
        self._node.close()


class Sentinels(OneServer):
    """The master that the sentinels name at the moment."""

    def __init__(self, connector: RedisConnector, url: StoreUrl, timeout_s: float, tasks: BackgroundTasks) -> None:
        super().__init__(RedisNode(self._connect, timeout_s, tasks))
        self._connector = connector
        self._nodes = url.nodes
        self._service = url.service
        self._tasks = tasks
        self._following: asyncio.Task[None] | None = None
        self._named: Node | None = None
        """The master by the sentinel that is listened to; None while none answers."""
        self._used: Node | None = None

    def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
        super().close()

    async def _connect(self) -> RedisStream:
        """Raises OSError, ErrorReply, ConnectionDown."""
        if self._following is None:
            self._following = self._tasks.keep_running("follow the sentinels", self._follow)
        self._used = self._named or await self._ask_all()
        return await self._connector.open(self._used)

    async def _ask_all(self) -> Node:
        """The first answer. Raises OSError, ErrorReply, ConnectionDown."""
        trouble: Exception = ConnectionDown("there is no sentinel to ask")
        for node in self._nodes:
            try:
                return await self._ask_one(node)
            except (OSError, ErrorReply, ConnectionDown) as error:
                trouble = error
        raise trouble

    async def _ask_one(self, node: Node) -> Node:
        async with asyncio.timeout(_SENTINEL_TIMEOUT_S):
            stream = await self._connector.open_sentinel(node)
            try:
                return await self._master_by(stream)
            finally:
                stream.abort()

    async def _master_by(self, stream: RedisStream) -> Node:
        [found] = await stream.ask(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        if not found:
            raise ConnectionDown(f"the sentinels know no master {self._service!r}")
        return found[0].decode(), int(found[1])

    async def _follow(self) -> None:
        while True:
            for node in self._nodes:
                try:
                    await self._listen(node)
                except (OSError, ErrorReply, ConnectionDown):
                    self._named = None
            await asyncio.sleep(_ASK_SENTINEL_S)

    async def _listen(self, node: Node) -> None:
        """For as long as this sentinel answers. Raises OSError, ErrorReply, ConnectionDown."""
        event = asyncio.Event()
        async with asyncio.timeout(_SENTINEL_TIMEOUT_S):
            asked = await self._connector.open_sentinel(node)
            try:
                events = await self._connector.open_sentinel(node, lambda _message: event.set())
            except BaseException:
                asked.abort()
                raise
        try:
            # One reply to each channel; what comes behind them are messages.
            async with asyncio.timeout(_SENTINEL_TIMEOUT_S):
                # A user who may not subscribe still may ask.
                with suppress(ErrorReply):
                    for channel in _MASTER_CHANNELS:
                        await events.ask(("SUBSCRIBE", channel))
            while not events.ended.done():
                async with asyncio.timeout(_SENTINEL_TIMEOUT_S):
                    self._name(await self._master_by(asked))
                event.clear()
                try:
                    async with asyncio.timeout(_ASK_SENTINEL_S):
                        await event.wait()
                except TimeoutError:
                    continue
        finally:
            asked.abort()
            events.abort()

    def _name(self, master: Node) -> None:
        self._named = master
        if self._used is not None and self._used != master:
            self._used = master
            self._node.reconnect("is no longer the master")


class Cluster:
    """The map of slots is asked of any node, and asked again when a node points elsewhere or is lost."""

    by_slot = True

    def __init__(
        self, connector: RedisConnector, seeds: tuple[Node, ...], timeout_s: float, tasks: BackgroundTasks
    ) -> None:
        self._connector = connector
        self._seeds = seeds
        self._timeout_s = timeout_s
        self._tasks = tasks
        self._nodes: dict[Node, RedisNode] = {}
        self._owners: list[Node | None] = []
        self._unknown = ServerClock()
        """Of a server that is not known yet."""
        self._asking: asyncio.Task[None] | None = None

    def node_of(self, key: str) -> RedisNode | None:
        if not self._owners:
            return None
        slot = slot_of(key)
        owner = self._owners[slot]
        if owner is None:
            raise ConnectionDown(f"has no node for slot {slot}")
        node = self._node(owner)
        if node.trouble is not None:
            self._discover_soon()
        return node

    def clock_of(self, key: str) -> ServerClock:
        owner = self._owners[slot_of(key)] if self._owners else None
        return self._node(owner).clock if owner is not None else self._unknown

    def moved(self, error: ErrorReply) -> RedisNode:
        """By `MOVED slot host:port` or `ASK slot host:port`."""
        if error.code == "CROSSSLOT":
            raise error
        code, slot, place = str(error).split()[:3]
        host, _, port = place.rpartition(":")
        node = (host, int(port))
        if code == "MOVED":
            if self._owners:
                self._owners[int(slot)] = node
            self._discover_soon()
        return self._node(node)

    def trouble(self) -> str | None:
        troubles = [self._node(node).trouble for node in {owner for owner in self._owners if owner}]
        return next((trouble for trouble in troubles if trouble), None)

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        for node in self._nodes.values():
            node.close()

    async def discover(self) -> None:
        """Ask the nodes, those that answer first, whose slots are whose. Raises ConnectionDown where none answers."""
        nodes = list(dict.fromkeys((*self._nodes, *self._seeds)))
        nodes.sort(key=lambda node: self._node(node).trouble is not None)
        for node in nodes:
            try:
                slots = await self._node(node).background.call(("CLUSTER", "SLOTS"))
            except (ConnectionDown, ErrorReply):
                continue
            self._assign(slots, node)
            return
        raise ConnectionDown("has no node that answers")

    def _node(self, node: Node) -> RedisNode:
        known = self._nodes.get(node)
        if known is None:
            known = self._nodes[node] = RedisNode(self._connector.to(node), self._timeout_s, self._tasks)
        return known

    def _discover_soon(self) -> None:
        """Beside the calls, one at a time."""
        if self._asking is None or self._asking.done():
            self._asking = self._tasks.start("discover the cluster", self._discover_again())

    async def _discover_again(self) -> None:
        try:
            await self.discover()
        except ConnectionDown:
            return

    def _assign(self, slots: Any, asked: Node) -> None:
        owners: list[Node | None] = [None] * _SLOTS
        for first, last, master, *_ in slots:
            # A node that does not know its own name leaves it empty.
            node = (master[0].decode() or asked[0], int(master[1]))
            owners[first : last + 1] = [node] * (last - first + 1)
        self._owners = owners
        for gone in set(self._nodes) - set(owners):
            self._nodes.pop(gone).close()


def slot_of(key: str) -> int:
    """By the part in the first braces, if it is not empty (Redis' cluster specification)."""
    start = key.find("{")
    end = key.find("}", start + 2) if start >= 0 and key[start + 1 : start + 2] != "}" else -1
    tag = key[start + 1 : end] if end > 0 else key
    return crc_hqx(tag.encode(), 0) % _SLOTS


def _tls_context(options: dict[str, str]) -> ssl.SSLContext:
    """Made for each connection: certificates may have been replaced. Raises OSError."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    verification = _VERIFICATION.get(options.get("ssl_cert_reqs", "required"))
    if verification is None:
        raise OSError(f"ssl_cert_reqs is none of {', '.join(_VERIFICATION)}")
    check_hostname = options.get("ssl_check_hostname", "true").lower() in ("true", "yes", "1")
    context.check_hostname = check_hostname and verification is not ssl.CERT_NONE
    context.verify_mode = verification
    return context
