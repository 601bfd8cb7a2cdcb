"""Many open consoles: what one answer says of everything, who shares it, and what ends it; and several gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http.cookies import SimpleCookie
from pathlib import Path

from gateway.demo import DemoScript, DemoUpstream
from tests.redis_servers import redis_server
from tests.whole_gateway import Json, Reply, WholeGateway, whole_gateway

TOKEN = "operators-token"
ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
BY_TOKEN = {"authorization": f"Bearer {TOKEN}"}
SAME_ORIGIN = {"x-gateway-console": "1"}
NOWHERE = "http://127.0.0.1:1/v1"
TEAM = {"limits": [{"requests": 2, "per": "day"}, {"tokens": 1_000_000, "per": "month"}]}


async def ask(gateway: WholeGateway, path: str, headers: Mapping[str, str], method: str = "GET", **more: Json) -> Reply:
    return await gateway.request(method, f"/admin/v1/{path}", admin=True, headers=headers, **more)


async def signed_in(gateway: WholeGateway) -> dict[str, str]:
    """What the browser of one more viewer sends."""
    reply = await ask(gateway, "session", {**BY_TOKEN, **SAME_ORIGIN}, "POST")
    (cookie,) = SimpleCookie(reply.headers["set-cookie"]).values()
    return {"cookie": f"{cookie.key}={cookie.value}", "accept-encoding": "identity", **SAME_ORIGIN}


async def test_the_overview_has_the_figures_of_the_pages() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=5)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, team=TEAM) as gateway,
    ):
        for _ in range(2):
            await gateway.chat(stream=True)
            await gateway.ended()
        overview = (await ask(gateway, "overview?minutes=5", BY_TOKEN)).json

        async def page(path: str) -> Json:
            return (await ask(gateway, path, BY_TOKEN)).json

        for part, path in (
            ("today", "usage?since=1d"),
            ("days", "usage?by=day&since=month"),
            ("teams", "usage?by=team&since=month&sort=usd&top=6"),
            ("upstreams", "upstreams"),
        ):
            assert overview[part] == await page(path), path
        traffic = await page("traffic?minutes=5")
        assert overview["traffic"]["buckets"] == traffic["buckets"]
        assert sum(each["requests"] for each in overview["traffic"]["data"]) == 2
        nearly = [each for each in (await page("limits"))["data"] if each["name"] == "requests-per-day"]
        # What is used up runs out now, which is a moment later by now.
        assert _without_forecast(overview["limits"]["data"]) == _without_forecast(nearly) != []
        assert overview["problem"] is None
        assert (await ask(gateway, "overview?minutes=0", BY_TOKEN)).status == 400
        assert (await ask(gateway, "overview?colour=red", BY_TOKEN)).status == 400


def _without_forecast(limits: list[Json]) -> list[Json]:
    return [{name: value for name, value in each.items() if name != "runs_out_at"} for each in limits]


async def test_viewers_share_an_answer_until_one_of_them_changes_something() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=5)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, team=TEAM) as gateway,
    ):
        for _ in range(2):
            await gateway.chat()
            await gateway.ended()
        viewers = [await signed_in(gateway) for _ in range(8)]
        replies = await asyncio.gather(*[ask(gateway, "overview", viewer) for viewer in viewers])
        assert len({reply.json["at"] for reply in replies}) == 1
        assert [each["name"] for each in replies[0].json["limits"]["data"]] == ["requests-per-day"]
        same = await ask(gateway, "overview", {**viewers[0], "if-none-match": replies[0].headers["etag"]})
        assert (same.status, same.body, same.headers["cache-control"]) == (304, b"", "no-store")
        grant = {"team": "search", "limit": "requests-per-day", "amount": 100, "until": "3d", "why": "a launch"}
        assert (await ask(gateway, "grants", viewers[1], "POST", json=grant)).status == 200
        assert (await ask(gateway, "overview", viewers[2])).json["limits"]["data"] == []


async def test_limits_are_listed_by_scope() -> None:
    limits = [{"tokens": 1_000_000, "per": "month"}]
    async with whole_gateway(NOWHERE, admin=ADMIN, team=TEAM, limits=limits) as gateway:
        for scope, count in (("team", 2), ("organisation", 1), ("key", 0), ("model", 0)):
            listed = (await ask(gateway, f"limits?scope={scope}", BY_TOKEN)).json["data"]
            assert [each["scope"] for each in listed] == [scope] * count
        assert (await ask(gateway, "limits?scope=user", BY_TOKEN)).status == 400
        key = {"team": "search", "name": "of-the-store", "limits": [{"requests": 5, "per": "day"}]}
        assert (await ask(gateway, "keys", BY_TOKEN, "POST", json=key)).status == 200
        for query in ("", "?scope=", "?scope=key"):
            listed = (await ask(gateway, f"limits{query}", BY_TOKEN)).json["data"]
            assert [each["scope"] for each in listed].count("key") == 1, query


async def test_while_the_store_is_out_the_overview_shows_what_is_known_without_it(tmp_path: Path) -> None:
    with redis_server() as redis:
        store = {"url": redis.url, "journal": str(tmp_path / "journal"), "timeout": "100ms"}
        async with whole_gateway(NOWHERE, admin=ADMIN, store=store) as gateway:
            viewer = await signed_in(gateway)
            assert (await ask(gateway, "overview", viewer)).json["problem"] is None
            redis.kill()
            overview = (await ask(gateway, "overview", BY_TOKEN)).json
            assert (overview["days"], overview["limits"]) == (None, None)
            assert "store" in overview["problem"]
            assert [each["name"] for each in overview["upstreams"]["data"]] == ["up1"]
            assert (await ask(gateway, "overview?minutes=7", viewer)).status == 200, "the session was seen before"


async def test_a_browser_signs_in_at_one_gateway_and_asks_another(tmp_path: Path) -> None:
    """A load balancer in front of two gateways of one store sends each request anywhere."""
    with redis_server() as redis:
        one, other = ({"url": redis.url, "journal": str(tmp_path / name)} for name in ("one", "other"))
        async with (
            whole_gateway(NOWHERE, admin=ADMIN, store=one) as first,
            whole_gateway(NOWHERE, admin=ADMIN, store=other) as second,
        ):
            viewer = await signed_in(first)
            for page in ("overview", "keys", "session"):
                reply = await ask(second, page, viewer)
                assert (reply.status, reply.json.get("signed_in", True)) == (200, True)
            made = await ask(second, "keys", viewer, "POST", json={"team": "search", "name": "of-the-other"})
            assert made.json["id"] in [key["id"] for key in (await ask(first, "keys", viewer)).json["data"]]
            assert (await ask(second, "session", viewer, "DELETE")).status == 200
            assert (await ask(first, "overview", viewer)).status == 401
