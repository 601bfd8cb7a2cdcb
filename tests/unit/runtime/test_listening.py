from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from gateway.core.address import Address
from gateway.runtime.listening import listen_on_all


async def test_what_cannot_be_listened_on_is_named_in_the_systems_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match="cannot be listened on") as failed:
            await listen_on_all(asyncio.Protocol, [Address("127.0.0.1", 0), address])
        assert failed.value.errno == errno.EADDRINUSE
        assert failed.value.strerror == f"{address} cannot be listened on: Address already in use"
