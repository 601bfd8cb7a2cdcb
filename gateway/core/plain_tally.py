"""The tally of an answer that is not a stream: a JSON body, of which the beginning and the end are kept."""

from __future__ import annotations

from gateway.core.endpoints import Endpoint
from gateway.core.report import decoded, find_usage, members_of, usage_in_tail
from gateway.core.tally import TAIL
from gateway.core.usage import Usage, read_usage

KEPT_MAX = 256 * 1024
"""Bytes of a plain answer that are kept, to be read when it is whole."""


class PlainTally:
    """One answer that is not a stream: a JSON body, of which the beginning and the end are kept.
    `failed` says that it tells an error: that has no usage and no text."""

    events = 0

    def __init__(self, endpoint: Endpoint, *, failed: bool = False) -> None:
        self.failed = failed
        self._endpoint = endpoint
        self._kept = bytearray()
        self._bytes = 0

    @property
    def text_bytes(self) -> int:
        return 0 if self.failed else self._bytes

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        self._kept += data
        if len(self._kept) > KEPT_MAX:
            del self._kept[TAIL:-TAIL]

    @property
    def usage(self) -> Usage | None:
        """What the body reports; to be asked once it is whole."""
        if self.failed:
            return None
        if len(self._kept) == self._bytes:
            chunk = members_of(bytes(self._kept))
            report = find_usage(chunk, self._endpoint.usage_at) if chunk else None
        else:
            report = usage_in_tail(bytes(self._kept[TAIL:])) or usage_in_tail(bytes(self._kept[:TAIL]))
        return read_usage(decoded(report) or {}) if report is not None else None
