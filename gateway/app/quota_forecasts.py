"""Keeps the metric of when quotas run out. The forecasts are read from the store, since no request carries them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit
from gateway.core.reservation import LimitStatus
from gateway.store.contract import Counters

LOOK_EVERY_S = 60.0


async def watch_forecasts(
    store: Counters, quotas: Callable[[], Sequence[Limit]], note: Callable[[Sequence[LimitStatus]], None]
) -> None:
    """Record the forecasts every minute. While the store is out the last ones stay."""
    while True:
        with suppress(StoreUnavailable):
            note(await store.limit_statuses(quotas()))
        await asyncio.sleep(LOOK_EVERY_S)
