"""Who uses what, against which quota, and what is refused."""

from __future__ import annotations

from deploy.dashboards.panel import Dashboard, Panel
from deploy.dashboards.promql import matching, per_second, share

TEAM = {"team": "$team"}
RATIO = f"gateway_quota_used_ratio{matching({'team': '$team|'})}"


RUNS_OUT = f"gateway_quota_runs_out_timestamp_seconds{matching({'team': '$team|'})}"


def by_quota(of_replicas: str, metric: str) -> str:
    """Over replicas; the organisation's own quotas, whose team is empty, are named."""
    return f'label_replace({of_replicas} by (team, meter, per) ({metric}), "team", "organisation", "team", "^$")'


USED = by_quota("max", RATIO)
QUOTA = "{{team}} {{meter}} a {{per}}"
LIMIT = "{{team}}: {{scope}} {{meter}} {{per}}"
REQUESTS = per_second("gateway_requests_total", "team", TEAM)
TOKENS = per_second("gateway_tokens_total", "team", {**TEAM, "direction": "input|output"})
ESTIMATED = per_second("gateway_tokens_total", "team", {**TEAM, "direction": "input|output", "source": "estimated"})

QUOTAS = (
    Panel(
        "Quotas",
        "percentunit",
        {QUOTA: USED},
        "How much of each quota is used.",
        "bargauge",
        warn=0.8,
        alarm=0.95,
        most=1,
    ),
    Panel("Quotas over time", "percentunit", {QUOTA: USED}, "A fall to nothing is a new window.", most=1),
    Panel(
        "Runs out in",
        "s",
        {QUOTA: f"clamp_min({by_quota('min', RUNS_OUT)} - time(), 0)"},
        "When a quota runs out at the pace of the last hours and days. One that lasts for its window is not here.",
    ),
)

REFUSALS = (
    Panel(
        "Refused by limit",
        "reqps",
        {LIMIT: per_second("gateway_refused_total", "team, scope, meter, per", TEAM)},
        "Requests a second that a limit refused.",
        stacked=True,
    ),
    Panel(
        "Share refused",
        "percentunit",
        {"{{team}}": share(per_second("gateway_refused_total", "team", TEAM), REQUESTS, f"0 * {REQUESTS}")},
        "Of each team's requests.",
    ),
    Panel(
        "Shadow limits",
        "reqps",
        {LIMIT: per_second("gateway_shadow_refused_total", "team, scope, meter, per", TEAM)},
        "Requests a second that limits in shadow mode would have refused.",
        stacked=True,
    ),
)

USE = (
    Panel("Requests", "reqps", {"{{team}}": REQUESTS}, "Finished requests a second.", stacked=True),
    Panel("Tokens", "short", {"{{team}}": TOKENS}, "Input and output a second.", stacked=True),
    Panel(
        "Cost",
        "currencyUSD",
        {"{{team}}": f"3600 * {per_second('gateway_cost_usd_total', 'team', TEAM)}"},
        "US dollars an hour.",
        stacked=True,
    ),
    Panel(
        "Cost by team and model",
        "currencyUSD",
        {"": f"sum by (team, model) (increase(gateway_cost_usd_total{matching(TEAM)}[$__range]))"},
        "US dollars over the time shown. For a bill, use `gateway usage`.",
        "table",
        12,
    ),
    Panel(
        "Estimated",
        "percentunit",
        {"{{team}}": share(ESTIMATED, TOKENS, f"0 * {TOKENS}")},
        "Share of tokens that no upstream reported.",
        width=12,
        warn=0.05,
    ),
)

TEAMS = Dashboard(
    uid="inducta-teams",
    title="Inducta gateway: teams",
    about="Who uses what, against which quota, and what is refused.",
    rows=(("Quotas", QUOTAS), ("Refusals", REFUSALS), ("Use", USE)),
    choices=(("team", "gateway_requests_total"),),
)
