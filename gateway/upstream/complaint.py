"""What an upstream did wrong, and the error that says so."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from gateway.core.errors import UpstreamError

E = TypeVar("E", bound=UpstreamError)


class Complaint(NamedTuple):
    """`outcome` is for metrics, one of the closed list in docs/metrics.md; `text` follows the upstream's name."""

    outcome: str
    text: str

    def about(self, upstream_name: str, kind: type[E]) -> E:
        error = kind(f"Upstream {upstream_name!r} {self.text}.")
        error.outcome = self.outcome
        return error
