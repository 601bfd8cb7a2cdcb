"""Limits are raised for a while: by the admin API and by commands, in every gateway at once, and back by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.demo import DemoScript, DemoUpstream
from gateway.identity.grants import GRANTS_OF_A_LIMIT_MAX
from gateway.store.in_redis.remembered_refusals import REPEATED_MS
from tests.gateway_process import gateway_process
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import KEY, MODEL, Json, Reply, WholeGateway, chat_body, configuration, whole_gateway

TOKEN = "operators-token-2f8c1d"
ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
NOWHERE = "http://127.0.0.1:1/v1"
LAUNCH = {"team": "search", "limit": "requests-per-day", "amount": 2, "until": "1h", "why": "product launch"}
TEAM = {"limits": [{"requests": 1, "per": "day"}, {"usd": 5, "per": "month"}], "user_limits": [{"concurrent": 3}]}
PRICED = {"price": {"input": 1, "output": 1}}
GATEWAYS = 2
PAUSE_S = 0.05
SEEN_EVERYWHERE_S = REPEATED_MS / 1000 + 0.05
"""A gateway repeats its last refusals for as long, before it asks again and so sees what another one has granted."""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server(tcp=True) as server:
        yield server


@contextlib.asynccontextmanager
async def running(**changes: Any) -> AsyncIterator[WholeGateway]:
    given = {"team": TEAM, "model": PRICED, "admin": ADMIN, **changes}
    async with DemoUpstream(DemoScript(chunks=1)) as upstream, whole_gateway(upstream.base_url, **given) as gateway:
        yield gateway


async def ask(gateway: WholeGateway, method: str, page: str, body: Any = None, token: str = TOKEN) -> Reply:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    return await gateway.request(method, f"/admin/v1/{page}", admin=True, headers=headers, data=data)


async def test_a_limit_has_no_more_grants_than_it_may_however_many_are_made_at_once(redis: RedisServer) -> None:
    async with running(store={"url": redis.url}) as one, running(store={"url": redis.url}) as other:
        asked = [ask((one, other)[number % 2], "POST", "grants", LAUNCH) for number in range(GRANTS_OF_A_LIMIT_MAX + 8)]
        statuses = {reply.status for reply in await asyncio.gather(*asked)}
        assert statuses <= {200, 400, 503}
        listed = (await ask(one, "GET", "grants")).json["data"]
        assert 0 < len(listed) <= GRANTS_OF_A_LIMIT_MAX
        (limit,) = [each for each in (await ask(other, "GET", "limits")).json["data"] if each["meter"] == "requests"]
        assert limit["granted"] == 2 * len(listed)


async def raised(gateway: WholeGateway, **changes: Any) -> Json:
    reply = await ask(gateway, "POST", "grants", {**LAUNCH, **changes})
    assert reply.status == 200, reply.body
    return reply.json


@pytest.mark.parametrize("store", ["memory", "redis"])
async def test_a_grant_lets_more_through_and_every_place_says_so(store: str, redis: RedisServer) -> None:
    changes = {"store": {"url": redis.url}} if store == "redis" else {}
    async with running(**changes) as gateway:
        assert [(await gateway.chat()).status for _ in range(2)] == [200, 429]
        grant = await raised(gateway)
        assert grant["granted_by"].startswith("the admin API")
        answered = await gateway.chat()
        assert answered.status == 200
        assert (answered.headers["x-quota-limit-requests"], answered.headers["x-quota-remaining-requests"]) == (
            "3",
            "1",
        )
        assert (await gateway.chat()).status == 200
        refused = await gateway.chat()
        assert (refused.status, refused.headers["x-quota-limit-requests"]) == (429, "3")
        assert (refused.json["limit"]["amount"], refused.json["limit"]["granted"]) == (3, 2)
        assert "(3 requests per day, 2 of them granted for a while)" in refused.error["message"]
        for limits in (
            (await ask(gateway, "GET", "limits")).json["data"],
            (await gateway.request("GET", "/v1/limits", headers={"authorization": f"Bearer {KEY}"})).json["data"],
        ):
            by_name = {limit["name"]: limit for limit in limits}
            assert (by_name["requests-per-day"]["amount"], by_name["requests-per-day"]["granted"]) == (3, 2)
            assert "granted" not in by_name["usd-per-month"]
        assert (await ask(gateway, "GET", "grants")).json == {"data": [grant], "next": None}
        assert (await ask(gateway, "GET", "grants?team=search")).json["data"] == [grant]
        assert (await ask(gateway, "GET", f"grants/{grant['id']}")).json == grant
        assert (await ask(gateway, "DELETE", f"grants/{grant['id']}")).json == grant
        assert (await ask(gateway, "DELETE", f"grants/{grant['id']}")).status == 404
        assert (await ask(gateway, "GET", "grants")).json["data"] == []
        [withdrawn, created] = (await ask(gateway, "GET", "audit")).json["data"]
        assert (withdrawn["action"], withdrawn["subject"], withdrawn["before"]) == (
            "grant.withdraw",
            grant["id"],
            grant,
        )
        assert (created["action"], created["subject"], created["after"]) == ("grant.create", grant["id"], grant)
        logged = [line["action"] for line in gateway.lines if line["event"] == "audit"]
        assert logged == ["grant.create", "grant.withdraw"]
        limits = (await ask(gateway, "GET", "limits?team=search")).json["data"]
        assert [limit["amount"] for limit in limits if limit["name"] == "requests-per-day"] == [1]


async def test_a_limit_of_anyone_can_be_raised() -> None:
    everybody = [{"requests": 50, "per": "minute"}]
    model = {**PRICED, "limits": [{"tokens": 1000, "per": "hour"}]}
    async with running(limits=everybody, model=model) as gateway:
        made = (await ask(gateway, "POST", "keys", {"team": "search", "name": "k", "limits": everybody})).json
        gateway._answers.pop()
        [configured] = (await ask(gateway, "GET", "keys?source=config")).json["data"]
        subjects: list[tuple[Json, str, str]] = [
            ({"limit": "requests-per-minute", "team": None}, "organisation", ""),
            ({"limit": "tokens-per-hour", "team": None, "model": MODEL}, "model", MODEL),
            ({"limit": "requests-per-day"}, "team", "search"),
            ({"limit": "usd-per-month", "amount": 0.25}, "team", "search"),
            ({"limit": "requests-per-minute", "key": made["id"]}, "key", made["id"]),
            ({"limit": "requests-per-minute", "key": made["id"], "team": None}, "key", made["id"]),
            ({"limit": "concurrent", "user": "ann@example.com"}, "user", "ann@example.com"),
        ]
        for changes, scope, subject in subjects:
            grant = await raised(gateway, **changes)
            assert (grant["scope"], grant["subject"]) == (scope, subject)
            assert grant["amount"] == changes.get("amount", 2)
        amounts = {limit["name"]: limit["amount"] for limit in (await ask(gateway, "GET", "limits")).json["data"]}
        assert amounts["usd-per-month"] == 5.25
        assert amounts["tokens-per-hour"] == 1002
        refused = await ask(gateway, "POST", "grants", {**LAUNCH, "key": configured["id"]})
        assert (refused.status, refused.error["param"]) == (400, "limit")


@pytest.mark.slow
async def test_gateways_admit_exactly_as_much_until_the_grant_ends_to_the_second(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(DemoUpstream(DemoScript(chunks=1)))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        processes = []
        for number in range(GATEWAYS):
            folder = tmp_path / str(number)
            folder.mkdir()
            store = {"url": redis.url, "journal": str(folder / "journal")}
            team = {"limits": [{"requests": 20, "per": "day", "name": "most"}]}
            config = configuration(upstream.base_url, admin=ADMIN, store=store, team=team)
            processes.append(await stack.enter_async_context(gateway_process(config=config, folder=folder)))

        async def status(number: int) -> int:
            url = f"http://127.0.0.1:{processes[number % GATEWAYS].port}/v1/chat/completions"
            headers = {"authorization": f"Bearer {KEY}"}
            async with session.post(url, json=chat_body(), headers=headers) as answer:
                await answer.read()
                return answer.status

        url = f"http://127.0.0.1:{processes[0].admin_port}/admin/v1/grants"
        headers = {"authorization": f"Bearer {TOKEN}"}
        racing = [asyncio.create_task(status(number)) for number in range(24)]
        grant = {**LAUNCH, "limit": "most", "amount": 7, "until": "1h"}
        async with session.post(url, json=grant, headers=headers) as answer:
            assert answer.status == 200
        statuses = await asyncio.gather(*racing)
        await asyncio.sleep(SEEN_EVERYWHERE_S)
        statuses += await asyncio.gather(*[status(number) for number in range(16)])
        assert statuses.count(200) == 27
        until = datetime.now(UTC) + timedelta(seconds=4)
        async with session.post(
            url, json={**grant, "amount": 1_000, "until": until.isoformat()}, headers=headers
        ) as answer:
            assert answer.status == 200
        await asyncio.sleep(SEEN_EVERYWHERE_S)
        seen = []
        while time.time() < until.timestamp() + 1:
            before = time.time()
            statuses = await asyncio.gather(*[status(number) for number in range(GATEWAYS)])
            seen.append((before, time.time(), statuses))
            # Not all the time: nobody reads the gateways' log meanwhile.
            await asyncio.sleep(PAUSE_S)
        assert {each for began, ended, several in seen if ended < until.timestamp() for each in several} == {200}
        assert {each for began, ended, several in seen if began > until.timestamp() for each in several} == {429}


BAD = [
    ({"limit": None}, "limit"),
    ({"limit": "requests-per-dya"}, "limit"),
    ({"limit": 5}, "limit"),
    ({"team": "serch"}, "team"),
    ({"team": None}, "limit"),
    ({"amount": 0}, "amount"),
    ({"amount": -1}, "amount"),
    ({"amount": 1.5}, "amount"),
    ({"amount": "many"}, "amount"),
    ({"amount": 10**16}, "amount"),
    ({"amount": None}, "amount"),
    ({"until": "yesterday"}, "until"),
    ({"until": "2020-01-01"}, "until"),
    ({"until": "367d"}, "until"),
    ({"until": "0001-01-01"}, "until"),
    ({"until": "99999999d"}, "until"),
    ({"until": None}, "until"),
    ({"why": ""}, "why"),
    ({"why": None}, "why"),
    ({"why": "a\nb"}, "why"),
    ({"colour": "red"}, "colour"),
    ({"key": "none"}, "key"),
    ({"key": "0" * 12}, "key"),
    ({"model": MODEL}, "model"),
    ({"team": None, "model": "none"}, "model"),
    ({"team": None, "user": "ann"}, "team"),
    ({"user": "ann", "key": "0" * 12}, "user"),
    ({"user": "ann\n"}, "user"),
]


async def test_a_limit_that_the_team_does_not_have_is_answered_with_those_that_it_has() -> None:
    """The name that is most alike could count dollars in place of tokens."""
    async with running() as gateway:
        reply = await ask(gateway, "POST", "grants", {**LAUNCH, "limit": "tokens-per-month"})
        assert (
            reply.error["message"] == "'limit' must be a limit of team search; it has requests-per-day, usd-per-month"
        )


@pytest.mark.parametrize(("changes", "param"), BAD, ids=str)
async def test_a_grant_that_cannot_be_made_names_what_is_wrong_and_changes_nothing(changes: Json, param: str) -> None:
    async with running() as gateway:
        reply = await ask(gateway, "POST", "grants", {**LAUNCH, **changes})
        assert (reply.status, reply.error["param"]) == (400, param), reply.body
        for page in ("audit", "grants"):
            assert (await ask(gateway, "GET", page)).json["data"] == []


@pytest.mark.parametrize(
    ("method", "page", "body", "status"),
    [
        ("POST", "grants", b"{", 400),
        ("POST", "grants", b"[]", 400),
        ("POST", "grants?team=search", LAUNCH, 400),
        ("GET", "grants?colour=red", None, 400),
        ("GET", "grants?team=none", None, 400),
        ("PUT", "grants", LAUNCH, 405),
        ("DELETE", "grants", None, 405),
        ("GET", "grants/", None, 404),
        ("GET", "grants/000000000000", None, 404),
        ("DELETE", "grants/000000000000", None, 404),
        ("DELETE", "grants/000000000000?sure=yes", None, 400),
        ("PATCH", "grants/000000000000", {}, 405),
        ("GET", "grants/000000000000/rotate", None, 404),
    ],
)
async def test_odd_requests_about_grants_are_refused(method: str, page: str, body: Any, status: int) -> None:
    async with running() as gateway:
        assert (await ask(gateway, method, page, body)).status == status


@pytest.mark.parametrize("token", ["", "another", KEY], ids=["none", "wrong", "data-plane"])
async def test_grants_are_for_operators_alone(token: str) -> None:
    async with running() as gateway:
        grant = await raised(gateway)
        for method, page in (("GET", "grants"), ("POST", "grants"), ("DELETE", f"grants/{grant['id']}")):
            assert (await ask(gateway, method, page, LAUNCH, token)).status == 401
        assert (await ask(gateway, "GET", "grants")).json["data"] == [grant]


async def test_a_limit_has_so_many_grants_and_an_ended_one_makes_room() -> None:
    async with running() as gateway:
        for _ in range(16):
            last = await raised(gateway)
        refused = await ask(gateway, "POST", "grants", LAUNCH)
        assert (refused.status, "16 grants already" in refused.error["message"]) == (400, True)
        await ask(gateway, "DELETE", f"grants/{last['id']}")
        await raised(gateway)


async def test_where_the_store_is_out_nothing_is_granted(redis: RedisServer) -> None:
    async with running(store={"url": redis.url}) as gateway:
        redis.kill()
        assert (await ask(gateway, "POST", "grants", LAUNCH)).status == 503
        assert (await ask(gateway, "GET", "grants")).status == 503


# By commands.


class Shell:
    """Runs `gateway limits` over an empty Redis."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def run(self, *words: str) -> Result:
        environment = {"GATEWAY_CONFIG": str(self.file)}
        return CliRunner().invoke(main, ["limits", *words], env=environment, terminal_width=200)

    def json(self, *words: str) -> Json:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        found: Json = json.loads(result.stdout)
        return found


@pytest.fixture
def shell(redis: RedisServer, tmp_path: Path) -> Shell:
    file = tmp_path / "gateway.yaml"
    config = configuration(NOWHERE, store={"url": redis.url}, team=TEAM, model=PRICED)
    file.write_text(json.dumps(config))
    return Shell(file)


GRANT = (
    "grant",
    "--team",
    "search",
    "--limit",
    "requests-per-day",
    "--amount",
    "1_000",
    "--until",
    "3d",
    "--why",
    "x y",
)


def test_commands_make_list_and_withdraw_grants(shell: Shell) -> None:
    assert shell.run("grants").stdout == "There are no grants.\n"
    made = shell.json(*GRANT)
    assert (made["amount"], made["why"], made["granted_by"].partition(",")[0]) == (1000, "x y", "the command line")
    assert shell.json("grants") == {"data": [made], "next": None}
    assert shell.json("grants", "--team", "search")["data"] == [made]
    [row] = csv.DictReader(io.StringIO(shell.run("grants", "--csv").stdout))
    assert (row["id"], row["of"], row["amount"], row["why"]) == (made["id"], "team search", "1000", "x y")
    assert made["id"] in shell.run("grants").stdout
    line = next(line for line in shell.run("--team", "search").stdout.splitlines() if "requests-per-day" in line)
    assert line.split()[1:8] == ["team", "search", "0", "0", "1,001", "1,001", "1,000"]
    ended = shell.run("withdraw", made["id"])
    assert (ended.exit_code, "has ended" in ended.stdout) == (0, True)
    assert shell.json("grants")["data"] == []
    assert [limit["amount"] for limit in shell.json()["data"] if limit["name"] == "requests-per-day"] == [1]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("grant",), 2, "--limit"),
        (GRANT[:3], 2, "--limit"),
        (GRANT[:-2], 2, "--why"),
        ((*GRANT[:2], "serch", *GRANT[3:]), 2, "did you mean search?"),
        ((*GRANT, "--limit", "requests-per-dya"), 2, "it has requests-per-day, usd-per-month"),
        ((*GRANT, "--amount", "many"), 2, "amount"),
        ((*GRANT, "--amount", "0"), 2, "amount"),
        ((*GRANT, "--until", "soon"), 2, "until"),
        ((*GRANT, "--until", "2020-01-01"), 2, "later than now"),
        ((*GRANT, "--until", "400d"), 2, "within 366 days"),
        ((*GRANT, "--key", "000000000000"), 2, "no key"),
        ((*GRANT, "--model", MODEL), 2, "at once"),
        ((*GRANT, "--csv"), 2, "--csv"),
        (("grants", "--csv", "--json"), 2, "cannot be combined"),
        (("grants", "--team", "serch"), 2, "did you mean search?"),
        (("withdraw",), 2, "ID"),
        (("withdraw", "launch"), 2, "the id of a grant"),
        (("withdraw", "000000000000"), 1, "no grant with the id"),
        (("--team", "search", "grants"), 2, "after 'grants'"),
        (("--team", "serch"), 2, "serch"),
        (("burn",), 2, "No such command"),
    ],
)
def test_wrong_missing_and_contradictory_arguments_are_refused_in_words(
    shell: Shell, words: tuple[str, ...], status: int, says: str
) -> None:
    result = shell.run(*words)
    assert (result.exit_code, says in result.stderr) == (status, True), result.stderr
    assert "Traceback" not in result.output
    assert shell.json("grants")["data"] == []
