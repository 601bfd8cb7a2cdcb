"""The loop that keeps the metric of forecasts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.app.quota_forecasts import watch_forecasts
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit
from gateway.core.reservation import LimitStatus
from tests.contract.store.asking import limit
from tests.unit.fakes import Ledgers

QUOTA = limit("tokens", "day", 100)


class Reporting(Ledgers):
    """Fails as often as it is said to."""

    failures = 0

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("It is out.")
        return [LimitStatus(one, 1, 0, 99, 0, runs_out_ms=5) for one in limits]


async def noted_by(store: Reporting) -> list[int]:
    noted: list[int] = []
    watching = asyncio.ensure_future(
        watch_forecasts(store, lambda: [QUOTA], lambda found: noted.extend([one.runs_out_ms for one in found]))
    )
    await asyncio.wait([watching], timeout=0.01)
    watching.cancel()
    return noted


async def test_what_the_store_forecasts_is_noted() -> None:
    assert await noted_by(Reporting()) == [5]


async def test_a_store_that_is_out_leaves_what_was_noted_and_ends_nothing() -> None:
    store = Reporting()
    store.failures = 1
    assert await noted_by(store) == []
