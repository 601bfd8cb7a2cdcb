"""What waits for the end of a turn, and in which order it is written."""

from __future__ import annotations

import asyncio

import pytest

from gateway.runtime.turn import PASSED_BYTES, Turn

LONG = bytes(100_000)


class Socket:
    """Notes each piece that it gets, in a list that sockets share."""

    def __init__(self, name: str, written: list[tuple[str, bytes]]) -> None:
        self._name = name
        self._written = written
        self.held = b""

    def write_now(self, data: bytes) -> None:
        self._written.append((self._name, data))


class _Sockets:
    def __init__(self) -> None:
        self.turn = Turn()
        self.written: list[tuple[str, bytes]] = []
        self.a, self.b, self.c = (Socket(name, self.written) for name in "abc")


async def test_the_first_of_a_turn_is_written_at_once_and_the_others_at_its_end() -> None:
    they = _Sockets()
    for socket in (they.a, they.b, they.c):
        they.turn.write(socket, b"1")
    assert they.written == [("a", b"1")]
    await asyncio.sleep(0)
    assert they.written == [("a", b"1"), ("b", b"1"), ("c", b"1")]
    they.turn.write(they.b, b"2")
    assert they.written[3:] == [("b", b"2")]


async def test_what_is_held_waits_though_it_is_the_first() -> None:
    they = _Sockets()
    they.turn.hold(they.a, b"1")
    they.turn.write(they.b, b"2")
    assert not they.written
    await asyncio.sleep(0)
    assert they.written == [("a", b"1"), ("b", b"2")]


async def test_a_socket_gets_what_a_turn_has_for_it_in_one_piece_and_in_order() -> None:
    they = _Sockets()
    they.turn.write(they.a, b"1")
    for piece in (b"2", b"3", b"4"):
        they.turn.write(they.a, piece)
        they.turn.hold(they.b, piece)
    await asyncio.sleep(0)
    assert they.written == [("a", b"1"), ("a", b"234"), ("b", b"234")]


async def test_what_is_long_is_not_held_and_comes_behind_what_is() -> None:
    they = _Sockets()
    they.turn.hold(they.a, b"1")
    they.turn.write(they.a, LONG)
    assert they.written == [("a", b"1" + LONG)]
    await asyncio.sleep(0)
    assert len(they.written) == 1


async def test_what_becomes_long_in_a_turn_is_held_no_more() -> None:
    they = _Sockets()
    they.turn.hold(they.b, b"1")
    for _ in range(10):
        they.turn.hold(they.a, bytes(10_000))
    assert they.written == [("a", bytes(70_000))]
    await asyncio.sleep(0)
    assert they.written[1:] == [("b", b"1"), ("a", bytes(30_000))]


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_turn_with_much_is_written_in_portions(is_held: bool) -> None:
    they = _Sockets()
    sockets, waiting = [Socket(str(number), they.written) for number in range(1000)], 0
    for number, socket in enumerate(sockets):
        (they.turn.hold if is_held else they.turn.write)(socket, b"1")
        waiting = max(waiting, number + 1 - len(they.written))
    assert 64 <= waiting <= 128
    await asyncio.sleep(0)
    assert they.written == [(str(number), b"1") for number in range(1000)]


async def test_what_is_taken_is_not_written_again() -> None:
    they = _Sockets()
    they.turn.hold(they.a, b"1")
    they.turn.hold(they.b, b"1")
    assert (they.turn.take(they.a), they.turn.take(they.a)) == (b"1", b"")
    await asyncio.sleep(0)
    assert they.written == [("b", b"1")]


async def test_what_is_held_behind_what_was_taken_is_written_once() -> None:
    they = _Sockets()
    they.turn.hold(they.a, b"1")
    they.turn.hold(they.b, b"1")
    they.turn.take(they.a)
    they.turn.hold(they.a, b"2")
    await asyncio.sleep(0)
    assert sorted(they.written) == [("a", b"2"), ("b", b"1")]


async def test_what_is_written_while_a_turn_ends_is_of_the_next() -> None:
    they = _Sockets()

    class Answering(Socket):
        def write_now(self, data: bytes) -> None:
            super().write_now(data)
            if len(they.written) < 4:
                they.turn.hold(self, data + b"+")

    answering = Answering("x", they.written)
    they.turn.hold(answering, b"1")
    they.turn.hold(they.a, b"1")
    await asyncio.sleep(0)
    assert they.written == [("x", b"1"), ("a", b"1")]
    await asyncio.sleep(0)
    assert they.written[2:] == [("x", b"1+")]


class FailingSocket(Socket):
    def write_now(self, data: bytes) -> None:
        raise RuntimeError("a defect")


async def test_a_connection_that_fails_costs_the_others_nothing() -> None:
    they, defects = _Sockets(), list[BaseException]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, told: defects.append(told["exception"]))
    they.turn.hold(they.a, b"1")
    they.turn.hold(FailingSocket("x", they.written), b"1")
    they.turn.hold(they.b, b"1")
    they.turn.hold(they.c, b"1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert they.written == [("a", b"1"), ("b", b"1"), ("c", b"1")]
    assert [str(defect) for defect in defects] == ["a defect"]


async def test_at_the_end_of_a_turn_as_much_of_streams_may_be_passed_on_again() -> None:
    they = _Sockets()
    for _ in range(3):
        they.turn.left -= 1_000
        they.turn.hold(they.a, bytes(1_000))
    assert they.turn.left == PASSED_BYTES - 3_000
    await asyncio.sleep(0)
    assert they.turn.left == PASSED_BYTES
