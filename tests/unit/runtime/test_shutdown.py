from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.runtime.shutdown import END_SIGNALS, Shutdown


async def delivered() -> None:
    """Signals reach handlers in a turn of the loop of their own."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize("number", END_SIGNALS)
async def test_the_first_signal_drains_and_the_second_aborts(number: signal.Signals) -> None:
    logged: list[tuple[str, str]] = []
    shutdown = Shutdown()
    shutdown.on_signals(lambda name, effect: logged.append((name, effect)))
    os.kill(os.getpid(), number)
    await delivered()
    assert (shutdown.requested.is_set(), shutdown.aborted.is_set()) == (True, False)
    os.kill(os.getpid(), number)
    await delivered()
    assert shutdown.aborted.is_set()
    assert logged == [(number.name, "drain"), (number.name, "the drain is cut short")]


async def test_signals_of_a_group_never_abort() -> None:
    shutdown = Shutdown()
    shutdown.on_signals_of_a_group()
    for number in (*END_SIGNALS, *END_SIGNALS):
        os.kill(os.getpid(), number)
        await delivered()
    assert (shutdown.requested.is_set(), shutdown.aborted.is_set()) == (True, False)


def test_who_is_asked_to_abort_stops() -> None:
    shutdown = Shutdown()
    shutdown.abort()
    assert shutdown.requested.is_set()
