"""What operators see and do while the gateway runs: the admin API behind its token, and a new configuration."""

from __future__ import annotations

import asyncio
from io import BytesIO

import pytest

from gateway.app.snapshot_builder import loaded_snapshot
from gateway.demo import DemoScript, DemoUpstream
from gateway.settings.models import Settings
from tests.raw_client import raw_client
from tests.whole_gateway import MODEL, PATIENCE_S, Reply, WholeGateway, configuration, settings_of, whole_gateway

TOKEN = "operators-token"
ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
TEAM = {"limits": [{"tokens": 2_000, "per": "day"}]}


async def ask(gateway: WholeGateway, page: str, *, token: str = TOKEN, method: str = "GET") -> Reply:
    headers = {"authorization": f"Bearer {token}"}
    return await gateway.request(method, f"/admin/v1/{page}", admin=True, headers=headers)


async def test_usage_tells_what_was_settled_by_what_one_asks() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=30)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN) as gateway,
    ):
        for _ in range(2):
            await gateway.chat(stream=True)
            await gateway.ended()
        told = (await ask(gateway, "usage?by=team,model")).json
        assert [(row["team"], row["model"], row["requests"], row["output_tokens"]) for row in told["rows"]] == [
            ("search", MODEL, 2, 60)
        ]
        assert told["total"]["output_tokens"] == 60
        assert (await ask(gateway, "usage?since=2999-01-01")).json["rows"] == []
        told = (await ask(gateway, "usage?by=upstream,user,cost_center&since=month&sort=usd&top=1&upstream=up1")).json
        assert [(row["upstream"], row["user"], row["requests"]) for row in told["rows"]] == [("up1", "", 2)]


@pytest.mark.parametrize("query", ["by=colour", "since=yesterday", "until=1", "sort=colour", "top=no", "colour=red"])
async def test_a_question_that_means_nothing_is_told_so(query: str) -> None:
    async with whole_gateway("http://127.0.0.1:1/v1", admin=ADMIN) as gateway:
        reply = await ask(gateway, f"usage?{query}")
        assert (reply.status, reply.error["code"]) == (400, "invalid_value")
        assert reply.error["param"] == query.partition("=")[0]


async def test_limits_keys_teams_and_upstreams_are_listed_without_secrets() -> None:
    team = {**TEAM, "owner": "search-leads@example.com"}
    async with whole_gateway("http://127.0.0.1:1/v1", admin=ADMIN, team=team) as gateway:
        (limit,) = (await ask(gateway, "limits?team=search")).json["data"]
        assert (limit["name"], limit["left"], limit["mode"]) == ("tokens-per-day", 2_000, "enforce")
        (key,) = (await ask(gateway, "keys")).json["data"]
        assert (key["name"], key["status"], key["source"]) == ("search-test", "active", "config")
        assert (await ask(gateway, f"keys/{key['id']}")).json == key
        (found,) = (await ask(gateway, "teams")).json["data"]
        assert (found["name"], found["keys"], found["models"]) == ("search", [key["id"]], [MODEL])
        assert found["owner"] == "search-leads@example.com"
        (upstream,) = (await ask(gateway, "upstreams")).json["data"]
        assert (upstream["name"], upstream["models"]) == ("up1", [MODEL])


async def test_the_admin_api_is_closed_without_a_token_and_to_another() -> None:
    async with whole_gateway("http://127.0.0.1:1/v1") as gateway:
        assert (await ask(gateway, "usage")).status == 403
        assert (await gateway.request("GET", "/readyz", admin=True)).status == 200
    async with whole_gateway("http://127.0.0.1:1/v1", admin=ADMIN) as gateway:
        assert (await ask(gateway, "usage", token="another")).status == 401
        assert (await gateway.request("GET", "/admin/v1/usage", admin=True)).status == 401
        assert (await ask(gateway, "nothing")).status == 404
        assert (await ask(gateway, "usage", method="DELETE")).status == 405


async def test_what_is_no_text_or_too_long_is_refused_like_anything_else() -> None:
    async with whole_gateway("http://127.0.0.1:1/v1", admin=ADMIN) as gateway, raw_client(gateway.admin_port) as client:
        client.send(b"GET /admin/v1/keys?team=%ff HTTP/1.1\r\nhost: g\r\nauthorization: Bearer \xff\r\n\r\n")
        assert (await client.until(b'"invalid_api_key"')).startswith(b"HTTP/1.1 401")
        given = {"authorization": f"Bearer {TOKEN}"}
        body = BytesIO(bytes(2**20 + 1))
        large = await gateway.request("POST", "/admin/v1/reload", admin=True, data=body, headers=given)
        assert (large.status, large.error["code"]) == (413, "request_too_large")


async def test_metrics_say_how_late_the_event_loop_was() -> None:
    async with whole_gateway("http://127.0.0.1:1/v1") as gateway, asyncio.timeout(PATIENCE_S):
        assert "gateway_loop_lag_seconds_sum" in await gateway.metrics()
        while "gateway_loop_lag_seconds_count 0" in await gateway.metrics():
            continue


def with_limit(url: str, amount: int) -> Settings:
    return settings_of(configuration(url, team={"limits": [{"requests": amount, "per": "day"}]}))


async def test_a_raised_limit_goes_on_from_what_was_used() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=1)) as upstream,
        whole_gateway(upstream.base_url, team={"limits": [{"requests": 1, "per": "day"}]}) as gateway,
    ):
        assert (await gateway.chat()).status == 200
        assert (await gateway.chat()).status == 429
        gateway.gateway.swap(loaded_snapshot(with_limit(upstream.base_url, 2)))
        assert (await gateway.chat()).status == 200
        assert (await gateway.chat()).status == 429


async def test_a_stream_goes_on_under_the_configuration_that_it_began_with() -> None:
    paced = DemoScript(chunks=5, chunk_delay_ms=20)
    async with (
        DemoUpstream(paced) as old,
        DemoUpstream(DemoScript(chunks=5)) as new,
        whole_gateway(old.base_url) as gateway,
    ):
        stream = await gateway.open_stream()
        await stream.event()
        gateway.gateway.swap(loaded_snapshot(settings_of(configuration(new.base_url))))
        assert (await gateway.chat()).status == 200
        assert (await stream.rest()).events[-1] == "[DONE]"
        assert (old.truth.total.requests, new.truth.total.requests) == (1, 1)


async def test_a_quota_that_a_reload_removes_is_no_metric_any_more() -> None:
    async with DemoUpstream(DemoScript(chunks=30)) as upstream, whole_gateway(upstream.base_url, team=TEAM) as gateway:
        await gateway.chat()
        await gateway.ended()
        series = b'gateway_quota_used_ratio{team="search",limit="tokens-per-day",meter="tokens",per="day"}'
        assert series in (await gateway.request("GET", "/metrics", admin=True)).body
        gateway.gateway.swap(loaded_snapshot(settings_of(configuration(upstream.base_url))))
        assert series not in (await gateway.request("GET", "/metrics", admin=True)).body


async def test_the_configuration_in_use_is_a_metric_from_the_start() -> None:
    async with whole_gateway("http://127.0.0.1:1/v1") as gateway:
        page = await gateway.request("GET", "/metrics", admin=True)
        assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = page.body.decode()
        hashes = [line for line in text.splitlines() if line.startswith("gateway_config_info{")]
        assert [len(line.split('"')[1]) for line in hashes] == [12]
        assert "gateway_config_last_reload_success_timestamp_seconds 1" in text


async def test_the_configuration_in_force_is_shown_without_secrets_and_compared_with_another() -> None:
    async with whole_gateway("http://127.0.0.1:1/v1", admin=ADMIN, team=TEAM) as gateway:
        shown = (await ask(gateway, "config")).json
        assert (len(shown["hash"]), shown["file"]) == (12, "test.yaml")
        assert "tokens-per-day" not in shown["text"]
        assert '"tokens": 2000' in shown["text"]
        assert TOKEN not in shown["text"]
        other = shown["text"].replace('"tokens": 2000', '"tokens": 3000')
        headers = {"authorization": f"Bearer {TOKEN}"}
        told = await gateway.request("POST", "/admin/v1/config/diff", admin=True, json={"text": other}, headers=headers)
        paths = [each["path"] for each in told.json["changes"]]
        assert "teams.search.limits.tokens-per-day.tokens" in paths
