"""Which web pages may call the gateway from a browser (the Fetch standard, "CORS protocol").

An origin proves nothing: a page sends a key in a header, as every client does. So no answer allows the browser's own
credentials (cookies), and an origin that is not configured gets no header: its browser shows the page nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from gateway.core.response import Headers

PREFLIGHT_AGE_S = 7200
"""How long a browser keeps the answer to a preflight: the longest that Chromium accepts."""

_METHODS = "GET, HEAD, POST, DELETE"
_NAMES = re.compile(r"[\w!#$%&'*+.^`|~-]+([ \t]*,[ \t]*[\w!#$%&'*+.^`|~-]+)*", re.ASCII)

_RATE_FIGURES = [f"x-ratelimit-{figure}" for figure in ("limit", "remaining", "reset")]
_QUOTA_FIGURES = [f"x-quota-{figure}" for figure in ("limit", "remaining", "reset")]
_EXPOSED = ", ".join(
    [
        *("x-request-id", "request-id", "retry-after", "retry-after-ms", "x-should-retry"),
        *(f"{figure}-{meter}" for figure in _RATE_FIGURES for meter in ("requests", "tokens")),
        *(f"{figure}-{meter}" for figure in _QUOTA_FIGURES for meter in ("requests", "tokens", "usd")),
        *("x-quota-output-cap", "content-disposition"),
        *("openai-processing-ms", "openai-version", "openai-model", "anthropic-organization-id", "x-codex-turn-state"),
    ]
)


class CorsPolicy:
    """`origins` are those that may call; `*` among them means all."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origins)
        self.allows_any = bool(self._origins)
        """Whether there are such origins. Without them no answer has further headers."""

    def headers(self, request_headers: Mapping[str, str]) -> Headers:
        """The headers that every answer gets."""
        if not self._origins:
            return ()
        allowed = self._allowed(request_headers.get("origin", ""))
        if not allowed:
            # Without it a cache could give a page the answer that another origin, or no page, got.
            return (("vary", "origin"),)
        return (
            ("access-control-allow-origin", allowed),
            ("access-control-expose-headers", _EXPOSED),
            ("vary", "origin"),
        )

    def preflight(self, method: str, request_headers: Mapping[str, str]) -> Headers | None:
        """The headers of the answer to a preflight; None for a request that is none, or whose origin may not call."""
        if method != "OPTIONS" or "access-control-request-method" not in request_headers:
            return None
        if not self._allowed(request_headers.get("origin", "")):
            return None
        asked = request_headers.get("access-control-request-headers", "").strip()
        named = (("access-control-allow-headers", asked),) if _NAMES.fullmatch(asked) else ()
        return (
            ("access-control-allow-methods", _METHODS),
            *named,
            ("access-control-max-age", str(PREFLIGHT_AGE_S)),
            ("vary", "origin, access-control-request-method, access-control-request-headers"),
        )

    def _allowed(self, origin: str) -> str:
        """The value of access-control-allow-origin; empty if there is none."""
        if not origin or not self._origins:
            return ""
        if "*" in self._origins:
            return "*"
        return origin if origin in self._origins else ""
