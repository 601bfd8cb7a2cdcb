"""Bytes of a request's body that wait on disk: the files of a form that come before its fields."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import IO

from gateway.core.errors import Overloaded
from gateway.core.request import BodyTail
from gateway.web.body_memory import HeldBytes

_PIECE_BYTES = 64 * 1024


def _temporary_file() -> IO[bytes]:
    # Without a buffer, so that it never writes when it is closed.
    return tempfile.TemporaryFile(buffering=0)


class DiskSpool:
    """A `gateway.core.request.Spool`: a file without a name, in the folder for temporary files. Its bytes count as
    held, so that all files together have a bound."""

    def __init__(self, held: HeldBytes, open_file: Callable[[], IO[bytes]] = _temporary_file) -> None:
        self._held = held
        self._open_file = open_file
        self._size = 0
        self._file: IO[bytes] | None = None
        self._closed = False
        self._lock = Lock()

    async def write(self, data: bytes) -> None:
        """Append. Raises Overloaded where memory's bound or the disk is full."""
        await self._held.add(len(data))
        self._size += len(data)
        try:
            await asyncio.to_thread(self._append, data)
        except OSError as error:
            raise Overloaded(
                f"The gateway has no space on disk for a form whose files come first ({error.strerror}). Send the"
                " fields first.",
                retry_after_ms=1000,
            ) from None

    def tail(self) -> BodyTail:
        """Reads what is written by now, from its beginning."""
        return _SpooledTail(self)

    @property
    def size(self) -> int:
        return self._size

    async def read(self, begin: int) -> bytes:
        """A piece from this position on; empty at the end, or once closed."""
        return await asyncio.to_thread(self._read, begin)

    def close(self) -> None:
        """Give the disk's space back; bytes that are still to be written are dropped. No thread is waited for: one that
        a cancelled task has left at work gives the space back when it is done."""
        self._closed = True
        self._close_unused()

    @contextmanager
    def _used(self) -> Iterator[None]:
        """By one thread at a time: its descriptor must not become another file's meanwhile."""
        try:
            with self._lock:
                yield
        finally:
            if self._closed:
                self._close_unused()

    def _close_unused(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # Who uses it closes it.
        try:
            if self._file is not None:
                self._file.close()
                self._file = None
        finally:
            self._lock.release()

    def _append(self, data: bytes) -> None:
        with self._used():
            if self._closed:
                return
            if self._file is None:
                self._file = self._open_file()
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def _read(self, begin: int) -> bytes:
        with self._used():
            if self._closed or self._file is None:
                return b""
            self._file.seek(begin)
            return self._file.read(_PIECE_BYTES)


class _SpooledTail:
    """Implements `BodyTail`."""

    def __init__(self, spool: DiskSpool) -> None:
        self.length: int | None = spool.size
        self.taken = False
        self.has_come = True
        self._size = spool.size
        self._spool = spool
        self._position = 0

    async def piece(self) -> bytes:
        self.taken = True
        if self._position >= self._size:
            return b""
        piece = (await self._spool.read(self._position))[: self._size - self._position]
        self._position += len(piece)
        return piece
