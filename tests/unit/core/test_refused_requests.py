"""Requests that were refused, kept for those like them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gateway.core.endpoints import ENDPOINTS
from gateway.core.errors import RateExceeded
from gateway.core.exchange import Exchange
from gateway.core.refused_requests import KEPT_S, RefusedRequests
from gateway.core.reservation import AdmissionRequest
from gateway.core.snapshot import ConfigSnapshot
from tests.unit.fakes import CALLER, MODEL, body_of, exchange_of, snapshot_with

BODY, SNAPSHOT = body_of(), snapshot_with(MODEL)
RESPONSES = ENDPOINTS["/v1/responses"]
ERROR = RateExceeded("Wait.")


class Kept:
    """Some refused requests, and what is to be called later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.requests = RefusedRequests(lambda seconds, call: self.later.append((seconds, call)))

    def keep(self, body: bytes = BODY) -> Exchange:
        exchange, _ = exchange_of(body)
        exchange.asked = AdmissionRequest.of(exchange.id, (), 10, 10)
        self.requests.keep(exchange, body, SNAPSHOT, "ann", ERROR)
        return exchange

    def has(
        self, exchange: Exchange, body: bytes = BODY, snapshot: ConfigSnapshot = SNAPSHOT, user: str = "ann"
    ) -> bool:
        return self.requests.find(exchange, body, snapshot, user) is not None


def test_what_is_kept_of_a_request_is_given_to_one_like_it() -> None:
    kept = Kept()
    refused = kept.keep()
    like_it, _ = exchange_of(BODY)
    found = kept.requests.find(like_it, BODY, SNAPSHOT, "ann")
    assert found is not None
    assert (found.parsed, found.asked, found.error) == (refused.parsed, refused.asked, ERROR)
    assert kept.requests.find(like_it, BODY, SNAPSHOT, "ann") is found
    kept.requests.forget(BODY)
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
