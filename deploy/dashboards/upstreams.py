"""Which model server is unhealthy: failures, latency, requests that had to go elsewhere."""

from __future__ import annotations

from deploy.dashboards.panel import Dashboard, Panel
from deploy.dashboards.promql import matching, per_second, quantile, share

HERE = {"upstream": "$upstream"}
BY = "{{upstream}}"
UP = f"max by (upstream) (gateway_upstream_up{matching(HERE)})"
ATTEMPTS = per_second("gateway_upstream_attempts_total", "upstream", HERE)
# What makes the gateway try the next route: an overloaded server, a broken one, none at all.
BAD = {**HERE, "outcome": "429|5..|not_reached|hung_up|malformed|.*_timeout"}
FAILING = share(per_second("gateway_upstream_attempts_total", "upstream", BAD), ATTEMPTS, f"0 * {ATTEMPTS}")
SENT_ON = per_second("gateway_requests_total", where={"upstream": ".+"})
INPUT = per_second("gateway_tokens_total", "upstream", {**HERE, "direction": "input"})
CACHED = per_second("gateway_tokens_total", "upstream", {**HERE, "direction": "cached_input"})
TTFT = "gateway_time_to_first_token_seconds"

HEALTH = (
    Panel(
        "Up",
        "short",
        {BY: f"max by (upstream) (gateway_upstream_up{matching(HERE)})"},
        "1 where any process sends requests, 0 where none does.",
        width=12,
        most=1,
    ),
    Panel(
        "Processes that do not use it",
        "percentunit",
        {BY: f"1 - avg by (upstream) (gateway_upstream_up{matching(HERE)})"},
        "Share of the gateway's processes that send an upstream nothing.",
        width=12,
        most=1,
    ),
    Panel(
        "Failing",
        "percentunit",
        {BY: FAILING},
        "Share of attempts that got no answer, a 429 or a 5xx.",
        "bargauge",
        warn=0.05,
        alarm=0.5,
        most=1,
    ),
    Panel(
        "Failing over time",
        "percentunit",
        {BY: FAILING},
        "Share of attempts that got no answer, a 429 or a 5xx.",
        most=1,
    ),
    Panel(
        "Attempts by outcome",
        "reqps",
        {"{{upstream}}: {{outcome}}": per_second("gateway_upstream_attempts_total", "upstream, outcome", HERE)},
        "A status, or why there was none.",
        stacked=True,
    ),
    Panel(
        "Failover",
        "percentunit",
        {"attempts beyond the first": f"{per_second('gateway_upstream_attempts_total')} / {SENT_ON} - 1"},
        "Of requests that were sent on: how many more attempts than requests there were.",
    ),
    Panel(
        "Errors",
        "reqps",
        {"{{upstream}}: {{code}}": per_second("gateway_errors_total", "upstream, code", {**HERE, "blame": "upstream"})},
        "Requests that failed because of the upstream.",
        stacked=True,
    ),
    Panel(
        "Streams cut",
        "cps",
        {"{{by}}": per_second("gateway_streams_aborted_total", "by", {"by": "upstream|timeout"})},
        "Streams that an upstream broke, or in which it fell silent.",
    ),
    Panel(
        "Credentials echoed",
        "cps",
        {BY: f"{per_second('gateway_redacted_credentials_total', 'upstream', HERE)} or 0 * {UP}"},
        "Answers that repeated the gateway's own credential, which clients did not get.",
    ),
)

LATENCY = (
    Panel(
        "Time to first token, p50",
        "s",
        {BY: quantile(0.5, TTFT, "upstream", HERE)},
        "Half of the streams begin within this time.",
    ),
    Panel(
        "Time to first token, p99",
        "s",
        {BY: quantile(0.99, TTFT, "upstream", HERE)},
        "99 of 100 streams begin within this time.",
    ),
    Panel(
        "Duration, p99",
        "s",
        {BY: quantile(0.99, "gateway_request_duration_seconds", "upstream", HERE)},
        "99 of 100 requests end within this time.",
    ),
)

LOAD = (
    Panel(
        "Requests",
        "reqps",
        {BY: per_second("gateway_requests_total", "upstream", HERE)},
        "Requests a second, by the upstream that answered last.",
        stacked=True,
    ),
    Panel(
        "Tokens out",
        "short",
        {BY: per_second("gateway_tokens_total", "upstream", {**HERE, "direction": "output"})},
        "Tokens a second that each upstream produced.",
        stacked=True,
    ),
    Panel(
        "Cached input",
        "percentunit",
        {BY: share(CACHED, INPUT, f"0 * {INPUT}")},
        "Share of the input that upstreams had cached.",
        most=1,
    ),
)

UPSTREAMS = Dashboard(
    uid="inducta-upstreams",
    title="Inducta gateway: upstreams",
    about="Which model server is unhealthy: failures, latency, requests that had to go elsewhere.",
    rows=(("Health", HEALTH), ("Latency", LATENCY), ("Load", LOAD)),
    choices=(("upstream", "gateway_upstream_attempts_total"),),
)
