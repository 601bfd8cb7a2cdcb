"""A connection over a socket that exists only here: what the event loop would say to it, the test says."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from itertools import pairwise
from time import monotonic, sleep, thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import UpstreamBroke, UpstreamTimedOut
from gateway.core.snapshot import Timeouts, Upstream
from gateway.runtime.tasks import BackgroundTasks
from gateway.runtime.turn import PASSED_BYTES, Turn
from gateway.upstream.client_options import READ_BYTES, SHORT_READ_BYTES, ClientOptions, ReadBuffer, SuggestedSizes
from gateway.upstream.connection import Connection, StaleConnection
from gateway.upstream.response_stream import HELD_BYTES, ResponseStream
from tests.unit.upstream.splitting import cuts, split

STALL_S = 0.01
TEXT = b"".join(b'data: {"index":%d}\n\n' % number for number in range(60))
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"


def chunked(body: bytes, *headers: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in split(body, list(range(7, 1_000, 31))))
    return CHUNKED + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + chunks + b"0\r\n\r\n"


STREAMS = [
    chunked(TEXT),
    chunked(gzip.compress(TEXT), b"content-encoding: gzip"),
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(TEXT), TEXT),
]


def unexpected(doing: str, error: BaseException) -> None:
    raise AssertionError(doing) from error


class Descriptor:
    """Of no open file, so that the system can tell nothing about it."""

    def fileno(self) -> int:
        return 1_000_000


class Socket(asyncio.Transport):
    """Takes as much of a request as the test says and hands over what the test says."""

    def __init__(self) -> None:
        super().__init__({"socket": Descriptor()})
        self.unsent = 0
        self.written = b""
        self.is_read = True
        self.is_open = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 1

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data
        if self.unsent:
            self.get_protocol().pause_writing()

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def abort(self) -> None:
        self.is_open = False


class Shelf:
    """An owner that notes what comes back to it."""

    def __init__(self) -> None:
        self.free: list[Connection] = []
        self.may_get_unrequested = False
        self.unrequested = 0

    def released(self, connection: Connection) -> None:
        self.free.append(connection)

    def unrequested_bytes(self) -> None:
        assert self.may_get_unrequested, "the test sends nothing unrequested"
        self.unrequested += 1

    def lost(self, connection: Connection) -> None:
        assert connection.closed, "it is told last"


class Wire:
    """One connection, and the server at its other end."""

    def __init__(self, beside: Wire | None = None, **timeouts: float) -> None:
        """With the same client as the connection that it is `beside`."""
        self.socket = Socket()
        self.shelf = Shelf()
        if beside is not None:
            self._client: ClientOptions = beside._client
        else:
            self._client = ClientOptions(BackgroundTasks(unexpected), Turn(), 30, lambda upstream, was_trusted: None)
        upstream = Upstream("inducta", "http://inducta.example", timeouts=Timeouts(**timeouts))
        self.connection = Connection(upstream, self.shelf, self._client)
        self.socket.set_protocol(self.connection)
        self.connection.connection_made(self.socket)

    def may_pass_on(self, size: int) -> None:
        """So many bytes, in this turn of the event loop."""
        self._client.turn.left = size

    def hears(self) -> ResponseStream:
        return self.connection.begin(b"POST / HTTP/1.1\r\n\r\n", b"{}", None, monotonic())

    def begins(self, first: bytes) -> ResponseStream:
        answer = self.hears()
        self.says(first)
        return answer

    def says(self, data: bytes) -> None:
        for begin in range(0, len(data), READ_BYTES):
            piece = data[begin : begin + READ_BYTES]
            buffer = self.connection.get_buffer(len(piece))
            buffer[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))


def first_of(stream: bytes) -> int:
    """Where the first byte of the body has been said for certain."""
    return stream.index(b"\r\n\r\n") + 4 + 10


flags = st.lists(st.booleans(), min_size=1, max_size=20)


@given(stream=st.sampled_from(STREAMS), at=cuts, rests=flags, full=flags)
def test_any_splitting_and_any_pauses_hand_over_the_same_bytes(
    stream: bytes, at: list[int], rests: list[bool], full: list[bool]
) -> None:
    """Also where the turn of the event loop that brings a piece has passed on enough."""

    async def scenario() -> None:
        upstream = Wire()
        begin = first_of(stream)
        answer = upstream.begins(stream[:begin])
        pieces: list[bytes] = []
        paused = False

        def take(piece: bytes) -> None:
            assert not paused
            pieces.append(piece)

        answer.deliver_to(take)
        for turn, piece in enumerate(split(stream[begin:], at)):
            upstream.may_pass_on(0 if full[turn % len(full)] else PASSED_BYTES)
            upstream.says(piece)
            paused = rests[turn % len(rests)]
            (answer.pause if paused else answer.resume)()
        paused = False
        answer.resume()
        await answer.finished()
        assert b"".join(pieces) == TEXT
        assert upstream.shelf.free == [upstream.connection]
        assert upstream.socket.is_read
        assert upstream.socket.is_open
        upstream.connection.abort()

    asyncio.run(scenario())


@given(stream=st.sampled_from(STREAMS), at=cuts, cut=st.integers(1, 10_000), full=flags)
def test_wherever_it_is_cut_what_came_is_given_and_no_end(
    stream: bytes, at: list[int], cut: int, full: list[bool]
) -> None:
    async def scenario() -> None:
        upstream = Wire()
        begin = first_of(stream)
        answer = upstream.begins(stream[:begin])
        pieces: list[bytes] = []
        answer.deliver_to(pieces.append)
        rest = stream[begin:]
        said = rest[: len(rest) - 1 - cut % len(rest)]
        for turn, piece in enumerate(split(said, at)):
            upstream.may_pass_on(0 if full[turn % len(full)] else PASSED_BYTES)
            upstream.says(piece)
        upstream.connection.eof_received()
        with pytest.raises(UpstreamBroke):
            await answer.finished()
        assert TEXT.startswith(b"".join(pieces))
        if b"content-length" in stream:
            assert b"".join(pieces) == TEXT[: begin + len(said) - stream.index(TEXT)]
        assert not upstream.socket.is_open
        assert upstream.shelf.free == []

    asyncio.run(scenario())


async def test_a_piece_reaches_the_reader_before_the_socket_is_read_again() -> None:
    upstream = Wire()
    answer = upstream.begins(CHUNKED + b"\r\n1\r\na\r\n")
    pieces: list[bytes] = []
    answer.deliver_to(pieces.append)
    assert pieces == [b"a"]
    upstream.says(b"1\r\nb\r\n1\r\nc\r\n")
    assert pieces == [b"a", b"bc"]
    answer.abandon()


async def test_a_reader_before_the_first_byte_gets_the_body_and_the_head_is_read() -> None:
    upstream = Wire()
    answer = upstream.hears()
    pieces: list[bytes] = []
    answer.deliver_to(pieces.append)
    upstream.says(CHUNKED + b"\r\n1\r\na\r\n")
    assert answer.status == 200
    upstream.says(b"1\r\nb\r\n0\r\n\r\n")
    await answer.finished()
    assert b"".join(pieces) == b"ab"
    upstream.connection.abort()


async def test_a_reader_gets_nothing_more_once_it_has_left_or_its_answer_has_ended() -> None:
    for end in (b"1\r\nb\r\n0\r\n\r\n", b"no chunk"):
        upstream = Wire()
        answer = upstream.begins(CHUNKED + b"\r\n1\r\na\r\n")
        answer.deliver_to(lambda piece: None)
        upstream.says(end)
        assert upstream.connection.sink is None
        upstream.connection.abort()
    upstream = Wire()
    answer = upstream.begins(CHUNKED + b"\r\n1\r\na\r\n")
    pieces: list[bytes] = []

    def take_one(piece: bytes) -> None:
        pieces.append(piece)
        answer.abandon()

    answer.deliver_to(lambda piece: None)
    answer.deliver_to(take_one)
    upstream.says(b"1\r\nb\r\n")
    upstream.says(b"1\r\nc\r\n")
    assert pieces == [b"b"]


def test_a_short_read_is_seen_through_the_same_view_each_time() -> None:
    buffer = ReadBuffer()
    buffer.whole[:4] = b"abcd"
    for size in (0, 1, 4, SHORT_READ_BYTES - 1, SHORT_READ_BYTES, READ_BYTES):
        assert (bytes(buffer[size][:4]), len(buffer[size])) == (b"abcd"[:size], size)
    assert buffer[4] is buffer[4]
    assert len(buffer) == 4


def test_whatever_a_loop_suggests_a_read_has_the_whole_buffer_and_nothing_is_kept_for_it() -> None:
    buffer = ReadBuffer()
    sizes = SuggestedSizes(buffer)
    # -1 is asyncio's own; its TLS suggests what is still encrypted, which may be nothing.
    assert all(sizes[suggested] is buffer.whole for suggested in (-1, 0, 5, READ_BYTES, 65_536, 262_144))
    assert len(sizes) == 1


async def _next_turn_but_one() -> None:
    """When what has given way to others goes on."""
    for _ in range(2):
        await asyncio.sleep(0)


async def test_a_socket_is_read_no_more_once_enough_waits_for_a_reader() -> None:
    upstream = Wire()
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 60_000)
    await _next_turn_but_one()
    assert upstream.socket.is_read
    upstream.says(b"x" * (HELD_BYTES - 59_999))
    await _next_turn_but_one()
    assert not upstream.socket.is_read
    sizes: list[int] = []
    answer.deliver_to(lambda piece: sizes.append(len(piece)))
    while not upstream.socket.is_read:
        await asyncio.sleep(0)
    while sum(sizes) <= HELD_BYTES:
        await asyncio.sleep(0)
    assert sum(sizes) == HELD_BYTES + 1
    answer.abandon()


async def test_who_sends_at_full_speed_leaves_the_others_their_turn() -> None:
    upstream = Wire()
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 10)
    answer.deliver_to(lambda piece: None)
    upstream.says(b"x" * (READ_BYTES - 1))
    assert upstream.socket.is_read
    upstream.says(b"x" * READ_BYTES)
    assert not upstream.socket.is_read
    await _next_turn_but_one()
    assert upstream.socket.is_read
    answer.abandon()


async def test_an_answer_that_is_costly_to_pass_on_leaves_others_more_than_it_takes() -> None:
    upstream = Wire()
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 10)
    answer.deliver_to(lambda piece: None)
    answer.deliver_to(lambda piece: _work(0.01))
    upstream.says(b"x" * READ_BYTES)
    left = monotonic()
    for _ in range(10):  # What a request of another caller needs.
        await asyncio.sleep(0)
        assert not upstream.socket.is_read
    # A reader that pauses and goes on does not come before its turn.
    answer.pause()
    answer.resume()
    assert not upstream.socket.is_read
    while not upstream.socket.is_read:
        await asyncio.sleep(0)
    assert monotonic() - left >= 0.02
    answer.abandon()


async def test_a_turn_passes_on_so_much_and_the_next_ones_go_on_in_rotation() -> None:
    upstreams = [Wire()]
    upstreams += [Wire(upstreams[0]) for _ in range(199)]
    passed: list[bytes] = []
    answers = [each.begins(CHUNKED + b"\r\n1\r\na\r\n") for each in upstreams]
    await asyncio.sleep(0)
    for answer in answers:
        answer.deliver_to(lambda piece: None)
        answer.deliver_to(passed.append)
    upstreams[0].may_pass_on(PASSED_BYTES)
    for number, each in enumerate(upstreams):
        each.says(b"200\r\n%512d\r\n" % number)
    begun, counts = len(passed), []
    while len(passed) < len(upstreams):
        counts.append(len(passed))
        await asyncio.sleep(0)
    assert counts[0] == begun > 10
    # The rest at the same pace, and one more in each turn: what begins with one is done with it.
    most = PASSED_BYTES // 512 + 1
    assert all(after - before <= most for before, after in pairwise([0, *counts, len(passed)]))
    assert [int(piece) for piece in passed] == list(range(200))
    assert all(each.socket.is_read for each in upstreams)
    for answer in answers:
        answer.abandon()


async def test_what_waits_for_its_turn_holds_back_what_comes_behind_it() -> None:
    upstream = Wire()
    answer = upstream.begins(CHUNKED + b"\r\n1\r\na\r\n")
    pieces: list[bytes] = []
    answer.deliver_to(pieces.append)
    upstream.may_pass_on(0)
    upstream.says(b"1\r\nb\r\n")
    assert (pieces, upstream.socket.is_read) == ([b"a"], True)
    upstream.may_pass_on(PASSED_BYTES)
    upstream.says(b"1\r\nc\r\n")
    assert (pieces, upstream.socket.is_read) == ([b"a"], False)
    while not upstream.socket.is_read:
        await asyncio.sleep(0)
    assert pieces == [b"a", b"b", b"c"]
    upstream.says(b"1\r\nd\r\n")
    assert pieces == [b"a", b"b", b"c", b"d"]
    answer.abandon()


async def test_what_is_costly_to_pass_on_waits_longer_however_little_is_read_of_it() -> None:
    upstream = Wire()
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 10)
    sizes: list[int] = []

    def take(piece: bytes) -> None:
        sizes.append(len(piece))
        _work(0.01)

    answer.deliver_to(take)
    upstream.may_pass_on(0)
    upstream.says(b"x" * 20)
    left = monotonic()
    while len(sizes) < 2:
        await asyncio.sleep(0)
    assert sizes == [10, 20]
    assert monotonic() - left >= 0.02
    answer.abandon()


async def test_what_waits_for_its_turn_has_come_in_time_when_the_time_is_over() -> None:
    upstream = Wire(total=0.05)
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 10)
    sizes: list[int] = []
    answer.deliver_to(lambda piece: sizes.append(len(piece)))
    upstream.connection.cost_s = 1.0
    upstream.may_pass_on(0)
    upstream.says(b"x" * READ_BYTES)
    with pytest.raises(UpstreamTimedOut):
        await answer.finished()
    assert sizes == [10, READ_BYTES]


async def test_a_reader_that_fails_at_what_waited_ends_its_answer_alone() -> None:
    upstream = Wire()
    other = Wire(upstream)
    pieces: list[bytes] = []
    answers = []

    def read_number(piece: bytes) -> None:
        int(piece)

    readers: tuple[Callable[[bytes], None], ...] = (read_number, pieces.append)
    for each, reader in zip((upstream, other), readers, strict=True):
        answer = each.begins(CHUNKED + b"\r\n1\r\n0\r\n")
        answer.deliver_to(reader)
        answers.append(answer)
        each.may_pass_on(0)
        each.says(b"1\r\na\r\n")
    async with asyncio.timeout(10):  # Which turn it has depends on how long the first one took.
        while len(pieces) < 2:
            await asyncio.sleep(0)
    with pytest.raises(ValueError, match="invalid literal"):
        answers[0].end()
    assert answers[0].is_over
    assert not upstream.socket.is_open
    assert pieces == [b"0", b"a"]
    answers[1].abandon()


async def test_a_short_read_that_is_costly_to_pass_on_leaves_others_their_turn() -> None:
    upstream = Wire()
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 10)
    answer.deliver_to(lambda piece: None)
    answer.deliver_to(lambda piece: _work(0.01))
    left = monotonic()
    upstream.says(b"x" * SHORT_READ_BYTES)
    assert not upstream.socket.is_read
    while not upstream.socket.is_read:
        await asyncio.sleep(0)
    assert monotonic() - left >= 0.03
    answer.abandon()


async def test_a_time_in_which_the_process_stood_still_is_no_cost_of_an_answer() -> None:
    upstream = Wire()
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 10)
    answer.deliver_to(lambda piece: sleep(STALL_S))
    upstream.says(b"x" * READ_BYTES)
    assert not upstream.socket.is_read
    for _ in range(3):
        await asyncio.sleep(0)
    assert upstream.socket.is_read
    answer.abandon()


async def test_an_answer_that_ends_while_it_gives_way_leaves_the_next_one_nothing_to_wait_for() -> None:
    upstream = Wire()
    answer = upstream.begins(CHUNKED + b"\r\n1\r\na\r\n")
    answer.deliver_to(lambda piece: None)
    answer.deliver_to(lambda piece: _work(0.01))
    upstream.says(b"800\r\n" + b"x" * 2048 + b"\r\n0\r\n\r\n")
    assert answer.is_over
    assert upstream.shelf.free == [upstream.connection]
    assert upstream.socket.is_read
    upstream.socket.written = b""
    answer = upstream.hears()
    while not upstream.socket.written:
        await asyncio.sleep(0)
    upstream.says(CHUNKED + b"\r\n1\r\na\r\n")
    assert upstream.socket.is_read
    answer.deliver_to(lambda piece: None)
    upstream.may_pass_on(0)
    upstream.says(b"1\r\nb\r\n0\r\n\r\n")
    for _ in range(3):
        await asyncio.sleep(0)
    assert answer.is_over
    upstream.connection.abort()


async def test_an_upstream_that_must_wait_for_its_turn_is_not_timed_out() -> None:
    upstream = Wire(idle=0.02)
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 10)
    answer.deliver_to(lambda piece: _work(0.02))
    upstream.says(b"x" * READ_BYTES)
    while not upstream.socket.is_read:
        await asyncio.sleep(0)
    upstream.says(b"x" * 10)
    assert not answer.is_over
    answer.abandon()


def _work(seconds: float) -> None:
    end = thread_time() + seconds
    while thread_time() < end:
        pass


async def test_a_reader_that_pauses_in_a_full_read_is_not_read_on_for_in_the_next_turn() -> None:
    upstream = Wire()
    answer = upstream.begins(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 10)
    answer.deliver_to(lambda piece: None)
    upstream.says(b"x" * READ_BYTES)
    answer.pause()
    await asyncio.sleep(0)
    assert not upstream.socket.is_read
    answer.resume()
    await asyncio.sleep(0)
    assert upstream.socket.is_read
    answer.abandon()


async def test_a_reader_that_pauses_within_a_piece_gets_the_next_one_later() -> None:
    upstream = Wire()
    answer = upstream.begins(CHUNKED + b"\r\n1\r\na\r\n")
    pieces: list[bytes] = []

    def take(piece: bytes) -> None:
        pieces.append(piece)
        answer.pause()

    answer.deliver_to(take)
    assert not upstream.socket.is_read
    upstream.says(b"1\r\nb\r\n")
    assert pieces == [b"a"]
    answer.resume()
    assert pieces == [b"a", b"b"]
    answer.abandon()


async def test_a_reader_that_abandons_the_last_piece_leaves_nothing_to_keep() -> None:
    upstream = Wire()
    answer = upstream.begins(CHUNKED + b"\r\n1\r\na\r\n")
    answer.deliver_to(lambda piece: answer.abandon() if piece == b"b" else None)
    upstream.says(b"1\r\nb\r\n0\r\n\r\n")
    assert not upstream.socket.is_open
    assert upstream.shelf.free == []


async def test_who_leaves_as_its_answer_ends_leaves_the_next_request_alone() -> None:
    upstream = Wire()
    first = upstream.begins(CHUNKED + b"\r\n0\r\n\r\n")
    assert upstream.shelf.free == [upstream.connection]
    second = upstream.hears()  # Begins before the first is woken.
    upstream.connection.leave(first)
    upstream.says(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
    assert second.status == 201
    assert upstream.socket.is_open


async def test_who_leaves_before_its_answer_closes_the_connection() -> None:
    upstream = Wire()
    upstream.connection.leave(upstream.hears())
    assert not upstream.socket.is_open
    with pytest.raises(StaleConnection):
        upstream.hears()


async def test_a_request_has_time_as_long_as_some_of_it_is_taken() -> None:
    upstream = Wire(idle=0.06)
    upstream.socket.unsent = 10
    loop = asyncio.get_running_loop()

    def takes_some() -> None:
        upstream.socket.unsent -= 1
        if upstream.socket.unsent > 5:
            loop.call_later(0.04, takes_some)

    takes_some()
    answer = upstream.hears()
    with pytest.raises(UpstreamTimedOut, match="read no byte of the request"):
        await answer.finished()
    assert upstream.socket.unsent == 5


async def test_an_answer_to_a_request_that_is_not_taken_yet_takes_no_time_of_the_upstream() -> None:
    upstream = Wire()
    upstream.socket.unsent = 10
    answer = upstream.begins(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 10\r\n\r\n{")
    assert answer.first_byte_at == answer.sent_at > 0


REQUEST = b"POST / HTTP/1.1\r\n\r\n{}"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Holding:
    """Two connections that have carried a request; `second` is given another one in a turn that has written one."""

    def __init__(self) -> None:
        self.first = Wire(idle=0.05)
        self.second = Wire(self.first, idle=0.05)
        self.shelf = self.second.shelf
        self.shelf.may_get_unrequested = True
        for wire in (self.first, self.second):
            wire.begins(ANSWER + b"{}")
            wire.socket.written = b""
        self.first.hears()
        self.answer = self.second.hears()


async def test_of_several_requests_in_a_turn_the_first_is_written_at_once_and_the_others_at_its_end() -> None:
    they = Holding()
    assert (they.first.socket.written, they.second.socket.written) == (REQUEST, b"")
    await asyncio.sleep(0)
    assert they.second.socket.written == REQUEST
    they.second.says(ANSWER + b"{}")
    assert they.answer.available() == b"{}"
    assert they.shelf.free == [they.second.connection] * 2


async def test_a_new_connection_is_written_to_at_once() -> None:
    one = Wire()
    other = Wire(one)
    one.hears()
    other.hears()
    assert other.socket.written == REQUEST


@pytest.mark.parametrize("said", [ANSWER + b"{}", ANSWER, ANSWER[:20], ANSWER.replace(b"2", b"0")])
async def test_what_comes_before_a_request_is_written_is_not_its_answer(said: bytes) -> None:
    they = Holding()
    they.second.says(said)
    await asyncio.sleep(0)
    with pytest.raises(StaleConnection):
        await they.answer.finished()
    assert (they.second.socket.written, they.second.socket.is_open, they.shelf.unrequested) == (b"", False, 1)


@pytest.mark.parametrize("said", [b"", ANSWER[:20]])
async def test_a_request_whose_connection_ends_before_it_is_written_can_be_sent_again(said: bytes) -> None:
    they = Holding()
    if said:
        they.second.says(said)
    they.second.connection.eof_received()
    await asyncio.sleep(0)
    with pytest.raises(StaleConnection):
        await they.answer.finished()
    assert they.second.socket.written == b""


async def test_a_request_that_is_left_before_it_is_written_is_never_sent() -> None:
    they = Holding()
    they.second.connection.leave(they.answer)
    await asyncio.sleep(0)
    assert (they.second.socket.written, they.second.socket.is_open) == (b"", False)


async def test_a_timer_of_the_idle_connection_is_none_of_the_request_that_is_held() -> None:
    they = Holding()
    # As long as a silent upstream may be.
    they.second.connection._deadlines.since -= 10
    they.second.connection.expired()
    await asyncio.sleep(0)
    assert (they.second.socket.written, they.second.socket.is_open) == (REQUEST, True)
    they.second.connection.leave(they.answer)
    they.first.connection.abort()
