from __future__ import annotations

from typing import Any

from gateway.cli.upstreams import rows_of

CIRCUIT = {"model": "m", "state": "open", "key": None, "share": 0.0, "wait_s": 3.0, "next_try_at": None}


def because_of(*circuits: dict[str, Any], **failed_checks: int) -> list[object]:
    seen = {"name": "a", "up": False, "failed_checks": failed_checks, "in_flight": 0, "circuits": list(circuits)}
    return [row[-1] for row in rows_of(seen)]


def test_an_upstream_that_no_request_has_reached_shows_why_its_checks_fail() -> None:
    assert because_of(timeout=2, not_reached=1) == ["failed checks: timeout (2), not_reached (1)"]
    assert because_of() == [""]


def test_a_circuit_shows_failed_checks_before_its_own_reasons() -> None:
    opened: dict[str, Any] = {
        **CIRCUIT,
        "opened_at": "2026-11-27T10:00:00.000Z",
        "why": {"500": 4, "429": 1},
        "cooling": [],
    }
    assert because_of(opened, timeout=3) == ["failed checks: timeout (3); 500 (4), 429 (1)"]
    assert because_of(opened) == ["500 (4), 429 (1)"]
