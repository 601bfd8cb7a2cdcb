"""The first look: how much traffic, what fails and who is responsible, how fast, how much it costs."""

from __future__ import annotations

from deploy.dashboards.panel import Dashboard, Panel
from deploy.dashboards.promql import WINDOW, per_second, quantile, quantiles, share

REQUESTS = per_second("gateway_requests_total")
FAILED = share(per_second("gateway_errors_total", where={"blame": "upstream|gateway"}), REQUESTS)
REFUSED = share(per_second("gateway_refused_total"), REQUESTS)
TTFT = "gateway_time_to_first_token_seconds"
COST = "gateway_cost_usd_total"
# Other programs that Prometheus scrapes have process metrics too.
OURS = "and on (instance) gateway_build_info"

NOW = (
    Panel("Requests", "reqps", {"": REQUESTS}, "Finished requests a second.", "stat", 4),
    Panel(
        "Failed",
        "percentunit",
        {"": FAILED},
        "Share of requests that upstreams or the gateway itself failed.",
        "stat",
        4,
        warn=0.005,
        alarm=0.05,
    ),
    Panel(
        "Refused",
        "percentunit",
        {"": REFUSED},
        "Share of requests that a limit refused.",
        "stat",
        4,
        warn=0.05,
        alarm=0.2,
    ),
    Panel(
        "In flight", "short", {"": "sum(gateway_requests_in_flight)"}, "Requests under way, with streams.", "stat", 4
    ),
    Panel(
        "First token, p99",
        "s",
        {"": quantile(0.99, TTFT)},
        "99 of 100 streams begin within this time.",
        "stat",
        4,
        warn=5,
        alarm=20,
    ),
    Panel("Cost", "currencyUSD", {"": f"3600 * {per_second(COST)}"}, "US dollars an hour, as now.", "stat", 4),
)

TRAFFIC = (
    Panel(
        "Requests by model",
        "reqps",
        {"{{model}}": per_second("gateway_requests_total", "model")},
        "Finished requests a second.",
        stacked=True,
    ),
    Panel(
        "Requests by status",
        "reqps",
        {"{{status}}": per_second("gateway_requests_total", "status")},
        "499 is a client that left before it had an answer.",
        stacked=True,
    ),
    Panel(
        "Errors by blame",
        "reqps",
        {"{{blame}}: {{code}}": per_second("gateway_errors_total", "blame, code")},
        "Caller: the request. Policy: a limit. Upstream: the model server. Gateway: the gateway itself.",
        stacked=True,
    ),
    Panel(
        "In flight by process",
        "short",
        {"{{instance}}": "sum by (instance) (gateway_requests_in_flight)"},
        "Requests under way, with streams.",
        width=12,
    ),
    Panel(
        "Streams cut",
        "cps",
        {"{{by}}": per_second("gateway_streams_aborted_total", "by")},
        "Streams that ended before their answer did, and by the responsible party.",
        width=12,
    ),
)

SPEED = (
    Panel(
        "Duration",
        "s",
        quantiles("gateway_request_duration_seconds", {"upstream": ".+"}),
        "Of requests that an upstream answered: from their head to the end of the answer.",
    ),
    Panel("Time to first token", "s", quantiles(TTFT), "Streams: from a request's head to the first byte."),
    Panel(
        "Overhead",
        "s",
        quantiles("gateway_overhead_seconds"),
        "Time inside the gateway: duration less the waiting for the upstream.",
    ),
)

USE = (
    Panel(
        "Tokens",
        "short",
        {"{{direction}}": per_second("gateway_tokens_total", "direction", {"direction": "input|output"})},
        "Tokens a second, as charged.",
        width=12,
        stacked=True,
    ),
    Panel(
        "Cost by model",
        "currencyUSD",
        {"{{model}}": f"3600 * {per_second(COST, 'model')}"},
        "US dollars an hour.",
        width=12,
        stacked=True,
    ),
)

PROCESSES = (
    Panel(
        "CPU",
        "short",
        {"{{instance}}": f"rate(process_cpu_seconds_total{WINDOW}) {OURS}"},
        "Cores that each process uses.",
        width=6,
    ),
    Panel(
        "Memory",
        "bytes",
        {"{{instance}}": f"process_resident_memory_bytes {OURS}"},
        "Resident memory of each process.",
        width=6,
    ),
    Panel(
        "Configuration",
        "short",
        {"{{outcome}}": f"sum by (outcome) (increase(gateway_config_reloads_total{WINDOW}))"},
        "Configuration reloads, accepted or refused (the old configuration then stays).",
        width=6,
    ),
    Panel(
        "Notifications",
        "short",
        {
            "{{channel}} {{outcome}}": f"sum by (channel, outcome) (increase(gateway_notifications_total{WINDOW}))",
            "waiting": "max(gateway_notifications_waiting)",
        },
        "Attempts to notify operators, by receiver and outcome, and what waits.",
        width=6,
    ),
    Panel(
        "Worker restarts",
        "short",
        {"died and replaced": f"sum(increase(gateway_worker_restarts_total{WINDOW})) or vector(0)"},
        "Workers that died and were replaced, where a gateway has more than one.",
        width=6,
    ),
    Panel(
        "Event loop lag",
        "s",
        quantiles("gateway_loop_lag_seconds"),
        "How late the event loop of a process is: every stream of it waits as long.",
        width=6,
    ),
    Panel(
        "Failed background tasks",
        "short",
        {"{{task}}": f"sum by (task) (increase(gateway_task_failures_total{WINDOW})) or vector(0)"},
        "Background tasks that failed with an unexpected exception and were started again: see the log.",
        width=6,
    ),
    Panel(
        "Log lines and records dropped",
        "short",
        {
            "log lines, {{instance}}": f"sum by (instance) (increase(gateway_log_lines_dropped_total{WINDOW}))",
            "records, {{instance}}": f"sum by (instance) (increase(gateway_request_records_dropped_total{WINDOW}))",
        },
        "Log lines that could not be written: a full disk, a closed pipe or a slow reader. Records of requests that the"
        " store did not take in time.",
        width=6,
    ),
    Panel(
        "Client connections",
        "short",
        {"{{instance}}": f"gateway_client_connections {OURS}"},
        "Open connections of clients. max_clients bounds those of a process.",
        width=6,
    ),
    Panel(
        "Refused connections",
        "short",
        {
            "connections": f"sum(increase(gateway_client_connections_refused_total{WINDOW})) or vector(0)",
            "admin requests": f"sum(increase(gateway_admin_requests_refused_total{WINDOW})) or vector(0)",
        },
        "Client connections that were refused, and requests to the admin API without a good token.",
        width=6,
    ),
    Panel(
        "Spans",
        "short",
        {"{{outcome}}": f"sum by (outcome) (increase(gateway_spans_total{WINDOW}))"},
        "Spans of traces, where they are exported: dropped are those that did not fit into the queue.",
        width=6,
    ),
    Panel(
        "Configuration in use",
        "dateTimeAsIso",
        {
            "{{instance}}: {{hash}}": "1000 * gateway_config_last_reload_success_timestamp_seconds"
            " * on (instance) group_right () gateway_config_info"
        },
        "When the configuration in use was loaded. Replicas with the same file show the same hash.",
        width=6,
    ),
)

OVERVIEW = Dashboard(
    uid="inducta-overview",
    title="Inducta gateway: overview",
    about="How much traffic, what fails and who is responsible, how fast, how much it costs.",
    rows=(("Now", NOW), ("Traffic", TRAFFIC), ("Speed", SPEED), ("Use", USE), ("Processes", PROCESSES)),
)
