"""Upstreams that fail again and again: requests find the one that is well, and operators see which is not."""

from __future__ import annotations

from gateway.core.circuit import FAILURES_IN_A_ROW
from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import MODEL, Json, WholeGateway, whole_gateway

SICK = DemoScript(status=500)
ADMIN = {"listen": "127.0.0.1:0", "token": "t"}


async def upstreams_seen(gateway: WholeGateway) -> dict[str, Json]:
    reply = await gateway.request("GET", "/admin/v1/upstreams", admin=True, headers={"authorization": "Bearer t"})
    return {seen["name"]: seen for seen in reply.json["data"]}


async def test_a_sick_upstream_is_asked_no_more_until_it_has_rested() -> None:
    async with (
        DemoUpstream(SICK) as sick,
        DemoUpstream(DemoScript(chunks=2)) as well,
        whole_gateway(sick.base_url, well.base_url, admin=ADMIN) as gateway,
    ):
        for _ in range(FAILURES_IN_A_ROW + 10):
            assert (await gateway.chat()).status == 200
        assert sick.truth.total.requests == FAILURES_IN_A_ROW
        seen = await upstreams_seen(gateway)
        assert (seen["up1"]["up"], seen["up1"]["circuits"][0]["state"]) == (False, "open")
        assert (seen["up2"]["up"], seen["up2"]["circuits"][0]["state"]) == (True, "closed")
        assert 'gateway_upstream_up{upstream="up1"} 0' in await gateway.metrics()
        assert [
            (line["upstream"], line["before"], line["after"])
            for line in gateway.lines
            if line["event"] == "upstream health"
        ] == [("up1", "closed", "open")]


async def test_an_error_event_inside_a_stream_counts_as_a_failure() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=4, error_after=1)) as sick,
        whole_gateway(sick.base_url, admin=ADMIN) as gateway,
    ):
        for _ in range(FAILURES_IN_A_ROW):
            await gateway.chat(stream=True)
            await gateway.ended()
        trickle = await gateway.chat(stream=True)
        assert trickle.status == 200
        assert (await gateway.chat(stream=True)).error["code"] == "no_upstream_available"


async def test_a_callers_mistake_never_counts_as_a_failure() -> None:
    async with DemoUpstream(DemoScript(status=400)) as upstream, whole_gateway(upstream.base_url) as gateway:
        for _ in range(FAILURES_IN_A_ROW * 4):
            assert (await gateway.chat()).status == 400
        upstream.script = DemoScript(chunks=1)
        assert (await gateway.chat()).status == 200


async def test_where_nobody_is_well_the_answer_says_when_to_come_back() -> None:
    async with DemoUpstream(SICK) as sick, whole_gateway(sick.base_url) as gateway:
        for _ in range(FAILURES_IN_A_ROW):
            assert (await gateway.chat()).status == 500
        trickle = await gateway.chat()
        assert trickle.status == 500
        refused = await gateway.chat()
        assert (refused.status, refused.error["code"]) == (503, "no_upstream_available")
        assert 1 <= int(refused.headers["retry-after"]) <= 5


async def test_an_upstream_that_asks_to_be_left_alone_is_left_alone() -> None:
    busy = DemoScript(status=429, headers={"retry-after": "30"})
    async with (
        DemoUpstream(busy) as one,
        DemoUpstream(DemoScript(chunks=1)) as other,
        whole_gateway(one.base_url, other.base_url) as gateway,
    ):
        for _ in range(5):
            assert (await gateway.chat()).status == 200
        assert one.truth.total.requests == 1


async def test_checks_find_a_sick_upstream_before_a_request_does() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=1)) as sick,
        DemoUpstream(DemoScript(chunks=1)) as well,
    ):
        check = {"path": "/none-such", "every": "10ms"}
        upstreams = {
            "up1": {"base_url": sick.base_url, "health": check},
            "up2": {"base_url": well.base_url, "health": {"path": "/models", "every": "10ms"}},
        }
        async with whole_gateway(sick.base_url, well.base_url, upstreams=upstreams, admin=ADMIN) as gateway:
            while (await upstreams_seen(gateway))["up1"]["up"]:
                continue
            seen = await upstreams_seen(gateway)
            assert (sum(seen["up1"]["failed_checks"].values()), seen["up2"]["failed_checks"]) == (3, {})
            assert (await gateway.chat()).status == 200
            assert well.truth.total.completed == 1


async def test_equal_routes_take_turns_and_one_users_requests_stay_together() -> None:
    async with DemoUpstream(DemoScript(chunks=1)) as one, DemoUpstream(DemoScript(chunks=1)) as other:
        routes = [{"upstream": "up1"}, {"upstream": "up2"}]
        async with whole_gateway(one.base_url, other.base_url, model={"routes": routes}) as gateway:
            for _ in range(10):
                await gateway.chat()
            assert (one.truth.total.requests, other.truth.total.requests) == (5, 5)
        loyal = {"routes": routes, "affinity": "user"}
        async with whole_gateway(one.base_url, other.base_url, model=loyal) as gateway:
            for _ in range(10):
                await gateway.chat(user="anna")
            assert sorted((one.truth.total.requests, other.truth.total.requests)) == [5, 15]
            assert gateway.lines[-1]["model"] == MODEL
