"""The few shapes of query that the dashboards are made of."""

from __future__ import annotations

WINDOW = "[$__rate_interval]"
Chosen = dict[str, str]


def matching(where: Chosen | None) -> str:
    """Label matchers, by regular expression."""
    pairs = ", ".join(f'{label}=~"{pattern}"' for label, pattern in (where or {}).items())
    return f"{{{pairs}}}" if pairs else ""


def per_second(counter: str, by: str = "", where: Chosen | None = None) -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({counter}{matching(where)}{WINDOW}))"


def share(part: str, whole: str, nothing: str = "vector(0)") -> str:
    """What part of the whole; `nothing` is the part if none has happened yet."""
    return f"({part} or {nothing}) / {whole}"


def quantile(of: float, histogram: str, by: str = "", where: Chosen | None = None) -> str:
    return f"histogram_quantile({of}, {per_second(f'{histogram}_bucket', f'le, {by}' if by else 'le', where)})"


def quantiles(histogram: str, where: Chosen | None = None) -> dict[str, str]:
    """The legend and query of median, ninetieth and ninety-ninth percentile."""
    return {f"p{of * 100:g}": quantile(of, histogram, where=where) for of in (0.5, 0.9, 0.99)}
