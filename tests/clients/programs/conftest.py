from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.programs.programs import WarmPythons, living_in
from tests.clients.programs.side_by_side import Bench


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPythons]:
    pythons = WarmPythons()
    try:
        yield pythons
    finally:
        pythons.end()


@pytest.fixture(scope="session", autouse=True)
def nothing_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of all that the programs started, daemons too."""
    yield
    assert living_in(tmp_path_factory.getbasetemp()) == []


@pytest.fixture
def bench(tmp_path: Path, warm: WarmPythons) -> Bench:
    return Bench(tmp_path, warm)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest go first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: "test_real_upstreams" not in item.nodeid)
