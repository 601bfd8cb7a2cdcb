"""Series of several processes, told as those of one.

A worker packs what it has counted; whoever supervises it keeps the last of each, and adds up what the
dead had counted, so that no total ever falls because a worker was replaced.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.telemetry.exposition import CONTENT_TYPE, exposition
from gateway.telemetry.series import Gauge, Series

PACKED = "application/vnd.msgpack"


def pack(every: Iterable[Series]) -> bytes:
    return _ENCODER.encode(list(every))


def unpack(packed: bytes) -> list[Series]:
    return _DECODER.decode(packed)


def fold(packs: Iterable[bytes]) -> list[Series]:
    """The series of all of them, each once."""
    folded: dict[str, Series] = {}
    for packed in packs:
        for series in unpack(packed):
            known = folded.setdefault(series.name, series)
            if known is not series:
                known.absorb(series)  # type: ignore[arg-type] # A name has one kind.
    return list(folded.values())


class Gathering:
    """What workers, by their numbers, have counted."""

    def __init__(self) -> None:
        self._latest: dict[int, bytes] = {}
        self._gone = pack([])

    def note(self, worker: int, packed: bytes) -> None:
        """This is what the worker has counted up to now."""
        self._latest[worker] = packed

    def retire(self, worker: int) -> None:
        """The worker has ended: what it had counted stays, what it was holding is gone."""
        last = self._latest.pop(worker, None)
        if last is not None:
            both = fold([self._gone, last])
            self._gone = pack(series for series in both if not isinstance(series, Gauge))

    def render(self, own: Iterable[Series]) -> tuple[bytes, str]:
        """The exposition of all of them and of `own`, and its content type."""
        return exposition(fold([self._gone, *self._latest.values(), pack(own)])), CONTENT_TYPE


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Series])
