"""What a request sent behind another one may get of it, nothing, however the bytes are cut; heads that never end."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from aiohttp.web_protocol import RequestPayloadError
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.response import Work
from gateway.runtime.turn import Turn
from gateway.web.client_request import ClientRequest
from gateway.web.http_connection import Handler, HttpConnection
from gateway.web.listener import BEGUN_PER_TURN, ClientLimits, Listener
from tests.unit.upstream.splitting import cuts, split

CHUNKED = b"POST /first HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
LATER = b"POST /later HTTP/1.1\r\nhost: g\r\ncontent-length: 2\r\n\r\n{}"
FIRST = ("/first", "host", "transfer-encoding")
SECOND = ("/later", "host", "content-length")
TRAILERS = (
    b"authorization: Bearer x",
    b"x-forwarded-for: 10.0.0.1",
    b"cookie: session=x",
    b"host: evil",
    b"content-type: a/b",
    b"upgrade: websocket",
    b"x: 0",
    b"a: b\r\nx-api-key: x",
)
HANDOVERS = (
    b"CONNECT g:443 HTTP/1.1\r\nhost: g\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: g\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: g\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\n{}",
)


class TakingClient(asyncio.Transport):
    """The client's end of a connection: takes all that is written."""

    def __init__(self, peer: object = ("127.0.0.1", 2)) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": peer})
        self.is_closed = False
        self.read = b""
        self.when_closed: Callable[[], None] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.read += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if self.when_closed is not None and not self.is_closed:
            asyncio.get_running_loop().call_soon(self.when_closed)
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def settled() -> None:
    """Wait until all that was received is answered."""
    for _ in range(10):
        await asyncio.sleep(0)


class _Connected:
    """A connection whose requests are all answered. `served` has their paths, and the names of their headers."""

    def __init__(self) -> None:
        self.served: list[tuple[str, ...]] = []
        self.client = TakingClient()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        listener = Listener(self._handle, lambda: "id", ClientLimits(1), Turn())
        self.connection: HttpConnection = listener()
        self.connection.connection_made(self.client)

    def _handle(self, request: ClientRequest) -> Work:
        return partial(self._answer, request)

    async def _answer(self, request: ClientRequest) -> None:
        while await request.content.readany():
            pass
        await self.may_answer.wait()
        self.served.append((request.path, *(name.lower() for name in request.headers)))
        self.connection.begin_answer(200, "\r\na: b", "content-length: 0\r\n", b"")

    async def receive(self, pieces: Sequence[bytes]) -> None:
        """Each piece as one read of the socket has it, and what is done about it before the next."""
        for piece in pieces:
            if not self.client.is_closed:
                self.connection.data_received(piece)
            await settled()


async def _served(*parts: Sequence[bytes]) -> _Connected:
    connected = _Connected()
    for pieces in parts:
        await connected.receive(pieces)
    connected.connection.force_close()
    connected.connection.connection_lost(None)
    await connected.receive([b""])
    return connected


@given(at=cuts, trailers=st.sampled_from(TRAILERS), before=st.sampled_from([b"", LATER]))
def test_no_trailer_reaches_the_next_request(at: list[int], trailers: bytes, before: bytes) -> None:
    chunked = before + CHUNKED + b"0\r\n" + trailers + b"\r\n\r\n"
    connected = asyncio.run(_served(split(chunked, at), [LATER]))
    assert connected.served in ([FIRST], [SECOND, FIRST], [SECOND])
    assert connected.client.is_closed


@given(at=cuts, trailers=st.sampled_from(TRAILERS), last=st.sampled_from([LATER, CHUNKED + b"0\r\n\r\n"]))
def test_no_trailer_reaches_a_request_right_behind_it(at: list[int], trailers: bytes, last: bytes) -> None:
    connected = asyncio.run(_served(split(CHUNKED + b"0\r\n" + trailers + b"\r\n\r\n" + last, at), [LATER]))
    assert connected.served in ([FIRST], [])


@pytest.mark.parametrize("handover", HANDOVERS)
@given(at=cuts, trailers=st.sampled_from(TRAILERS))
def test_nothing_is_served_behind_a_request_for_another_protocol(
    handover: bytes, at: list[int], trailers: bytes
) -> None:
    behind = CHUNKED + b"0\r\n" + trailers + b"\r\n\r\n"
    connected = asyncio.run(_served(split(handover + behind, at), [LATER]))
    assert len(connected.served) == 1
    assert connected.client.is_closed


_UPGRADE = b"host: g\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
IGNORED_UPGRADES = (
    b"GET /upgrade HTTP/1.1\r\n" + _UPGRADE + b"\r\n",
    b"POST /upgrade HTTP/1.1\r\n" + _UPGRADE + b"content-length: 6\r\n\r\n{\r\n\r\n}",
    b"\r\n\r\nGET /upgrade HTTP/1.1\r\n" + _UPGRADE + b"\r\n",
    b"POST /upgrade HTTP/1.1\r\n" + _UPGRADE + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"POST /upgrade HTTP/1.1\r\n" + _UPGRADE + b"content-length: 300000\r\n\r\n" + b"x" * 300_000,
)


@pytest.mark.parametrize("upgrade", IGNORED_UPGRADES)
async def test_a_connection_ends_where_something_is_right_behind_an_upgrade_that_is_ignored(upgrade: bytes) -> None:
    connected = _Connected()
    await connected.receive([LATER, upgrade + LATER + LATER, LATER])
    assert [path for path, *_ in connected.served] == ["/later", "/upgrade"]
    assert connected.client.is_closed


@pytest.mark.parametrize("upgrade", IGNORED_UPGRADES[:2], ids=["GET", "body"])
@pytest.mark.parametrize("before", [(), (LATER,)], ids=["first", "later"])
@given(at=cuts)
def test_a_connection_is_kept_behind_an_upgrade_that_is_ignored(
    upgrade: bytes, before: tuple[bytes, ...], at: list[int]
) -> None:
    head = upgrade.index(b"\r\n\r\n") + 4
    connected = asyncio.run(_served(before, [upgrade[:head], *split(upgrade[head:], at)], [LATER]))
    assert [path for path, *_ in connected.served] == [*("/later" for _ in before), "/upgrade", "/later"]


async def test_nothing_is_lost_behind_an_upgrade_whose_head_came_but_for_its_last_byte() -> None:
    upgrade = IGNORED_UPGRADES[1].replace(b"{\r\n\r\n}", b"{    }")
    head = upgrade.index(b"\r\n\r\n") + 3
    connected = await _served_or_closed([upgrade[:head], upgrade[head:] + LATER])
    assert [path for path, *_ in connected.served] == ["/upgrade"]
    assert connected.client.is_closed


@given(st.lists(st.sampled_from([*IGNORED_UPGRADES, LATER, CHUNKED + b"0\r\n\r\n"]), max_size=5), cuts)
def test_no_request_is_lost_on_a_connection_that_is_kept(requests: list[bytes], at: list[int]) -> None:
    connected = asyncio.run(_served_or_closed(split(b"".join(requests), at)))
    sent = [request.split()[1].decode() for request in requests]
    served = [path for path, *_ in connected.served]
    assert served == sent[: len(served)]
    assert len(served) == len(sent) or (served and connected.client.is_closed)


async def _served_or_closed(pieces: Sequence[bytes]) -> _Connected:
    connected = _Connected()
    await connected.receive([*pieces, b""])
    return connected


@given(at=cuts)
def test_a_connection_is_kept_after_chunks_without_trailers(at: list[int]) -> None:
    connected = asyncio.run(_served(split(CHUNKED + b"0\r\n\r\n", at), [LATER], split(CHUNKED + b"0\r\n\r\n", at)))
    assert connected.served == [FIRST, SECOND, FIRST]


@pytest.mark.parametrize("host", ["xn--", "xn--a", "xn--0000h", "xn--" + "a" * 70])
async def test_a_target_that_names_an_impossible_host_is_answered(host: str) -> None:
    connected = await _served([f"GET http://{host}/page HTTP/1.1\r\nhost: g\r\n\r\n".encode()])
    assert [path for path, *_ in connected.served] == ["/page"]


_BEGUN = b"GET / HTTP/1.1\r\nhost: g\r\n"
_ENDLESS = (
    [b"\r\n" * 1000] * 40,
    [b"GET " + b" " * 4000, *([b" " * 4000] * 20)],
    [_BEGUN, *(b"x-%d: %b\r\n" % (number, b"y" * 4000) for number in range(20))],
    [_BEGUN + b"x:", *([b" " * 4000] * 20)],
)


@pytest.mark.parametrize("pieces", _ENDLESS, ids=["blank lines", "spaces", "headers", "a value"])
async def test_a_head_that_does_not_end_is_refused(pieces: list[bytes]) -> None:
    connected = await _served(pieces)
    assert connected.client.read.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert connected.client.is_closed
    assert connected.served == []


@pytest.mark.parametrize("pieces", _ENDLESS, ids=["blank lines", "spaces", "headers", "a value"])
async def test_a_head_that_does_not_end_spoils_no_answer_before_it(pieces: list[bytes]) -> None:
    connected = _Connected()
    connected.may_answer.clear()
    await connected.receive([LATER, *pieces])
    assert not connected.client.is_closed
    connected.may_answer.set()
    await connected.receive([b""])
    assert connected.served == [SECOND]
    assert connected.client.is_closed


class _Handled:
    """A connection whose requests `handler` answers."""

    def __init__(self, handler: Handler) -> None:
        self.client = TakingClient()
        self.connection = Listener(handler, lambda: "id", ClientLimits(1), Turn())()
        self.connection.connection_made(self.client)


def _answer_at_once(request: ClientRequest) -> None:
    request.connection.begin_answer(401, "\r\na: b", "content-length: 0\r\n", b"")


async def test_what_waits_for_nothing_is_answered_before_the_next_bytes_are_read() -> None:
    handled = _Handled(_answer_at_once)
    handled.connection.data_received(LATER)
    assert handled.client.read.startswith(b"HTTP/1.1 401 ")
    assert handled.connection.is_idle
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_more_requests_than_the_parser_keeps_are_each_answered() -> None:
    handled = _Handled(_answer_at_once)
    handled.connection.data_received(LATER * 100)
    for _ in range(20):
        await settled()
    assert handled.client.read.count(b"HTTP/1.1 401 ") == 100


class _ManyHandled:
    """Connections of one listener, each with a request: one more than begin in a turn."""

    def __init__(self, handler: Handler) -> None:
        listener = Listener(handler, lambda: "id", ClientLimits(_MANY), Turn())
        self.clients = [TakingClient() for _ in range(_MANY)]
        self.connections: list[HttpConnection] = [listener() for _ in self.clients]
        for connection, client in zip(self.connections, self.clients, strict=True):
            connection.connection_made(client)
            connection.data_received(LATER)


_MANY = BEGUN_PER_TURN + 1


async def test_what_waits_for_its_turn_waits_without_a_task() -> None:
    begun: list[ClientRequest] = []

    def answer(request: ClientRequest) -> None:
        begun.append(request)
        _answer_at_once(request)

    handled = _ManyHandled(answer)
    assert len(begun) == _MANY - 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    handled.connections[-1].data_received(LATER)
    await settled()
    assert [client.read.count(b"HTTP/1.1 401 ") for client in handled.clients] == [1] * (_MANY - 1) + [2]
    assert all(connection.is_idle for connection in handled.connections)


@pytest.mark.parametrize("has_ended", [True, False])
async def test_a_client_that_leaves_before_its_turn_is_not_served(has_ended: bool) -> None:
    begun: list[ClientRequest] = []

    async def work() -> None:
        raise AssertionError("nobody waits for it")

    def begin(request: ClientRequest) -> Work:
        begun.append(request)
        return work

    handled = _ManyHandled(begin)
    for connection in handled.connections[:-1]:
        connection.connection_lost(None)
    if has_ended:
        handled.connections[-1].connection_lost(None)
    else:
        handled.clients[-1].close()
    await settled()
    assert len(begun) == _MANY - 1


async def test_what_is_no_http_is_answered_in_http_1_1_and_ends_the_connection() -> None:
    handled = _Handled(_answer_at_once)
    handled.connection.data_received(b"no http\r\n\r\n")
    await settled()
    assert handled.client.read.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nconnection: close\r\n" in handled.client.read
    assert handled.client.is_closed


def _fail_at_once(_request: ClientRequest) -> Work | None:
    raise KeyError("a defect")


def _fail_later(_request: ClientRequest) -> Work | None:
    async def work() -> None:
        raise KeyError("a defect")

    return work


def _answer_nothing(_request: ClientRequest) -> Work | None:
    return None


@pytest.mark.parametrize("handler", [_fail_at_once, _fail_later, _answer_nothing])
async def test_a_defect_of_a_handler_is_an_answer_and_in_the_log(
    handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    handled = _Handled(handler)
    handled.connection.data_received(LATER)
    await settled()
    assert handled.client.read.startswith(b"HTTP/1.1 500 ")
    assert b"defect" not in handled.client.read
    assert handled.client.is_closed
    assert "a request for /later failed" in caplog.text


async def test_a_defect_behind_the_beginning_of_an_answer_ends_the_connection_without_another() -> None:
    async def work(request: ClientRequest) -> None:
        request.connection.begin_answer(200, "\r\na: b", "content-length: 9\r\n", b"half")
        raise KeyError("a defect")

    handled = _Handled(lambda request: partial(work, request))
    handled.connection.data_received(LATER)
    await settled()
    assert (handled.client.read.count(b"HTTP/1.1"), handled.client.is_closed) == (1, True)


@pytest.mark.parametrize("ahead", [0, 1, 2])
async def test_the_work_for_a_client_that_leaves_at_once_begins_and_is_ended(ahead: int) -> None:
    """The handler may hold something already, which only its work gives back."""
    held: list[ClientRequest] = []
    has_gone_on = asyncio.Event()

    def handle(request: ClientRequest) -> Work:
        held.append(request)
        return partial(work, request)

    async def work(request: ClientRequest) -> None:
        try:
            if len(held) > ahead:
                await has_gone_on.wait()
            _answer_at_once(request)
        finally:
            held[held.index(request)] = None  # type: ignore[call-overload]

    handled = _Handled(handle)
    handled.connection.data_received(LATER * (ahead + 1))
    while len(held) <= ahead:
        await asyncio.sleep(0)
    handled.connection.connection_lost(None)
    await settled()
    assert held == [None] * (ahead + 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_leaves_ends_the_work_for_it() -> None:
    ended = asyncio.Event()

    async def work(_request: ClientRequest) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    handled = _Handled(lambda request: partial(work, request))
    handled.connection.data_received(LATER)
    await settled()
    handled.connection.connection_lost(None)
    await settled()
    assert ended.is_set()


async def test_the_rest_of_a_refused_body_is_taken_before_the_connection_goes_on() -> None:
    handled = _Handled(_answer_at_once)
    handled.connection.data_received(b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 6\r\n\r\nabc")
    await settled()
    assert (handled.client.read.count(b"HTTP/1.1"), handled.connection.is_idle) == (1, False)
    handled.connection.data_received(b"def" + LATER)
    await settled()
    assert (handled.client.read.count(b"HTTP/1.1"), handled.connection.is_idle) == (2, True)


def _answer_later(may_answer: asyncio.Event) -> Handler:
    async def work(request: ClientRequest) -> None:
        await may_answer.wait()
        _answer_at_once(request)

    return lambda request: partial(work, request)


async def test_of_what_is_no_http_behind_a_request_that_lasts_only_the_first_is_kept() -> None:
    may_answer = asyncio.Event()
    handled = _Handled(_answer_later(may_answer))
    handled.connection.data_received(LATER)
    for _ in range(100):
        handled.connection.data_received(b"\0" * 1000)
    assert not handled.connection.has_more
    may_answer.set()
    await settled()
    assert handled.client.read.count(b"HTTP/1.1 401 ") == handled.client.read.count(b"HTTP/1.1 400 ") == 1
    assert handled.client.is_closed


@pytest.mark.parametrize("before", [b"", LATER], ids=["of the first request", "of a request that waits"])
async def test_a_body_whose_chunks_break_ends_for_its_reader(before: bytes) -> None:
    broken = []

    async def work(request: ClientRequest) -> None:
        try:
            while await request.content.readany():
                pass
        except RequestPayloadError as error:
            broken.append(str(error))
        _answer_at_once(request)

    handled = _Handled(lambda request: partial(work, request))
    handled.connection.data_received(before + CHUNKED)
    handled.connection.data_received(b"no size\r\n")
    await settled()
    assert broken == ["Invalid character in chunk size"]
    assert handled.client.read.count(b"HTTP/1.1 401 ") == (2 if before else 1)
    assert handled.client.is_closed


async def test_heads_are_measured_one_by_one() -> None:
    request = [_BEGUN, *(b"x-%d: %b\r\n" % (number, b"y" * 4000) for number in range(8)), b"\r\n"]
    connected = await _served(*([request] * 4))
    assert len(connected.served) == 4


@pytest.mark.parametrize("received", [LATER * 3, b"no http\r\n\r\n"], ids=["requests", "no HTTP"])
async def test_a_lost_connection_is_freed_without_a_search_for_garbage(received: bytes) -> None:
    connection = Listener(_answer_later(asyncio.Event()), lambda: "id", ClientLimits(1), Turn())()
    connection.connection_made(TakingClient())
    gc.collect()
    gc.disable()
    try:
        connection.data_received(received)
        connection.connection_lost(None)
        held = weakref.ref(connection)
        del connection
        await settled()
        assert held() is None
    finally:
        gc.enable()


async def test_a_lost_connection_is_not_kept_until_its_time_for_a_head_is_over() -> None:
    connection = Listener(lambda _: None, lambda: "id", ClientLimits(1), Turn())()
    connection.connection_made(TakingClient())
    connection.connection_lost(None)
    held = weakref.ref(connection)
    del connection
    await settled()
    gc.collect()
    assert held() is None


@pytest.mark.parametrize(
    ("peer", "address"),
    [(("127.0.0.1", 2), "127.0.0.1"), (("::ffff:10.0.0.1", 2, 0, 0), "10.0.0.1"), ("", ""), (None, "")],
    ids=["IPv4", "IPv4 in IPv6", "a Unix socket", "none"],
)
async def test_the_address_of_a_client_is_written_as_addresses_usually_are(peer: object, address: str) -> None:
    connection = Listener(lambda _: None, lambda: "id", ClientLimits(1), Turn())()
    connection.connection_made(TakingClient(peer))
    assert connection.remote == address


WAYS = ("answer", "hold", "write", "write_held", "turn")


class _Writing:
    """A connection, and another of the same listener, by whose answers turns have begun already."""

    def __init__(self) -> None:
        listener = Listener(_answer_at_once, lambda: "id", ClientLimits(2), Turn())
        self.client, self.other = TakingClient(), TakingClient()
        self.connection, other = listener(), listener()
        self.connection.connection_made(self.client)
        other.connection_made(self.other)
        other.data_received(LATER)

    async def write(self, way: str, data: bytes) -> None:
        connection = self.connection
        if way == "answer":
            connection.turn.write(connection, data)
        elif way == "hold":
            connection.turn.hold(connection, data)
        elif way == "write":
            connection.write(data)
        elif way == "write_held":
            connection.write_held()
        else:
            await asyncio.sleep(0)


async def _written(ways: list[str]) -> tuple[bytes, bytes]:
    """What was written in these ways, and what the client has when its connection is closed."""
    writing, pieces = _Writing(), [b"%d " % number for number in range(len(ways))]
    for way, piece in zip(ways, pieces, strict=True):
        await writing.write(way, piece)
    writing.connection.force_close()
    await settled()
    return b"".join(piece for way, piece in zip(ways, pieces, strict=True) if way in WAYS[:3]), writing.client.read


@given(ways=st.lists(st.sampled_from(WAYS), max_size=12))
def test_a_client_gets_all_in_the_order_in_which_it_was_written(ways: list[str]) -> None:
    written, got = asyncio.run(_written(ways))
    assert got == written


async def test_what_is_held_for_a_client_that_has_left_is_dropped() -> None:
    writing = _Writing()
    await writing.write("hold", b"1")
    writing.client.close()
    writing.connection.connection_lost(None)
    await settled()
    assert writing.client.read == b""


async def test_answers_of_one_turn_are_written_together_at_its_end() -> None:
    writing = _Writing()
    writing.connection.data_received(LATER)
    assert writing.other.read
    assert not writing.client.read
    await asyncio.sleep(0)
    assert writing.client.read.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("pieces", _ENDLESS, ids=["blank lines", "spaces", "headers", "a value"])
async def test_a_head_that_does_not_end_is_refused_behind_an_answer_of_its_turn(pieces: list[bytes]) -> None:
    writing = _Writing()
    for piece in (LATER, *pieces):
        if not writing.client.is_closed:
            writing.connection.data_received(piece)
    assert writing.client.is_closed
    heads = [line for line in writing.client.read.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert heads == [b"HTTP/1.1 401 Unauthorized", b"HTTP/1.1 400 Bad Request"]


async def test_requests_that_wait_for_their_turn_are_answered_before_their_listener_closes() -> None:
    listener = Listener(_answer_at_once, lambda: "id", ClientLimits(100), Turn())
    clients = [TakingClient() for _ in range(100)]
    for client in clients:
        connection = listener()
        connection.connection_made(client)
        connection.data_received(LATER)
        client.when_closed = partial(connection.connection_lost, None)
    await listener.close()
    assert [client.read[:13] for client in clients] == [b"HTTP/1.1 401 "] * 100
