from __future__ import annotations

from collections.abc import AsyncIterator
from zoneinfo import ZoneInfo

import pytest

from gateway.store.contract import Store
from tests.contract.store.keepers import Keeper, MemoryKeeper


@pytest.fixture(params=["memory"])
async def keeper(request: pytest.FixtureRequest) -> AsyncIterator[Keeper]:
    kept = MemoryKeeper(ZoneInfo("UTC"))
    yield kept
    await kept.store.close()


@pytest.fixture
def store(keeper: Keeper) -> Store:
    return keeper.store
