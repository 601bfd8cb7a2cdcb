from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from gateway.runtime.garbage import ALL_EVERY_S, AT_LATEST_S, GarbageSearch


class Circle:
    """Has itself, so that only a search frees it."""

    def __init__(self) -> None:
        self.itself = self


class Process:
    """Whose garbage is searched for."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.now = 0.0
        self.garbage = GarbageSearch(lambda: self.in_flight, lambda: self.now)


@pytest.fixture(autouse=True)
def only_searched_when_asked() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def test_what_was_made_since_the_last_search_is_found() -> None:
    process = Process()
    process.in_flight = 2_000
    circle = weakref.ref(Circle())
    assert circle() is not None
    process.garbage.search()
    assert circle() is None


def test_what_was_there_at_the_last_search_is_not_gone_through_again() -> None:
    process = Process()
    process.in_flight = 2_000
    stream = Circle()
    process.garbage.search()
    young = gc.get_objects(generation=0) + gc.get_objects(generation=1)
    assert not any(each is stream for each in young)


def test_all_is_searched_once_nothing_is_in_flight() -> None:
    process = Process()
    old = Circle()
    process.garbage.search()
    circle = weakref.ref(old)
    del old
    process.now, process.in_flight = ALL_EVERY_S, 1
    process.garbage.search()
    assert circle() is not None
    process.in_flight = 0
    process.garbage.search()
    assert circle() is None


def test_what_was_there_at_a_search_of_all_is_found_by_the_next() -> None:
    process = Process()
    old = Circle()
    process.now = ALL_EVERY_S
    process.garbage.search()
    circle = weakref.ref(old)
    del old
    process.now += ALL_EVERY_S
    process.garbage.search()
    assert circle() is None


def test_a_process_that_is_never_without_requests_is_searched_at_last() -> None:
    process = Process()
    process.in_flight = 1
    old = Circle()
    process.garbage.search()
    circle = weakref.ref(old)
    del old
    process.now = AT_LATEST_S - 1
    process.garbage.search()
    assert circle() is not None
    process.now = AT_LATEST_S
    process.garbage.search()
    assert circle() is None


def test_all_is_not_searched_again_soon() -> None:
    process = Process()
    process.now = ALL_EVERY_S
    process.garbage.search()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    process.now += ALL_EVERY_S / 2
    process.garbage.search()
    assert gc.get_freeze_count() == 0
