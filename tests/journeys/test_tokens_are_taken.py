"""Callers with a token of an identity provider: a real one over HTTP, which rotates its keys, and is down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.app.snapshot_builder import loaded_snapshot
from gateway.demo import DemoUpstream
from tests.contract.store.keepers import FalseClock
from tests.event_loop_turns import tasks_ended
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider, claims_of, ec_key, key_set, signed
from tests.redis_servers import redis_server
from tests.whole_gateway import Json, WholeGateway, chat_body, configuration, settings_of, whole_gateway
from tests.workers import shared, workers_process

NOW_S = FalseClock().now_ms() // 1000
ADMIN = {"listen": "127.0.0.1:0", "token": "operators-token-2f8c1d"}
TEAM = {"user_limits": [{"requests": 2, "per": "day"}]}


def jwt_settings(jwks: str | None, **changes: Any) -> list[Json]:
    teams = {"platform-search": "search"}
    written = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks, "user": "email", "teams": teams}
    return [{**written, **changes}]


def logged(gateway: WholeGateway, event: str) -> list[Json]:
    return [line for line in gateway.lines if line["event"] == event]


async def test_a_token_is_taken_in_place_of_a_key_and_its_user_is_limited() -> None:
    async with (
        DemoUpstream() as upstream,
        IdentityProvider() as idp,
        whole_gateway(upstream.base_url, clock=FalseClock(), team=TEAM, jwt=jwt_settings(idp.jwks)) as gateway,
    ):
        ada, bob = idp.token(NOW_S), idp.token(NOW_S, email="bob@example.com")
        statuses = [(await gateway.chat(key=ada, user=f"made-up-{n}")).status for n in range(3)]
        assert statuses == [200, 200, 429]
        assert (await gateway.chat(key=bob)).status == 200
        assert (await gateway.request("GET", "/v1/models", headers={"x-api-key": bob})).status == 200

        refused = await gateway.chat(key=idp.token(NOW_S, aud="billing"))
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
        assert AUDIENCE in refused.error["message"]
        assert refused.headers["www-authenticate"] == "Bearer"
        expired = await gateway.chat(key=idp.token(NOW_S, exp=NOW_S - 61))
        assert (expired.status, expired.error["code"]) == (401, "expired_api_key")

        lines = logged(gateway, "request")[:4]
        assert [line["user"] for line in lines] == ["ada@example.com"] * 3 + ["bob@example.com"]
        assert {line["team"] for line in lines} == {"search"}
        assert len({line["key"] for line in lines}) == 1
        assert idp.asked == 1


async def test_users_of_tokens_are_counted_by_themselves_however_many_there_are() -> None:
    team = {**TEAM, "end_user": {"most": 1}}
    async with (
        DemoUpstream() as upstream,
        IdentityProvider() as idp,
        whole_gateway(upstream.base_url, clock=FalseClock(), team=team, jwt=jwt_settings(idp.jwks)) as gateway,
    ):
        tokens = [idp.token(NOW_S, email=f"{name}@example.com") for name in ("ada", "bob", "carol")]
        assert [(await gateway.chat(key=token)).status for token in tokens * 2] == [200] * 6
        assert [(await gateway.chat(key=token)).status for token in tokens] == [429] * 3


async def test_a_gateway_that_starts_has_the_keys_before_it_serves() -> None:
    async with (
        DemoUpstream() as upstream,
        IdentityProvider() as idp,
        whole_gateway(upstream.base_url, clock=FalseClock(), jwt=jwt_settings(idp.jwks)) as gateway,
    ):
        assert logged(gateway, "signing keys fetched")
        assert (await gateway.chat(key=idp.token(NOW_S))).status == 200


async def test_the_issuer_alone_says_where_its_keys_are() -> None:
    async with DemoUpstream() as upstream, IdentityProvider() as idp:
        jwt = jwt_settings(None, issuer=idp.url)
        async with whole_gateway(upstream.base_url, clock=FalseClock(), jwt=jwt) as gateway:
            assert (await gateway.chat(key=idp.token(NOW_S, iss=idp.url))).status == 200
            idp.rotate("another")
            assert (await gateway.chat(key=idp.token(NOW_S, iss=idp.url))).status == 200
            assert (await gateway.chat(key=idp.token(NOW_S))).status == 401


async def test_a_discovery_document_of_another_issuer_is_not_believed() -> None:
    async with DemoUpstream() as upstream, IdentityProvider() as idp:
        idp.discovery = {"issuer": ISSUER}
        jwt = jwt_settings(None, issuer=idp.url)
        async with whole_gateway(upstream.base_url, clock=FalseClock(), jwt=jwt) as gateway:
            (line,) = logged(gateway, "signing keys not fetched")
            assert "another issuer" in line["problem"]
            refused = await gateway.chat(key=idp.token(NOW_S, iss=idp.url))
            assert (refused.status, refused.error["code"]) == (503, "issuer_unavailable")


@pytest.mark.slow
async def test_every_worker_takes_tokens_and_their_users_share_limits(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server(tcp=True))
        upstream = await stack.enter_async_context(DemoUpstream())
        idp = await stack.enter_async_context(IdentityProvider())
        changes = {"jwt": jwt_settings(None, issuer=idp.url), "team": TEAM}
        config = shared(upstream.base_url, redis, tmp_path, **changes)
        gateway = await stack.enter_async_context(workers_process(config, tmp_path))
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def status(token: str) -> int:
            """On a connection of its own, so that each worker gets some."""
            url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
            headers = {"authorization": f"Bearer {token}", "connection": "close"}
            async with session.post(url, json=chat_body(), headers=headers) as answer:
                await answer.read()
                return answer.status

        now_s = int(time.time())
        for name in ("ada", "bob"):
            token = idp.token(now_s, iss=idp.url, email=f"{name}@example.com")
            assert sorted([await status(token) for _ in range(8)]) == [200, 200, *[429] * 6]
        assert {await status(idp.token(now_s, iss=idp.url, exp=now_s - 100)) for _ in range(8)} == {401}
        idp.rotate("rotated", keep=0)
        fresh = [idp.token(now_s, iss=idp.url, email=f"{number}@example.com") for number in range(8)]
        assert {await status(token) for token in fresh} == {200}


async def test_limits_of_each_key_hold_for_all_tokens_with_the_same_rights() -> None:
    team = {"key_limits": [{"requests": 2, "per": "day"}]}
    async with (
        DemoUpstream() as upstream,
        IdentityProvider() as idp,
        whole_gateway(
            upstream.base_url, clock=FalseClock(), team=team, jwt=jwt_settings(idp.jwks), admin=ADMIN
        ) as gateway,
    ):
        tokens = [idp.token(NOW_S, email=f"{name}@example.com") for name in ("ada", "bob", "carol")]
        assert [(await gateway.chat(key=token)).status for token in tokens] == [200, 200, 429]
        refused = await gateway.chat(key=tokens[0])
        assert (refused.json["limit"]["scope"], refused.json["limit"]["subject"][:4]) == ("key", "jwt-")
        assert (await gateway.chat()).status == 200
        key = refused.json["limit"]["subject"]
        grant = {"team": "search", "key": key, "limit": "requests-per-day", "amount": 1, "until": "1h", "why": "demo"}
        headers = {"authorization": f"Bearer {ADMIN['token']}"}
        data = json.dumps(grant).encode()
        made = await gateway.request("POST", "/admin/v1/grants", admin=True, headers=headers, data=data)
        assert (made.status, made.json["subject"]) == (200, key)
        assert [(await gateway.chat(key=token)).status for token in tokens[:2]] == [200, 429]


async def test_a_rotation_under_load_refuses_no_good_token() -> None:
    async with (
        DemoUpstream() as upstream,
        IdentityProvider() as idp,
        whole_gateway(upstream.base_url, clock=FalseClock(), jwt=jwt_settings(idp.jwks)) as gateway,
    ):
        stop, answered = asyncio.Event(), asyncio.Condition()
        statuses: list[int] = []

        async def ask(worker: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                token = idp.token(NOW_S, jti=f"{worker}-{number // 3}")
                statuses.append((await gateway.chat(key=token)).status)
                async with answered:
                    answered.notify_all()

        async with asyncio.TaskGroup() as workers:
            for worker in range(8):
                workers.create_task(ask(worker))
            for rotation in range(1, 3):
                enough = len(statuses) + 40
                async with answered:
                    await answered.wait_for(lambda enough=enough: len(statuses) >= enough)
                idp.rotate(f"rotated-{rotation}")
                await idp.wait_asked(1 + rotation)
            stop.set()
        assert set(statuses) == {200}
        assert idp.asked == 3
        assert len(logged(gateway, "signing keys fetched")) == 3


async def test_a_provider_that_is_down_for_an_hour_changes_nothing_for_known_keys() -> None:
    clock = FalseClock()
    async with (
        DemoUpstream() as upstream,
        IdentityProvider() as idp,
        whole_gateway(upstream.base_url, clock=clock, jwt=jwt_settings(idp.jwks)) as gateway,
    ):
        early = idp.token(NOW_S)
        assert (await gateway.chat(key=early)).status == 200
        idp.down = True
        unknown = signed(claims_of(NOW_S), ec_key("not-published"))
        assert (await gateway.chat(key=unknown)).status == 401
        (line,) = logged(gateway, "signing keys not fetched")
        assert "answered with 503" in line["problem"]

        clock.at_ms += 3_600_000
        assert (await gateway.chat(key=early)).error["code"] == "expired_api_key"
        assert (await gateway.chat(key=idp.token(NOW_S + 3600))).status == 200


async def test_strangers_who_invent_names_of_keys_do_not_reach_the_provider() -> None:
    async with (
        DemoUpstream() as upstream,
        IdentityProvider() as idp,
        whole_gateway(upstream.base_url, clock=FalseClock(), jwt=jwt_settings(idp.jwks)) as gateway,
    ):
        assert (await gateway.chat(key=idp.token(NOW_S))).status == 200
        forged = [signed(claims_of(NOW_S), ec_key(f"invented-{n}")) for n in range(200)]
        replies = await asyncio.gather(*[gateway.chat(key=token) for token in forged])
        assert {reply.status for reply in replies} == {401}
        assert idp.asked <= 4
        assert upstream.truth.total.requests == 1


async def test_a_reload_brings_an_identity_provider_and_takes_it_away(tmp_path: Path) -> None:
    key, file = ec_key("of-a-file"), tmp_path / "keys.json"
    file.write_bytes(key_set(key))
    token = signed(claims_of(NOW_S), key)
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url, clock=FalseClock()) as gateway,
    ):
        without = configuration(upstream.base_url)
        assert (await gateway.chat(key=token)).status == 401

        gateway.gateway.swap(loaded_snapshot(settings_of({**without, "jwt": jwt_settings(str(file))})))
        await tasks_ended("follow identity providers")
        assert (await gateway.chat(key=token)).status == 200

        gateway.gateway.swap(loaded_snapshot(settings_of(without)))
        await tasks_ended("follow identity providers")
        assert (await gateway.chat(key=token)).status == 401


@pytest.mark.parametrize(
    ("headers", "body", "user"),
    [
        ({"x-openwebui-user-email": "ada@example.com"}, {"user": "bob"}, "ada@example.com"),
        ({}, {"user": "bob", "safety_identifier": "carol"}, "bob"),
        ({}, {"safety_identifier": "carol"}, "carol"),
    ],
)
async def test_the_team_s_own_service_says_who_the_end_user_is(
    headers: dict[str, str], body: dict[str, str], user: str
) -> None:
    team = {"end_user": {"header": "X-OpenWebUI-User-Email", "required": True}}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        assert (await gateway.chat(headers=headers, **body)).status == 200
        assert (await gateway.ended()).parsed.user == user  # type: ignore[union-attr]  # It was parsed.
        refused = await gateway.chat()
        assert (refused.status, refused.error["param"]) == (400, "user")
        assert "x-openwebui-user-email" in refused.error["message"]


async def test_end_users_beyond_the_most_of_a_day_share_a_counter() -> None:
    team = {**TEAM, "end_user": {"most": 2}}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, clock=FalseClock(), team=team) as gateway:
        statuses = [(await gateway.chat(user=user)).status for user in ("a", "b", "c", "d", "e", "a", "b", "a")]
        assert statuses == [200, 200, 200, 200, 429, 200, 200, 429]
