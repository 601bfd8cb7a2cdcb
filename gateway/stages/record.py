"""Record: writes one log line and the metrics of a request that has ended. It never fails a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.exchange import Exchange
from gateway.runtime.tasks import LogError

Recorder = Callable[[Exchange], None]


def record(exchange: Exchange, recorders: Sequence[Recorder], log_error: LogError) -> None:
    """Hand the exchange to each recorder; one that fails is logged and does no harm."""
    for recorder in recorders:
        try:
            recorder(exchange)
        except Exception as defect:  # noqa: BLE001 # Whatever it is, the request itself has ended as it should.
            log_error("a recorder failed", defect)
