"""The tally of an answer that is not a stream: a JSON body, of which the beginning and the end are kept."""

from __future__ import annotations

from gateway.core.endpoints import Endpoint
from gateway.core.tally import TAIL
from gateway.core.upstream_json import JsonMembers, decoded, find_usage, members_of, reports_error, usage_in_tail
from gateway.core.usage import Usage
from gateway.core.usage_report import read_usage

KEPT_MAX = 256 * 1024
"""Bytes of a plain answer that are kept, to be read when it is whole."""


class PlainTally:
    """One answer that is not a stream: a JSON body, of which the beginning and the end are kept. What has
    `failed` has no text; and no usage either, where its status said so from the beginning."""

    events = 0

    def __init__(self, endpoint: Endpoint, *, failed: bool = False) -> None:
        self.failed = failed
        self._refused = failed
        self._endpoint = endpoint
        self._kept = bytearray()
        self._chunk: JsonMembers | None = None
        self._bytes = 0

    @property
    def text_bytes(self) -> int:
        return 0 if self.failed else self._bytes

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        self._kept += data
        if len(self._kept) > KEPT_MAX:
            del self._kept[TAIL:-TAIL]

    def close(self) -> None:
        """The answer is whole. Some servers tell an error with status 200: as JSON, or in place of it."""
        if self._is_kept:
            chunk = self._chunk = members_of(bytes(self._kept))
            speaks = bool(self._endpoint.cap_members)
            self.failed = self.failed or (speaks if chunk is None else reports_error(chunk))

    @property
    def usage(self) -> Usage | None:
        """What the body reports; to be asked once it is whole."""
        if self._refused:
            return None
        if self._is_kept:
            chunk = self._chunk or members_of(bytes(self._kept))
            report = find_usage(chunk, self._endpoint.usage_at) if chunk else None
        else:
            report = usage_in_tail(bytes(self._kept[TAIL:])) or usage_in_tail(bytes(self._kept[:TAIL]))
        return read_usage(decoded(report) or {}) if report is not None else None

    @property
    def _is_kept(self) -> bool:
        return len(self._kept) == self._bytes
