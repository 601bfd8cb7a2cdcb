"""A future whose task goes on in the callback that brings the result, not in a later turn of the event loop.

asyncio's own wakes its task behind everything else that the turn has brought. On a busy loop that is milliseconds, and
what the task then sends is answered a turn later. It is for what comes alone: tasks whose results come together run
faster one behind the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

_set_result = asyncio.Future.set_result  # Without `super`, which makes an object for each call.

_Wake = Callable[["asyncio.Future[Any]"], object]


class EagerFuture(asyncio.Future[Any]):
    """Belongs to the event loop that runs, and is awaited by one task at most; nothing else may wait for it."""

    __slots__ = ("_context", "_wake")

    def __init__(self) -> None:
        super().__init__()
        self._wake: _Wake | None = None

    def add_done_callback(self, wake: _Wake, /, *, context: Context | None = None) -> None:  # type: ignore[override]
        """A task calls it when it begins to wait."""
        assert self._wake is None, "one task waits"
        self._wake, self._context = wake, context

    def set_result(self, result: Any, /) -> None:
        """To be called where no task runs, as in a callback of a socket. The task has gone on when it returns."""
        _set_result(self, result)
        wake = self._wake
        if wake is not None:
            self._wake = None
            assert self._context is not None, "a task has one"
            self._context.run(wake, self)

    def set_exception(self, error: type | BaseException, /) -> None:
        """May be called by a task, too: who waits goes on in a later turn."""
        super().set_exception(error)
        self._wake_later()

    def cancel(self, msg: Any = None) -> bool:
        """The same."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._wake_later()
        return is_cancelled

    def _wake_later(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            self.get_loop().call_soon(wake, self, context=self._context)
