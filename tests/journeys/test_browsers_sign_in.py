"""Browsers at the console and at /me: sign-in, cookies, requests of other pages, the end of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http.cookies import Morsel, SimpleCookie
from pathlib import Path

import aiohttp
import pytest

from gateway.demo import DemoScript, DemoUpstream
from gateway.web.admin_openapi import PREFIX
from tests.redis_servers import redis_server
from tests.whole_gateway import KEY, MODEL, Json, Reply, WholeGateway, whole_gateway
from tests.workers import TOKEN, shared, workers_process

ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
NOWHERE = "http://127.0.0.1:1/v1"
SAME_ORIGIN = {"x-gateway-console": "1"}


def cookie_of(reply: Reply) -> Morsel[str]:
    (morsel,) = SimpleCookie(reply.headers["set-cookie"]).values()
    return morsel


async def admin(gateway: WholeGateway, method: str, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    return await gateway.request(method, f"/admin/v1/{path}", admin=True, headers=headers)


async def signed_in(gateway: WholeGateway, **more: str) -> Morsel[str]:
    """The cookie that the console's page has once it has signed in."""
    reply = await admin(gateway, "POST", "session", {"authorization": f"Bearer {TOKEN}", **SAME_ORIGIN, **more})
    assert (reply.status, reply.json["signed_in"]) == (200, True)
    return cookie_of(reply)


def with_cookie(morsel: Morsel[str]) -> dict[str, str]:
    return {"cookie": f"other=1; {morsel.key}={morsel.value}", **SAME_ORIGIN}


async def test_a_browser_signs_in_looks_around_and_signs_out() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        assert (await admin(gateway, "GET", "session")).json["signed_in"] is False
        headers = with_cookie(await signed_in(gateway))
        assert (await admin(gateway, "GET", "teams", headers)).status == 200
        assert (await admin(gateway, "GET", "session", headers)).json["signed_in"] is True
        out = await admin(gateway, "DELETE", "session", headers)
        assert (out.json["signed_in"], cookie_of(out)["max-age"]) == (False, "0")
        assert (await admin(gateway, "GET", "teams", headers)).status == 401
        assert (await admin(gateway, "GET", "session", headers)).json["signed_in"] is False


async def test_no_script_reads_the_cookie_and_no_other_site_sends_it() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        cookie = await signed_in(gateway)
        assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/admin/v1", "Strict", True)
        assert not cookie["secure"]
        assert 0 < int(cookie["max-age"]) <= 12 * 3600
        assert TOKEN not in cookie.value
        assert (await signed_in(gateway, **{"x-forwarded-proto": "https"}))["secure"] is True


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "usage"), ("POST", "keys"), ("POST", "reload"), ("DELETE", "session")]
)
async def test_another_page_cannot_use_the_cookie(method: str, path: str) -> None:
    """A form, a picture or a page on another port of the same host sends it, but cannot send the header beside it."""
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        cookie = await signed_in(gateway)
        forged = {"cookie": f"{cookie.key}={cookie.value}", "origin": "http://127.0.0.1:3000"}
        reply = await admin(gateway, method, path, forged)
        assert reply.status == 401 or (path == "session" and reply.json["signed_in"] is False)
        assert (await admin(gateway, "GET", "teams", with_cookie(cookie))).status == 200, "the session goes on"
        preflight = {"origin": "http://127.0.0.1:3000", "access-control-request-headers": "x-gateway-console"}
        answered = await admin(gateway, "OPTIONS", path, preflight)
        assert not [name for name in answered.headers if name.lower().startswith("access-control-")]


async def test_a_session_cannot_sign_in_again_by_itself() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        cookie = await signed_in(gateway)
        assert (await admin(gateway, "POST", "session", with_cookie(cookie))).status == 401


async def test_a_wrong_token_does_not_sign_in_and_is_noted() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        reply = await admin(gateway, "POST", "session", {"authorization": "Bearer another", **SAME_ORIGIN})
        assert (reply.status, "set-cookie" in reply.headers) == (401, False)
        assert 'gateway_admin_requests_refused_total{code="invalid_api_key"} 1' in await gateway.metrics()


async def test_a_guessed_cookie_is_no_session() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        for guess in ("", "x", "x" * 5000, "../../a", "%00"):
            headers = {"cookie": f"gateway-console={guess}", **SAME_ORIGIN}
            assert (await admin(gateway, "GET", "teams", headers)).status == 401


async def test_signing_in_and_out_is_in_the_audit() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        headers = with_cookie(await signed_in(gateway))
        await admin(gateway, "DELETE", "session", headers)
        entries = (await admin(gateway, "GET", "audit", {"authorization": f"Bearer {TOKEN}"})).json["data"]
        assert [(each["action"], each["actor"]) for each in entries] == [
            ("console.sign_out", "the console, from 127.0.0.1"),
            ("console.sign_in", "the console, from 127.0.0.1"),
        ]


async def test_what_the_console_changes_is_in_the_audit_as_the_consoles() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        headers = with_cookie(await signed_in(gateway))
        body = {"team": "search", "name": "made-in-a-browser"}
        made = await gateway.request("POST", "/admin/v1/keys", admin=True, json=body, headers=headers)
        assert made.status == 200
        entry = (await admin(gateway, "GET", "audit", headers)).json["data"][0]
        assert (entry["action"], entry["actor"]) == ("key.create", "the console, from 127.0.0.1")


async def test_without_a_token_the_console_is_closed_and_says_so() -> None:
    async with whole_gateway(NOWHERE) as gateway:
        page = await gateway.request("GET", "/console", admin=True)
        assert (page.status, b"admin.token" in page.body) == (403, True)
        assert (await admin(gateway, "GET", "session")).status == 403
        assert (await admin(gateway, "POST", "session", {"authorization": "Bearer x"})).status == 403
        assert (await gateway.request("GET", "/console/style.css", admin=True)).status == 200


async def test_pages_carry_a_strict_policy() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        for page in (await gateway.request("GET", "/console", admin=True), await gateway.request("GET", "/me")):
            policy = page.headers["content-security-policy"]
            assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
            assert "unsafe" not in policy
            assert page.headers["x-frame-options"] == "DENY"


async def test_unknown_parameters_and_methods_are_refused() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        assert (await admin(gateway, "GET", "session?colour=red")).status == 400
        assert (await admin(gateway, "PUT", "session")).status == 405
        assert (await gateway.request("POST", "/console", admin=True)).status == 405
        assert (await gateway.request("GET", "/console/nothing.js", admin=True)).status == 404


async def test_what_passed_is_shown_minute_by_minute() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=5)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN) as gateway,
    ):
        await gateway.chat(stream=True)
        await gateway.ended()
        headers = {"authorization": f"Bearer {TOKEN}"}
        samples = (await admin(gateway, "GET", "traffic?minutes=5", headers)).json["data"]
        assert sum(each["requests"] for each in samples) == 1
        assert sum(each["output_tokens"] for each in samples) == 5
        assert [each["attempts"] for each in samples if each["attempts"]] == [{"up1": {"200": 1}}]
        for wrong in ("minutes=0", "minutes=361", "minutes=x", "hours=1"):
            assert (await admin(gateway, "GET", f"traffic?{wrong}", headers)).status == 400


async def test_models_are_shown_with_routes_and_prices_and_without_credentials() -> None:
    model = {"price": {"input": 0.15, "output": 0.6, "cached_input": 0.07}, "aliases": ["oss"], "context_window": 4096}
    async with whole_gateway(NOWHERE, admin=ADMIN, model=model) as gateway:
        (shown,) = (await admin(gateway, "GET", "models", {"authorization": f"Bearer {TOKEN}"})).json["data"]
        assert (shown["name"], shown["aliases"], shown["context_window"]) == (MODEL, ["oss"], 4096)
        (route,) = shown["routes"]
        assert route == {
            "upstream": "up1",
            "model": MODEL,
            "weight": 1,
            "priority": 1,
            "price": {"input": 0.15, "output": 0.6, "cached_input": 0.07},
        }


async def me(gateway: WholeGateway, method: str, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    return await gateway.request(method, f"/me/{path}", headers=headers)


async def holder(gateway: WholeGateway) -> Morsel[str]:
    reply = await me(gateway, "POST", "session", {"authorization": f"Bearer {KEY}", **SAME_ORIGIN})
    assert reply.status == 200
    return cookie_of(reply)


async def test_the_holder_of_a_key_sees_its_own_and_nothing_else() -> None:
    team = {"limits": [{"tokens": 2_000, "per": "day"}]}
    async with (
        DemoUpstream(DemoScript(chunks=5)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, team=team) as gateway,
    ):
        await gateway.chat()
        await gateway.ended()
        cookie = await holder(gateway)
        assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == ("/me", "Strict", True)
        assert KEY not in cookie.value
        headers = with_cookie(cookie)
        about = (await me(gateway, "GET", "key", headers)).json
        assert (about["name"], about["team"], about["models"]) == ("search-test", "search", [MODEL])
        assert {"key": "openai", "base_url": gateway.url}.items() <= about["clients"][0].items()
        by_key = {"authorization": f"Bearer {KEY}"}
        for page in ("limits", "usage"):
            own = await me(gateway, "GET", page, headers)
            assert own.json == (await gateway.request("GET", f"/v1/{page}", headers=by_key)).json
        assert (await gateway.request("GET", "/v1/usage", headers=headers)).status == 401, "the cookie is for /me alone"
        await me(gateway, "DELETE", "session", headers)
        assert (await me(gateway, "GET", "key", headers)).status == 401


async def test_no_cache_keeps_what_a_cookie_proves() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        of_me, of_console = with_cookie(await holder(gateway)), with_cookie(await signed_in(gateway))
        shown = [await me(gateway, "GET", page, of_me) for page in ("session", "key", "limits", "usage")]
        shown += [await admin(gateway, "GET", page, of_console) for page in ("session", "teams", "usage")]
        assert [(reply.status, reply.headers.get("cache-control")) for reply in shown] == [(200, "no-store")] * 7


async def test_the_session_of_a_key_ends_with_the_key() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        token = {"authorization": f"Bearer {TOKEN}"}
        body = {"team": "search", "name": "of-the-store"}
        made = (await gateway.request("POST", "/admin/v1/keys", admin=True, json=body, headers=token)).json
        reply = await me(gateway, "POST", "session", {"authorization": f"Bearer {made['key']}"})
        headers = with_cookie(cookie_of(reply))
        assert (await me(gateway, "GET", "key", headers)).json["id"] == made["id"]
        await admin(gateway, "DELETE", f"keys/{made['id']}", token)
        async with asyncio.timeout(5):
            while (await me(gateway, "GET", "key", headers)).status != 401:
                await asyncio.sleep(0)
        assert [line["refused_key"] for line in gateway.lines if line.get("status") == 401] == [made["id"]]


async def test_another_page_cannot_use_the_cookie_of_me_though_cors_lets_it_call() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN, cors={"origins": ["*"]}) as gateway:
        cookie = await holder(gateway)
        forged = {"cookie": f"{cookie.key}={cookie.value}", "origin": "https://example.com"}
        assert (await me(gateway, "GET", "key", forged)).status == 401
        read = await me(gateway, "GET", "key", {**forged, **SAME_ORIGIN})
        assert "access-control-allow-credentials" not in {name.lower() for name in read.headers}


@pytest.mark.parametrize(
    ("path", "taken"),
    [("key", "GET"), ("limits", "GET"), ("session", "GET, POST, DELETE"), ("usage", "GET"), ("me.js", "GET, HEAD")],
)
async def test_what_the_page_asks_takes_its_own_methods_alone(path: str, taken: str) -> None:
    async with whole_gateway(NOWHERE) as gateway:
        for method in ("TRACE", "PUT"):
            reply = await gateway.request(method, f"/me/{path}", headers={"authorization": f"Bearer {KEY}"})
            assert reply.status == 405
            assert set(reply.headers["allow"].split(", ")) - {"HEAD"} == set(taken.split(", ")) - {"HEAD"}


async def test_what_is_no_key_does_not_sign_in() -> None:
    async with whole_gateway(NOWHERE) as gateway:
        for key, status in (("", 401), ("gw_guess", 401)):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            reply = await me(gateway, "POST", "session", headers)
            assert (reply.status, "set-cookie" in reply.headers) == (status, False)
        assert (await me(gateway, "GET", "nothing")).status == 404
        assert (await gateway.request("GET", "/me/app.js")).status == 404
        assert (await gateway.request("GET", "/me/me.js")).status == 200


async def test_a_session_is_good_in_every_worker(tmp_path: Path) -> None:
    with redis_server() as redis:
        await _in_every_worker(shared(NOWHERE, redis, tmp_path), tmp_path)


async def _in_every_worker(config: Json, folder: Path) -> None:
    async with workers_process(config, folder) as gateway, aiohttp.ClientSession() as session:
        admin_url = f"http://127.0.0.1:{gateway.admin_port}"
        base = f"{admin_url}{PREFIX}"
        token = {"authorization": f"Bearer {TOKEN}", **SAME_ORIGIN}
        async with session.post(f"{base}session", headers=token) as answer:
            headers = with_cookie(next(iter(answer.cookies.values())))
        for _ in range(6):
            async with session.get(f"{base}teams", headers=headers) as answer:
                assert answer.status == 200
        async with session.get(f"{base}traffic?minutes=2", headers=headers) as answer:
            assert (answer.status, "data" in await answer.json()) == (200, True)
        overviews = set()
        for _ in range(4):
            async with session.get(f"{base}overview?minutes=2", headers=headers) as answer:
                overviews.add((await answer.json())["at"])
        assert len(overviews) == 1, "the supervisor keeps it for all viewers"
        async with session.get(f"{admin_url}/console") as answer:
            assert answer.status == 200
        async with session.delete(f"{base}session", headers=headers) as answer:
            assert answer.status == 200
        for _ in range(6):
            async with session.get(f"{base}teams", headers=headers) as answer:
                assert answer.status == 401
