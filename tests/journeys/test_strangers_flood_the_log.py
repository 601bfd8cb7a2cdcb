"""Whoever has no key or token can ask as often as they like: it is counted, and fills neither disk nor log."""

from __future__ import annotations

import asyncio

import pytest

from gateway.demo import DemoUpstream
from gateway.telemetry.sampling import LINES
from tests.whole_gateway import whole_gateway

TOKEN = "operators-token-of-this-test"
CLOSED = {"listen": "127.0.0.1:0"}


async def test_lines_of_requests_without_a_good_key_are_so_many_and_the_rest_is_counted() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        more = 30
        await asyncio.gather(*[gateway.chat(key="gw_wrong") for _ in range(LINES + more)])
        assert (await gateway.chat()).status == 200
        await gateway.gateway._pipeline.wait_settled()
        requests = [line for line in gateway.lines if line["event"] == "request"]
        assert [line["status"] for line in requests] == [401] * LINES + [200]
        assert f'status="401"}} {LINES + more}' in await gateway.metrics()
    [left_out] = [line for line in gateway.lines if line["event"] == "log lines left out"]
    assert (left_out["of"], left_out["lines"], left_out["codes"]) == ("request", more, {"invalid_api_key": more})


@pytest.mark.parametrize(
    ("admin", "code"), [({**CLOSED, "token": TOKEN}, "invalid_api_key"), (CLOSED, "admin_forbidden")]
)
@pytest.mark.parametrize("body", [None, b"{}"])
async def test_refused_requests_to_the_admin_api_are_logged_and_counted(
    admin: dict[str, str], code: str, body: bytes | None
) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, admin=admin) as gateway:
        for _ in range(LINES + 5):
            headers = {"authorization": "Bearer wrong-token"}
            reply = await gateway.request("POST", "/admin/v1/reload", admin=True, headers=headers, data=body)
            assert reply.headers["server"] == "inducta-gateway"
        lines = [line for line in gateway.lines if line["event"] == "admin request refused"]
        assert len(lines) == LINES
        assert (lines[0]["client_ip"], lines[0]["path"], lines[0]["code"]) == ("127.0.0.1", "/admin/v1/reload", code)
        assert f'gateway_admin_requests_refused_total{{code="{code}"}} {LINES + 5}' in await gateway.metrics()
        assert "wrong-token" not in str(gateway.lines)
