"""Whether the store in Redis answers, how fast, and what waits until it does."""

from __future__ import annotations

from deploy.dashboards.panel import Dashboard, Panel
from deploy.dashboards.promql import per_second, quantile, share

CALLS = per_second("gateway_store_calls_total")
LOST = per_second("gateway_store_calls_total", where={"outcome": "unavailable"})
SECONDS = "gateway_store_call_seconds"
ADMIT = {"call": "admit.*"}

NOW = (
    Panel("Calls", "cps", {"": CALLS}, "Calls of the store a second.", "stat", 6),
    Panel(
        "Unavailable",
        "percentunit",
        {"": share(LOST, CALLS)},
        "Share of calls without an answer in time.",
        "stat",
        6,
        warn=0.001,
        alarm=0.05,
    ),
    Panel("Admission, p50", "s", {"": quantile(0.5, SECONDS, where=ADMIT)}, "Half take less.", "stat", 6, warn=0.01),
    Panel(
        "Admission, p99", "s", {"": quantile(0.99, SECONDS, where=ADMIT)}, "99 of 100 take less.", "stat", 6, warn=0.05
    ),
)

DETAIL = (
    Panel(
        "Calls",
        "cps",
        {"{{call}}": per_second("gateway_store_calls_total", "call")},
        "What the store is asked for.",
        width=12,
        stacked=True,
    ),
    Panel(
        "Outcomes",
        "cps",
        {"{{outcome}}": per_second("gateway_store_calls_total", "outcome")},
        "Unavailable: no answer within the store's timeout, or no connection.",
        width=12,
        stacked=True,
    ),
    Panel("Median", "s", {"{{call}}": quantile(0.5, SECONDS, "call")}, "Half of the calls take less.", width=12),
    Panel("p99", "s", {"{{call}}": quantile(0.99, SECONDS, "call")}, "99 of 100 calls take less.", width=12),
    Panel(
        "Unsettled",
        "short",
        {"{{instance}}": "sum by (instance) (gateway_unsettled_requests)"},
        "Answered requests whose settlement waits, on disk or in memory, until the store is back.",
        width=12,
        warn=1,
    ),
    Panel(
        "Journal",
        "short",
        {"{{outcome}}": "sum by (outcome) (increase(gateway_journal_entries_total[$__rate_interval]))"},
        "Settlements that had to wait, and what became of them. Parked and lost ones are not charged.",
        width=12,
    ),
    Panel(
        "By process",
        "cps",
        {"{{instance}}: {{outcome}}": per_second("gateway_store_calls_total", "instance, outcome")},
        "One process without the store: its network. All of them: the store.",
        width=12,
    ),
)

STORE = Dashboard(
    uid="inducta-store",
    title="Inducta gateway: store",
    about="Whether the store in Redis answers, how fast, and what waits until it does.",
    rows=(("Now", NOW), ("Calls", DETAIL)),
)
