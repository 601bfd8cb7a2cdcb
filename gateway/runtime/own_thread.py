"""Work that may hang for long, in a thread of its own.

A pool of threads has few, and what hangs takes them from all others: uvloop's runs two lookups at once, so that two
name servers that do not answer hold up every other name. A thread that hangs does not delay the end of the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def run_in_own_thread(name: str, work: Callable[[], T]) -> T:
    """What `work` returns or raises. The caller bounds how many run at once. Raises RuntimeError where the system gives
    no more threads."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return  # The caller has given up waiting.
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # Without an error it is a T.

    def run() -> None:
        try:
            result, failure = work(), None
        except BaseException as error:  # noqa: BLE001 # Whatever it is, the caller gets it.
            result, failure = None, error
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome
