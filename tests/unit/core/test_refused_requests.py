"""Requests that were refused, kept for those like them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from gateway.core.endpoints import ENDPOINTS
from gateway.core.exchange import Exchange
from gateway.core.refused_requests import KEPT_S, RefusedRequests
from gateway.core.reservation import AdmissionRequest
from gateway.core.snapshot import ConfigSnapshot
from tests.unit.fakes import CALLER, MODEL, body_of, exchange_of, limit, snapshot_with

BODY, SNAPSHOT = body_of(), snapshot_with(MODEL)
RESPONSES = ENDPOINTS["/v1/responses"]


class Kept:
    """Some refused requests, and what is to be called later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.requests = RefusedRequests(lambda seconds, call: self.later.append((seconds, call)))

    def keep(self, body: bytes = BODY) -> Exchange:
        exchange, _ = exchange_of(body)
        exchange.asked = AdmissionRequest.of(exchange.id, (), 10, 10)
        self.requests.keep(exchange, body, SNAPSHOT, "ann", None)
        return exchange

    def has(
        self, exchange: Exchange, body: bytes = BODY, snapshot: ConfigSnapshot = SNAPSHOT, user: str = "ann"
    ) -> bool:
        return self.requests.take(exchange, body, snapshot, user) is not None


def test_what_is_kept_of_a_request_is_given_to_one_like_it() -> None:
    kept = Kept()
    refused = kept.keep()
    like_it, _ = exchange_of(BODY)
    found = kept.requests.take(like_it, BODY, SNAPSHOT, "ann")
    assert found is not None
    assert (found.parsed, found.asked) == (refused.parsed, refused.asked)
    assert not kept.has(like_it)


def _with(exchange: Exchange, **changes: object) -> Exchange:
    exchange.request = msgspec.structs.replace(exchange.request, **changes)
    return exchange


def test_a_request_that_is_sent_otherwise_is_not_like_it() -> None:
    usual, _ = exchange_of(BODY)
    others: list[Callable[[Kept], bool]] = [
        lambda kept: kept.has(usual, body_of(user="bob")),
        lambda kept: kept.has(usual, snapshot=snapshot_with(MODEL)),
        lambda kept: kept.has(usual, user="bob"),
        lambda kept: kept.has(_with(exchange_of(BODY)[0], query="a=1")),
        lambda kept: kept.has(_with(exchange_of(BODY)[0], endpoint=RESPONSES)),
        lambda kept: kept.has(exchange_of(BODY, caller=msgspec.structs.replace(CALLER, key_id="other"))[0]),
    ]
    for is_kept_for in others:
        kept = Kept()
        kept.keep()
        assert not is_kept_for(kept)


@pytest.mark.parametrize("changes", [{"entered": 8}, {"expected": 2_000}, {"limits": (limit(),)}])
def test_it_asks_the_same_only_with_the_same_estimates_and_limits(changes: dict[str, object]) -> None:
    kept = Kept()
    refused = kept.keep()
    assert refused.asked is not None
    assert refused.estimator is not None
    found = kept.requests.take(refused, BODY, SNAPSHOT, "ann")
    assert found is not None
    usual = {"limits": refused.asked.limits, "entered": 7, "expected": refused.estimator.output_tokens()}
    assert found.asks_the_same(**usual)  # type: ignore[arg-type]  # Each is of its own type.
    assert not found.asks_the_same(**usual | changes)  # type: ignore[arg-type]  # The same.


def test_all_of_it_is_forgotten_a_moment_after_the_first() -> None:
    kept = Kept()
    first, _ = kept.keep(), kept.keep(body_of(user="bob"))
    ((seconds, forget),) = kept.later
    assert seconds == KEPT_S
    forget()
    assert not kept.has(first)
    assert not kept.has(first, body_of(user="bob"))
    kept.keep()
    assert len(kept.later) == 2


def test_only_so_many_are_kept_and_none_with_a_long_body() -> None:
    kept = Kept()
    long = body_of(metadata={"a": "a" * 16 * 1024})
    assert not kept.has(kept.keep(long), long)
    bodies = [body_of(seed=seed) for seed in range(1_000)]
    exchanges = [kept.keep(body) for body in bodies]
    assert 1 <= sum(map(kept.has, exchanges, bodies)) <= 64
