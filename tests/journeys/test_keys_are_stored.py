"""Keys that are made, changed and revoked while gateways run: several processes over one store, by the admin API."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.app.reload import Reloader
from gateway.app.snapshot_builder import loaded_snapshot
from gateway.demo import DemoScript, DemoUpstream
from gateway.identity.requests import AdministrationRequest
from gateway.telemetry.log import Log
from tests.gateway_process import gateway_process
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import (
    KEY,
    MODEL,
    PATIENCE_S,
    Json,
    Reply,
    WholeGateway,
    configuration,
    key_settings,
    settings_of,
    whole_gateway,
)
from tests.workers import TOKEN as WORKERS_TOKEN
from tests.workers import shared, workers_process

TOKEN = "operators-token-2f8c1d"
ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
NOWHERE = "http://127.0.0.1:1/v1"
OWN_SHA256 = hashlib.sha256(KEY.encode()).hexdigest()
PROCESSES = 4
REVOKED_WITHIN_S = 1.0
"""In one of three attempts: on a busy machine each process waits for its turn as well."""

ATTEMPTS = 3
PAUSE_S = 0.02


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server(tcp=True) as server:
        yield server


@contextlib.asynccontextmanager
async def stored(url: str = NOWHERE, **changes: Any) -> AsyncIterator[WholeGateway]:
    async with whole_gateway(url, admin=ADMIN, **changes) as gateway:
        yield gateway


async def ask(gateway: WholeGateway, method: str, page: str, body: Any = None, *, token: str = TOKEN) -> Reply:
    headers = {"authorization": f"Bearer {token}"}
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    reply = await gateway.request(method, f"/admin/v1/{page}", admin=True, headers=headers, data=data)
    # What is made is shown once, to whoever made it: it is no leak there, and one everywhere else.
    if reply.status == 200 and (secret := reply.json.get("key")):
        gateway._answers.pop()
        gateway.secrets |= {secret}
    return reply


async def made(gateway: WholeGateway, **fields: Any) -> Json:
    reply = await ask(gateway, "POST", "keys", {"team": "search", "name": "made", **fields})
    assert reply.status == 200, reply.body
    return reply.json


async def status_of(gateway: WholeGateway, key: str, **headers: str) -> int:
    given = {"authorization": f"Bearer {key}", **headers}
    return (await gateway.request("GET", "/v1/models", headers=given)).status


async def code_of(gateway: WholeGateway, key: str) -> str:
    reply = await gateway.request("GET", "/v1/models", headers={"authorization": f"Bearer {key}"})
    return str(reply.error["code"])


class GatewayOfMany:
    """One process of several, over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, port: int, admin_port: int, token: str = TOKEN) -> None:
        self.session, self.port, self.admin_port, self.token = session, port, admin_port, token

    async def status(self, key: str, *, close: bool = False) -> int:
        headers = {"authorization": f"Bearer {key}"} | ({"connection": "close"} if close else {})
        async with self.session.get(f"http://127.0.0.1:{self.port}/v1/models", headers=headers) as answer:
            return answer.status

    async def admin(self, method: str, page: str, body: Json | None = None) -> Json:
        url, headers = f"http://127.0.0.1:{self.admin_port}/admin/v1/{page}", {"authorization": f"Bearer {self.token}"}
        async with self.session.request(method, url, json=body, headers=headers) as answer:
            told: Json = await answer.json()
            assert answer.status == 200, told
            return told

    async def refuses(self, key: str) -> float:
        """When it refuses the key, asked again and again; not all the time, since nobody reads its log meanwhile."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.status(key) != 401:
                await asyncio.sleep(PAUSE_S)
        return time.monotonic()


@contextlib.asynccontextmanager
async def gateways(redis: RedisServer, folder: Path) -> AsyncIterator[list[GatewayOfMany]]:
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        folders = [folder / str(number) for number in range(PROCESSES)]
        for each in folders:
            each.mkdir()
        configs = [
            configuration(NOWHERE, admin=ADMIN, store={"url": redis.url, "journal": str(each / "journal")})
            for each in folders
        ]
        processes = [
            await stack.enter_async_context(gateway_process(config=config, folder=each))
            for config, each in zip(configs, folders, strict=True)
        ]
        yield [GatewayOfMany(session, process.port, process.admin_port) for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize("pubsub", ["works", "is cut"])
async def test_a_revoked_key_stops_in_every_process_within_a_second(
    pubsub: str, redis: RedisServer, tmp_path: Path
) -> None:
    if pubsub == "is cut":
        with contextlib.closing(redis.client()) as client:
            client.execute_command("ACL", "SETUSER", "default", "resetchannels")
    async with gateways(redis, tmp_path) as processes:
        took_s = []
        for number in range(ATTEMPTS):
            key = await processes[0].admin("POST", "keys", {"team": "search", "name": f"made-{number}"})
            # At once in all of them, without a reload.
            assert [await each.status(key["key"]) for each in processes] == [200] * PROCESSES
            await processes[1].admin("DELETE", f"keys/{key['id']}")
            began = time.monotonic()
            refused = await asyncio.gather(*[each.refuses(key["key"]) for each in processes])
            took_s.append(max(refused) - began)
            assert [await each.status(KEY) for each in processes] == [200] * PROCESSES
        assert min(took_s) < REVOKED_WITHIN_S, took_s


@pytest.mark.slow
async def test_workers_of_one_gateway_know_the_same_keys(redis: RedisServer, tmp_path: Path) -> None:
    config = shared(NOWHERE, redis, tmp_path)
    async with workers_process(config, tmp_path) as process, aiohttp.ClientSession() as session:
        # Each request on a connection of its own, so that both workers get some.
        gateway = GatewayOfMany(session, process.port, process.admin_port, WORKERS_TOKEN)
        key = await gateway.admin("POST", "keys", {"team": "search", "name": "made"})
        assert {await gateway.status(key["key"], close=True) for _ in range(20)} == {200}
        await gateway.admin("DELETE", f"keys/{key['id']}")
        async with asyncio.timeout(PATIENCE_S):
            while {await gateway.status(key["key"], close=True) for _ in range(20)} != {401}:
                await asyncio.sleep(PAUSE_S)
        assert len((await gateway.admin("GET", "audit"))["data"]) == 2


async def test_a_key_is_made_used_disabled_enabled_and_revoked(redis: RedisServer) -> None:
    async with (
        DemoUpstream(DemoScript(chunks=1)) as upstream,
        stored(upstream.base_url, store={"url": redis.url}) as gateway,
    ):
        key = await made(gateway, metadata={"owner": "alice"}, expires_at="90d")
        secret, path = key.pop("key"), f"keys/{key['id']}"
        assert secret.startswith("gw_")
        assert len(secret) == 46
        assert (await gateway.chat(key=secret)).status == 200
        assert (await gateway.ended()).caller.key_id == key["id"]
        assert (await ask(gateway, "GET", path)).json == key
        for disabled, status in ((True, 401), (False, 200)):
            assert (await ask(gateway, "PATCH", path, {"disabled": disabled})).status == 200
            await gateway.gateway._directory.catch_up()
            assert await status_of(gateway, secret) == status
        assert (await ask(gateway, "DELETE", path)).json["status"] == "revoked"
        await gateway.gateway._directory.catch_up()
        assert await code_of(gateway, secret) == "invalid_api_key"
        actions = [entry["action"] for entry in (await ask(gateway, "GET", "audit")).json["data"]]
        assert actions == ["key.revoke", "key.enable", "key.disable", "key.create"]
        logged = [line["action"] for line in gateway.lines if line["event"] == "audit"]
        assert logged == actions[::-1]


async def test_a_rotated_key_overlaps_and_goes_on_with_the_counters_of_the_old_one() -> None:
    async with DemoUpstream(DemoScript(chunks=1)) as upstream, stored(upstream.base_url) as gateway:
        old = await made(gateway, limits=[{"requests": 2, "per": "day"}])
        assert (await gateway.chat(key=old["key"])).status == 200
        new = (await ask(gateway, "POST", f"keys/{old['id']}/rotate", {"overlap": "1h"})).json
        await gateway.gateway._directory.catch_up()
        assert new["rotated_from"] == old["id"]
        assert (await gateway.chat(key=new["key"])).status == 200
        for key in (old, new):
            assert (await gateway.chat(key=key["key"])).status == 429
        assert (await ask(gateway, "GET", f"keys/{old['id']}")).json["expires_at"] is not None
        last = (await ask(gateway, "POST", f"keys/{new['id']}/rotate", {"overlap": "0s"})).json
        await gateway.gateway._directory.catch_up()
        assert await code_of(gateway, new["key"]) == "invalid_api_key"
        assert await status_of(gateway, last["key"]) == 200


async def test_a_key_has_limits_models_and_networks_of_its_own() -> None:
    other = {"other/model": {"routes": [{"upstream": "up1"}]}}
    async with DemoUpstream(DemoScript(chunks=1)) as upstream:
        models = configuration(upstream.base_url)["models"] | other
        proxied = {"trusted_proxies": ["127.0.0.0/8"], "models": models}
        async with stored(upstream.base_url, **proxied) as gateway:
            limits = [{"requests": 1, "per": "day"}]
            key = await made(gateway, limits=limits, models=["openai/*"], networks=["192.0.2.0/24", "2001:db8::/32"])
            assert key["limits"] == [{"name": "requests-per-day", "requests": 1, "per": "day"}]
            assert await status_of(gateway, key["key"]) == 401
            inside = {"x-forwarded-for": "203.0.113.9, 192.0.2.7"}
            assert await status_of(gateway, key["key"], **{"x-forwarded-for": "192.0.2.7, 203.0.113.9"}) == 401
            assert await status_of(gateway, key["key"], **inside) == 200
            assert (await gateway.chat(key=key["key"], headers=inside)).status == 200
            refused = await gateway.chat(key=key["key"], headers=inside)
            assert (refused.status, refused.json["limit"]["scope"]) == (429, "key")
            assert (await gateway.chat(key=key["key"], headers=inside, model="other/model")).status == 404
            assert "192.0.2.7" in {line.get("client_ip") for line in gateway.lines}


async def test_the_limits_of_a_stored_key_are_reported_with_their_use() -> None:
    async with DemoUpstream(DemoScript(chunks=1)) as upstream, stored(upstream.base_url) as gateway:
        key = await made(gateway, limits=[{"requests": 5, "per": "day"}])
        await made(gateway, name="without")
        revoked = await made(gateway, name="revoked", limits=[{"requests": 7, "per": "day"}])
        await ask(gateway, "DELETE", f"keys/{revoked['id']}")
        assert (await gateway.chat(key=key["key"])).status == 200
        await gateway.ended()
        for query in ("", "?team=search"):
            [limit] = (await ask(gateway, "GET", f"limits{query}")).json["data"]
            assert (limit["scope"], limit["subject"], limit["used"], limit["left"]) == ("key", key["id"], 1, 4)


async def test_the_address_of_the_connection_counts_where_no_proxy_is_trusted() -> None:
    async with stored() as gateway:
        key = await made(gateway, networks=["192.0.2.0/24"])
        assert await status_of(gateway, key["key"], **{"x-forwarded-for": "192.0.2.7"}) == 401


async def test_a_teams_key_limits_bind_each_key_by_itself() -> None:
    team = {"key_limits": [{"requests": 1, "per": "day"}]}
    async with DemoUpstream(DemoScript(chunks=1)) as upstream, stored(upstream.base_url, team=team) as gateway:
        one, more = await made(gateway), await made(gateway, limits=[{"requests": 2, "per": "day"}])
        statuses = [(await gateway.chat(key=key)).status for key in (KEY, KEY, one["key"], one["key"])]
        assert statuses == [200, 429, 200, 429]
        assert [(await gateway.chat(key=more["key"])).status for _ in range(3)] == [200, 200, 429]


async def test_keys_of_the_configuration_and_of_the_store_are_listed_page_by_page() -> None:
    async with stored() as gateway:
        keys = [await made(gateway, name=f"k{number}") for number in range(5)]
        # Those of one millisecond have the order of their ids.
        ids = [key["id"] for key in sorted(keys, key=lambda key: (key["created_at"], key["id"]))]
        listed: list[Json] = []
        cursor = ""
        while True:
            page = (await ask(gateway, "GET", f"keys?limit=2{cursor}")).json
            assert len(page["data"]) <= 2
            listed += page["data"]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert [key["source"] for key in listed] == ["config", *["store"] * 5]
        assert [key["id"] for key in listed[1:]] == ids
        assert len((await ask(gateway, "GET", "keys?source=config")).json["data"]) == 1
        assert len((await ask(gateway, "GET", "keys?source=store&team=search")).json["data"]) == 5
        assert (await ask(gateway, "GET", "keys?team=ops")).json["data"] == []
        unused = (await ask(gateway, "GET", "keys?unused=30d")).json["data"]
        assert [key["source"] for key in unused] == ["config"], "the others were made today"


async def test_keys_that_are_not_used_are_found_in_the_store_and_in_the_file() -> None:
    async with DemoUpstream(DemoScript(chunks=1)) as upstream, stored(upstream.base_url) as gateway:
        secrets = {name: f"gw_{name}".ljust(46, "x") for name in ("busy", "idle")}
        keys = [
            {
                "sha256": hashlib.sha256(secret.encode()).hexdigest(),
                "name": name,
                "team": "search",
                "created_at": "2025-01-01T00:00:00Z",
            }
            for name, secret in secrets.items()
        ]
        assert (await ask(gateway, "POST", "keys/import", {"keys": keys})).status == 200

        async def unused(days: str) -> list[str]:
            found = (await ask(gateway, "GET", f"keys?unused={days}")).json["data"]
            return sorted(key["name"] for key in found)

        assert await unused("30d") == ["busy", "idle", "search-test"]
        for key in (KEY, secrets["busy"]):
            assert (await gateway.chat(key=key)).status == 200
        await gateway.ended()
        await gateway.gateway._directory.flush()
        assert await unused("30d") == ["idle"]
        assert (await ask(gateway, "GET", "keys?unused=30d&source=config")).json["data"] == []


async def test_a_cursor_that_the_store_could_not_read_is_refused(redis: RedisServer) -> None:
    async with stored(store={"url": redis.url}) as gateway:
        assert (await ask(gateway, "GET", f"audit?cursor={'9' * 19}")).status == 200
        assert (await ask(gateway, "GET", f"audit?cursor={'9' * 20}")).error["param"] == "cursor"


@pytest.mark.parametrize("body", [b'{"team": "\xff"}', b"[" * 100_000, b'{"a":' * 2_000])
async def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    async with stored() as gateway:
        for page in ("keys", "keys/import", "grants"):
            reply = await ask(gateway, "POST", page, body)
            assert (reply.status, reply.error["code"]) == (400, "invalid_json")


async def test_keys_of_any_year_are_imported_and_listed() -> None:
    async with stored() as gateway:
        for number, moment in enumerate(("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")):
            times = {"created_at": moment, "expires_at": moment, "revoked_at": moment}
            key = {"sha256": f"{number}" * 64, "name": f"k{number}", "team": "search", **times}
            assert (await ask(gateway, "POST", "keys/import", {"keys": [key]})).status == 200
        for page in ("keys?source=store&limit=1", "keys/export?limit=1"):
            first = (await ask(gateway, "GET", page)).json
            rest = (await ask(gateway, "GET", f"{page}&cursor={first['next']}")).json
            assert [key["name"] for key in (*first["data"], *rest["data"])] == ["k0", "k1"]


async def test_requests_go_on_while_many_keys_are_imported() -> None:
    keys = [{"sha256": f"{number:064x}"[::-1], "name": f"k{number}", "team": "search"} for number in range(200)]
    request = AdministrationRequest("POST", "keys/import", {}, json.dumps({"keys": keys}).encode())
    turns = 0
    async with stored() as gateway:
        importing = asyncio.create_task(gateway.gateway.keys.answer(request))
        while not importing.done():
            turns += 1
            await asyncio.sleep(0)
        assert len((await importing)["imported"]) == 200
    assert turns >= 40


async def test_a_use_is_noted_and_shown() -> None:
    async with stored() as gateway:
        key = await made(gateway)
        assert key["last_used_at"] is None
        assert await status_of(gateway, key["key"]) == 200
        await gateway.gateway._directory.flush()
        assert (await ask(gateway, "GET", f"keys/{key['id']}")).json["last_used_at"] is not None


async def test_exported_hashes_are_imported_into_another_store(redis: RedisServer) -> None:
    async with stored(store={"url": redis.url}) as one, stored() as other:
        key = await made(one, limits=[{"requests": 3, "per": "hour", "burst": 9}], metadata={"a": "b"})
        gone = await made(one, name="gone")
        await ask(one, "DELETE", f"keys/{gone['id']}")
        exported = (await ask(one, "GET", "keys/export")).json["data"]
        assert key["key"] not in json.dumps(exported)
        for done in ({"imported": [key["id"], gone["id"]], "skipped": []}, {"skipped": [key["id"], gone["id"]]}):
            assert done.items() <= (await ask(other, "POST", "keys/import", {"keys": exported})).json.items()
        assert await status_of(other, key["key"]) == 200
        assert await status_of(other, gone["key"]) == 401
        other.secrets |= {key["key"]}
        known = (await ask(one, "GET", f"keys/{key['id']}")).json
        taken = (await ask(other, "GET", f"keys/{key['id']}")).json
        assert taken | {"last_used_at": None} == known | {"last_used_at": None}


@pytest.mark.parametrize(
    ("method", "page", "body", "status", "param"),
    [
        ("POST", "keys", {}, 400, "name"),
        ("POST", "keys", {"name": "a"}, 400, "team"),
        ("POST", "keys", {"name": "a", "team": "serch"}, 400, "team"),
        ("POST", "keys", {"name": "a b", "team": "search"}, 400, "name"),
        ("POST", "keys", {"name": 5, "team": "search"}, 400, "name"),
        ("POST", "keys", {"name": "a", "team": "search", "colour": "red"}, 400, "colour"),
        ("POST", "keys", {"name": "a", "team": "search", "expires_at": "yesterday"}, 400, "expires_at"),
        ("POST", "keys", {"name": "a", "team": "search", "expires_at": "2020-01-01"}, 400, "expires_at"),
        ("POST", "keys", {"name": "a", "team": "search", "networks": ["10.0.0.1/8"]}, 400, "networks[0]"),
        ("POST", "keys", {"name": "a", "team": "search", "models": ["nothing/*"]}, 400, "models"),
        ("POST", "keys", {"name": "a", "team": "search", "models": []}, 400, "models"),
        ("POST", "keys", {"name": "a", "team": "search", "limits": [{"requests": 0}]}, 400, "limits[0].requests"),
        ("POST", "keys", {"name": "a", "team": "search", "limits": [{"requests": 1}]}, 400, "limits[0].per"),
        ("POST", "keys", {"name": "a", "team": "search", "limits": [{}]}, 400, "limits[0]"),
        ("POST", "keys", {"name": "a", "team": "search", "limits": [{"usd": 1, "per": "day"}]}, 400, "limits"),
        ("POST", "keys", {"name": "a", "team": "search", "metadata": {"a": 5}}, 400, "metadata.a"),
        ("POST", "keys", b"{", 400, None),
        ("POST", "keys", b"[]", 400, None),
        ("POST", "keys", b"\xff", 400, None),
        ("POST", "keys?team=search", {"name": "a", "team": "search"}, 400, "team"),
        ("GET", "keys?colour=red", None, 400, "colour"),
        ("GET", "keys?limit=0", None, 400, "limit"),
        ("GET", "keys?limit=1001", None, 400, "limit"),
        ("GET", "keys?cursor=else", None, 400, "cursor"),
        ("GET", "keys?status=gone", None, 400, "status"),
        ("GET", "keys?unused=30", None, 400, "unused"),
        ("GET", "keys/export?cursor=config:1", None, 400, "cursor"),
        ("GET", "keys/000000000000", None, 404, None),
        ("GET", "keys/", None, 404, None),
        ("GET", "keys//rotate", None, 405, None),
        ("PATCH", "keys/000000000000", {"disabled": True}, 404, None),
        ("PATCH", "keys/000000000000", {}, 400, None),
        ("PATCH", "keys/000000000000", {"disabled": "yes"}, 400, "disabled"),
        ("PATCH", "keys/000000000000", {"team": "ops"}, 400, "team"),
        ("DELETE", "keys/000000000000", None, 404, None),
        ("DELETE", "keys/000000000000?sure=yes", None, 400, "sure"),
        ("POST", "keys/000000000000/rotate", None, 404, None),
        ("POST", "keys/000000000000/rotate", {"overlap": "long"}, 400, "overlap"),
        ("GET", "keys/000000000000/rotate", None, 405, None),
        ("POST", "keys/000000000000/spin", None, 404, None),
        ("PUT", "keys", None, 405, None),
        ("DELETE", "keys", None, 405, None),
        ("POST", "keys/import", {}, 400, "keys"),
        ("POST", "keys/import", {"keys": []}, 400, "keys"),
        ("POST", "keys/import", {"keys": ["x"]}, 400, "keys[0]"),
        ("POST", "keys/import", {"keys": [{"name": "a", "team": "search"}]}, 400, "keys[0].sha256"),
        ("POST", "keys/import", {"keys": [{"name": "a", "team": "search", "sha256": OWN_SHA256}]}, 400, "keys[0]"),
        ("GET", "audit?cursor=x", None, 400, "cursor"),
        ("POST", "audit", {}, 405, None),
        ("GET", "audit/1", None, 404, None),
    ],
)
async def test_bad_input_is_refused_and_names_what_is_wrong(
    method: str, page: str, body: Any, status: int, param: str | None
) -> None:
    async with stored() as gateway:
        reply = await ask(gateway, method, page, body)
        assert (reply.status, reply.error["param"]) == (status, param), reply.body
        assert (await ask(gateway, "GET", "audit")).json["data"] == []


@pytest.mark.parametrize(("token", "status"), [("", 401), ("another", 401), (KEY, 401)])
async def test_keys_are_for_operators_alone(token: str, status: int) -> None:
    async with stored() as gateway:
        for method, page in (("GET", "keys"), ("POST", "keys"), ("DELETE", "keys/000000000000"), ("GET", "audit")):
            reply = await ask(gateway, method, page, {"name": "a", "team": "search"}, token=token)
            assert reply.status == status


async def test_a_key_of_the_configuration_is_changed_there_and_a_revoked_one_never() -> None:
    async with stored() as gateway:
        (configured,) = (await ask(gateway, "GET", "keys?source=config")).json["data"]
        refused = await ask(gateway, "DELETE", f"keys/{configured['id']}")
        assert (refused.status, "in the configuration" in refused.error["message"]) == (400, True)
        key = await made(gateway)
        await ask(gateway, "DELETE", f"keys/{key['id']}")
        for method, page, body in (
            ("DELETE", "", None),
            ("PATCH", "", {"disabled": False}),
            ("POST", "/rotate", None),
        ):
            reply = await ask(gateway, method, f"keys/{key['id']}{page}", body)
            assert (reply.status, "permanently" in reply.error["message"]) == (400, True)


async def test_an_expired_key_says_so(redis: RedisServer) -> None:
    async with stored(store={"url": redis.url}) as gateway:
        key = await made(gateway, expires_at="50ms")
        async with asyncio.timeout(PATIENCE_S):
            while await status_of(gateway, key["key"]) == 200:
                await asyncio.sleep(0)
        assert await code_of(gateway, key["key"]) == "expired_api_key"
        assert (await ask(gateway, "GET", "keys?status=expired")).json["data"][0]["id"] == key["id"]


async def test_while_the_store_is_out_known_keys_stay_known_and_others_are_an_outage(redis: RedisServer) -> None:
    async with stored(store={"url": redis.url}) as gateway:
        key = await made(gateway)
        await gateway.gateway._directory.catch_up()
        assert await status_of(gateway, key["key"]) == 200
        redis.kill()
        assert await status_of(gateway, key["key"]) == 200
        assert await status_of(gateway, KEY) == 200
        assert await code_of(gateway, "gw_unknown-to-everybody") == "store_unavailable"
        assert (await ask(gateway, "GET", "keys")).status == 503


async def test_models_are_those_that_the_key_may_use() -> None:
    async with stored() as gateway:
        key = await made(gateway, models=[MODEL])
        reply = await gateway.request("GET", "/v1/models", headers={"authorization": f"Bearer {key['key']}"})
        assert [model["id"] for model in reply.json["data"]] == [MODEL]


async def test_a_reload_with_a_key_of_the_store_is_refused_and_one_without_is_audited(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    async with stored() as gateway:
        key = await made(gateway)
        loaded = loaded_snapshot(settings_of(configuration(NOWHERE, admin=ADMIN)))
        log = Log(lambda _line: None)
        Reloader(str(file), gateway.gateway, log, loaded.settings).start()
        both = {"keys": [key_settings(), key_settings("twice", key["key"])]}
        file.write_text(json.dumps(configuration(NOWHERE, admin=ADMIN, team=both)))
        refused = await ask(gateway, "POST", "reload")
        assert (refused.status, key["id"] in refused.json["problems"][0]) == (400, True)
        limited = {"limits": [{"requests": 9, "per": "day"}]}
        file.write_text(json.dumps(configuration(NOWHERE, admin=ADMIN, team=limited)))
        for _ in range(2):
            assert (await ask(gateway, "POST", "reload")).status == 200
        reload, create = (await ask(gateway, "GET", "audit")).json["data"]
        assert (reload["action"], create["action"]) == ("config.reload", "key.create")
        assert reload["before"]["teams"]["search"]["limits"] == []
        assert reload["after"]["teams"]["search"]["limits"][0]["requests"] == 9
        assert await status_of(gateway, key["key"]) == 200
