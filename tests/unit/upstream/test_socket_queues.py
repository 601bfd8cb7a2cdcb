from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from gateway.upstream.socket_queues import has_unacknowledged, has_unread


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    with one, other:
        yield one, other


def fill(sending: socket.socket) -> None:
    while True:
        sending.send(bytes(65_536))


def test_what_was_received_is_unread_until_it_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    assert not has_unread(one.fileno())
    other.sendall(b"x")
    assert has_unread(one.fileno())
    one.recv(1)
    assert not has_unread(one.fileno())


def test_what_a_peer_has_no_room_for_is_unacknowledged(pair: tuple[socket.socket, socket.socket]) -> None:
    one, _ = pair
    assert not has_unacknowledged(one.fileno())
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        fill(one)
    assert has_unacknowledged(one.fileno())


def test_of_a_closed_socket_nothing_is_known(pair: tuple[socket.socket, socket.socket]) -> None:
    fileno = pair[0].fileno()
    pair[0].close()
    assert not has_unread(fileno)
    assert not has_unacknowledged(fileno)
