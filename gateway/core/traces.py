"""The trace that a request is a part of (W3C Trace Context, https://www.w3.org/TR/trace-context/).

A request is a span, and each attempt at an upstream is a span below it. The upstream gets the id of its attempt, so
that its own spans are below that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from gateway.core.snapshot import Target

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


class TraceParent(NamedTuple):
    """What a client's `traceparent` says. `is_sampled`: whether the client's span is kept."""

    trace_id: str
    span_id: str
    is_sampled: bool


def read_traceparent(header: str) -> TraceParent | None:
    """None for what is no valid `traceparent`: a trace begins here then."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # A later version may have more fields; what this one has is read all the same.
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


class UpstreamSpan(NamedTuple):
    """One attempt, by monotonic seconds. It ends when the next begins, or with the request."""

    span_id: str
    target: Target
    began: float


class RequestTrace:
    """Of a request whose spans are kept. `parent_id` is empty where the trace begins here."""

    __slots__ = ("_new_span_id", "attempts", "parent_id", "span_id", "trace_id")

    def __init__(self, trace_id: str, parent_id: str, new_span_id: Callable[[], str]) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.span_id = new_span_id()
        self.attempts: list[UpstreamSpan] = []
        self._new_span_id = new_span_id

    @property
    def replaced_headers(self) -> tuple[str, ...]:
        """Headers of the client that do not reach the upstream. A `tracestate` belongs to its trace alone."""
        return ("traceparent",) if self.parent_id else ("traceparent", "tracestate")

    def begin_attempt(self, target: Target, now: float) -> str:
        """The `traceparent` for the upstream."""
        attempt = UpstreamSpan(self._new_span_id(), target, now)
        self.attempts.append(attempt)
        return f"00-{self.trace_id}-{attempt.span_id}-01"
