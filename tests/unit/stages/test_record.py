from __future__ import annotations

import pytest

from gateway.core.exchange import Exchange
from gateway.stages.record import record
from tests.unit.fakes import exchange_of


def test_every_recorder_sees_the_exchange_even_if_one_fails() -> None:
    defect, seen, complaints = RuntimeError("no disk"), list[Exchange](), list[tuple[str, BaseException]]()

    def failing(exchange: Exchange) -> None:
        raise defect

    exchange, _ = exchange_of()
    record(exchange, [seen.append, failing, seen.append], lambda what, error: complaints.append((what, error)))
    assert seen == [exchange, exchange]
    assert complaints == [("a recorder failed", defect)]


def test_the_end_of_the_process_is_no_failed_recorder() -> None:
    def interrupted(exchange: Exchange) -> None:
        raise KeyboardInterrupt

    exchange, _ = exchange_of()
    with pytest.raises(KeyboardInterrupt):
        record(exchange, [interrupted], lambda what, error: None)
