from __future__ import annotations

from typing import Any

import pytest

from gateway.cli.top_view import LiveView, MetricsReading, Pace, as_json, frame

AT = 1_793_880_000.0

BEFORE = """
# HELP gateway_requests_total Finished requests.
gateway_build_info{version="1.2.3",python="3.11"} 1
gateway_config_info{hash="abc"} 1
gateway_requests_in_flight 3
gateway_requests_total{endpoint="chat",team="search",model="m",upstream="up",status="200"} 100
gateway_requests_total{endpoint="chat",team="chat",model="m",upstream="up",status="200"} 900
gateway_tokens_total{team="search",direction="input"} 1000
gateway_upstream_attempts_total{upstream="up",outcome="200"} 1000
gateway_time_to_first_token_seconds_bucket{le="0.5"} 10
gateway_time_to_first_token_seconds_bucket{le="1"} 10
gateway_time_to_first_token_seconds_bucket{le="+Inf"} 10
gateway_store_calls_total{call="admit",outcome="ok"} 10
gateway_store_call_seconds_sum{call="admit"} 1
gateway_store_call_seconds_count{call="admit"} 10
gateway_unsettled_requests 0
"""

AFTER = """
gateway_build_info{version="1.2.3",python="3.11"} 1
gateway_config_info{hash="abc"} 1
gateway_requests_in_flight 5
gateway_requests_total{endpoint="chat",team="search",model="m",upstream="up",status="200"} 120
gateway_requests_total{endpoint="chat",team="search",model="m",upstream="up",status="502"} 4
gateway_requests_total{endpoint="chat",team="chat",model="m",upstream="up",status="200"} 900
gateway_errors_total{blame="upstream",code="upstream_unreachable",upstream="up"} 4
gateway_errors_total{blame="policy",code="rate_limit_exceeded",upstream=""} 2
gateway_refused_total{team="search",limit="l"} 2
gateway_tokens_total{team="search",direction="input"} 1400
gateway_tokens_total{team="search",direction="output"} 100
gateway_upstream_attempts_total{upstream="up",outcome="200"} 1018
gateway_upstream_attempts_total{upstream="up",outcome="206"} 2
gateway_upstream_attempts_total{upstream="up",outcome="connect_refused"} 4
gateway_time_to_first_token_seconds_bucket{le="0.5"} 19
gateway_time_to_first_token_seconds_bucket{le="1"} 20
gateway_time_to_first_token_seconds_bucket{le="+Inf"} 20
gateway_store_calls_total{call="admit",outcome="ok"} 30
gateway_store_calls_total{call="admit",outcome="unavailable"} 2
gateway_store_call_seconds_sum{call="admit"} 1.01
gateway_store_call_seconds_count{call="admit"} 30
gateway_unsettled_requests 7
"""

UPSTREAMS = [
    {"name": "up", "up": True, "in_flight": 5, "circuits": [{"model": "m", "state": "open"}]},
    {"name": "spare", "up": False, "in_flight": 0, "circuits": [{"model": "m", "state": "closed"}]},
]


def requests(*ids: str) -> dict[str, Any]:
    usual = {"team": "search", "key_name": "k", "model": "m", "upstream": "up", "state": "answering", "age_s": 1.5}
    return {
        "data": [{"id": name, "output_tokens": 1_234, "process": "host:1", **usual} for name in ids],
        "problem": None,
    }


def view(before: str | None = BEFORE, after: str = AFTER, *ids: str, problem: str = "") -> LiveView:
    reading = MetricsReading(after, AT + 2)
    pace = None if before is None else Pace(MetricsReading(before, AT), reading)
    return LiveView("127.0.0.1:9090", reading, pace, UPSTREAMS, requests(*ids), problem)


def shown(seen: LiveView, columns: int = 200, rows: int = 100) -> str:
    return "\n".join(frame(seen, columns, rows))


def test_rates_are_what_has_grown_in_a_second_between_two_readings() -> None:
    assert frame(view(BEFORE, AFTER, "req-1"), 200, 100) == [
        "gateway 127.0.0.1:9090  12:00:02 UTC  version 1.2.3  configuration abc",
        "requests/s 12.0  in flight 5  tokens/s in 200 out 50.0  USD/h 0.0",
        "refused/s 1.0  failed/s 2.0 (upstream 2.0)",
        "first token 500 ms median 1.0 s p99  own time - p99  event loop late by -",
        "store failing  calls/s 11.0  each 0.5 ms  failing/s 1.0  unsettled 7",
        "",
        "upstream  is    in flight  tries/s  not 2xx/s  circuits",
        "up        up            5  12.0     2.0        m open",
        "spare     DOWN          0  0.0      0.0",
        "",
        "team    requests/s  tokens/s  refused/s",
        "search  12.0        250       1.0",
        "",
        "request in flight  team    key  model  upstream  state      age    tokens",
        "req-1              search  k    m      up        answering  1.5 s   1,234",
    ]


def test_a_counter_that_fell_is_that_of_a_gateway_that_was_restarted() -> None:
    pace = Pace(MetricsReading(AFTER, AT), MetricsReading(BEFORE, AT + 10))
    assert pace.of("gateway_requests_total", team="search") == 10.0
    assert pace.of("gateway_store_calls_total") == 1.0


def test_the_first_reading_shows_what_needs_no_second() -> None:
    text = shown(view(None))
    assert "in flight 5; rates come with the second reading" in text
    assert "up        up            5" in text


def test_a_store_that_answers_no_call_is_out_and_one_in_memory_has_no_calls() -> None:
    out = AFTER.replace('outcome="ok"} 30', 'outcome="ok"} 10')
    assert "store OUT  calls/s 1.0" in shown(view(BEFORE, out))
    assert "store in memory  unsettled 7" in shown(view("", AFTER.replace("gateway_store_calls_total", "other")))


@pytest.mark.parametrize(("columns", "rows"), [(60, 12), (20, 3), (200, 100), (1, 1)])
def test_a_frame_fits_into_its_window(columns: int, rows: int) -> None:
    lines = frame(view(BEFORE, AFTER, *[f"req-{number}" for number in range(200)]), columns, rows)
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns


def test_what_a_client_chose_cannot_move_the_cursor() -> None:
    assert "\x1b" not in shown(view(BEFORE, AFTER, "\x1b[2Jreq"))


def test_why_something_is_missing_comes_right_below_the_title() -> None:
    assert shown(view(problem="No gateway answers.")).splitlines()[1] == "No gateway answers."


def test_programs_get_the_same_as_json() -> None:
    found = as_json(view(BEFORE, AFTER, "req-1"))
    assert (found["at"], found["version"], found["config"]) == ("2026-11-05T12:00:02.000Z", "1.2.3", "abc")
    assert (found["in_flight"], found["unsettled"], found["requests_per_s"], found["refused_per_s"]) == (
        5,
        7,
        12.0,
        1.0,
    )
    assert (found["input_tokens_per_s"], found["output_tokens_per_s"]) == (200.0, 50.0)
    assert found["failed_per_s"] == {"upstream": 2.0, "policy": 1.0}
    assert found["teams"] == {"search": 12.0, "chat": 0.0}
    assert ([each["name"] for each in found["upstreams"]], found["requests"][0]["id"]) == (["up", "spare"], "req-1")
    assert found["problem"] is None


def test_rates_of_one_reading_are_not_known() -> None:
    found = as_json(view(None))
    assert (found["requests_per_s"], found["usd_per_s"], found["teams"], found["in_flight"]) == (None, None, {}, 5)
