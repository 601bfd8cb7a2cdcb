"""What `gateway usage` and `gateway limits` tell: from Redis, or from the running gateway that counts in memory."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.free_ports import free_port
from gateway.__main__ import main
from gateway.demo import DemoScript, DemoUpstream
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import MODEL, Json, WholeGateway, configuration, whole_gateway

TOKEN = "operators-token"
TEAM = {"limits": [{"tokens": 2_000, "per": "day"}, {"requests": 50, "per": "day", "mode": "shadow"}]}
SHARES_NOTHING = "memory://"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class Operator:
    """Somebody at a terminal, with the gateway's configuration in a file."""

    def __init__(self, file: Path, config: Json) -> None:
        self._file = file
        file.write_text(json.dumps(config))

    async def run(self, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "-c", str(self._file)])


def operator_of(gateway: WholeGateway, folder: Path, **changes: object) -> Operator:
    admin = {"listen": f"127.0.0.1:{gateway.admin_port}", "token": TOKEN}
    return Operator(folder / "gateway.yaml", configuration("http://127.0.0.1:1/v1", admin=admin, team=TEAM, **changes))


def store_at(redis: RedisServer, folder: Path) -> Json:
    return {"url": redis.url, "journal": str(folder / "journal"), "prefix": folder.name[:40].replace("[", "-")}


@pytest.fixture(params=["redis", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Json:
    return store_at(request.getfixturevalue("redis"), tmp_path) if request.param == "redis" else {"url": SHARES_NOTHING}


async def test_people_get_tables_and_programs_what_the_admin_api_gives(store: Json, tmp_path: Path) -> None:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with (
        DemoUpstream(DemoScript(chunks=30)) as upstream,
        whole_gateway(upstream.base_url, admin=admin, team=TEAM, store=store) as gateway,
    ):
        operator = operator_of(gateway, tmp_path, store=store)
        await gateway.chat()
        await gateway.ended()

        shown = await operator.run("usage")
        assert shown.exit_code == 0, shown.output
        heading, row, total = [line.split() for line in shown.stdout.splitlines()]
        assert heading[:4] == ["team", "model", "requests", "input"]
        assert (row[:3], row[5]) == (["search", MODEL, "1"], "30")
        assert (total[0], total[1:]) == ("total", row[2:])

        headers = {"authorization": f"Bearer {TOKEN}"}
        for page, arguments in (
            ("usage?by=team,model", ["usage"]),
            ("limits?team=search", ["limits", "--team", "search"]),
        ):
            told = await gateway.request("GET", f"/admin/v1/{page}", admin=True, headers=headers)
            assert json.loads((await operator.run(*arguments, "--json")).stdout) == told.json

        twice = await operator.run("usage", "--by", "month", "--by", "upstream,team", "--csv")
        assert twice.stdout.startswith("month,upstream,team,requests,")
        (row,) = csv.DictReader(io.StringIO((await operator.run("usage", "--by", "team", "--csv")).stdout))
        assert (row["team"], row["requests"], row["output_tokens"]) == ("search", "1", "30")

        shown = await operator.run("usage", "--by", "upstream,month", "--since", "7d", "--sort", "usd", "--top", "3")
        heading, row, _ = [line.split() for line in shown.stdout.splitlines()]
        assert (heading[:3], row[0], row[2]) == (["upstream", "month", "requests"], "up1", "1")

        lines = (await operator.run("limits")).stdout.splitlines()
        assert lines[0].split()[:3] == ["limit", "of", "used"]
        assert lines[1].startswith("tokens-per-day             team search ")
        assert lines[2].startswith("requests-per-day (shadow)  team search ")


async def test_users_are_told_though_their_names_are_meant_to_harm(store: Json, tmp_path: Path) -> None:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with (
        DemoUpstream(DemoScript(chunks=30, cached_tokens=4)) as upstream,
        whole_gateway(upstream.base_url, admin=admin, team=TEAM | {"cost_center": "4711"}, store=store) as gateway,
    ):
        operator = operator_of(gateway, tmp_path, store=store)
        for user in ("ann", "ann", "=1+1\x1b[2J"):
            await gateway.chat(user=user)
            await gateway.ended()
        query = ("usage", "--by", "user,cost_center", "--sort", "requests")
        told = json.loads((await operator.run(*query, "--json")).stdout)["rows"]
        assert [(row["user"], row["cost_center"], row["requests"]) for row in told] == [
            ("ann", "4711", 2),
            ("=1+1\x1b[2J", "4711", 1),
        ]
        lines = (await operator.run(*query, "--top", "1")).stdout.splitlines()
        assert [line.split()[:3] for line in lines[1:]] == [["ann", "4711", "2"], ["total", "3", lines[2].split()[2]]]
        assert "=1+1\\x1b[2J" in (await operator.run(*query)).stdout
        (row,) = csv.DictReader(io.StringIO((await operator.run(*query, "--user", "=1+1\x1b[2J", "--csv")).stdout))
        assert (row["user"], row["requests"]) == ("'=1+1\x1b[2J", "1")


async def test_a_month_is_reported_and_closed_for_good(store: Json, tmp_path: Path) -> None:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with (
        DemoUpstream(DemoScript(chunks=30)) as upstream,
        whole_gateway(upstream.base_url, admin=admin, team=TEAM | {"cost_center": "4711"}, store=store) as gateway,
    ):
        operator = operator_of(gateway, tmp_path, store=store)
        await gateway.chat()
        await gateway.ended()
        [row] = json.loads((await operator.run("usage", "--by", "month", "--json")).stdout)["rows"]
        this_month = row["month"]

        shown = await operator.run("usage", "--month", this_month, "--by", "cost_center,late")
        assert shown.exit_code == 0, shown.output
        assert shown.stdout.splitlines()[1].split()[:2] == ["4711", "1"]
        assert shown.stderr.splitlines()[-1] == f"{this_month} is not final: more may be added to it."

        refused = await operator.run("usage", "--month", this_month, "--final")
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert f"{this_month} can be closed from " in refused.stderr

        wrong = await operator.run("usage", "--month", "2020-02", "--final", "--by", "colour")
        assert wrong.exit_code == 2
        assert not json.loads((await operator.run("usage", "--month", "2020-02", "--json")).stdout)["month"]["final"]
        for _ in range(2):
            final = await operator.run("usage", "--month", "2020-02", "--final")
            assert (final.exit_code, final.stdout) == (0, "Nothing was used.\n")
            assert final.stderr.splitlines()[-1] == "2020-02 is final: it does not change any more."
        (entry,) = json.loads((await operator.run("audit", "--json")).stdout)["data"]
        assert (entry["action"], entry["subject"]) == ("usage.close", "2020-02")
        for month, is_final in (("2020-01", True), ("2020-03", False), (this_month, False)):
            told = json.loads((await operator.run("usage", "--month", month, "--json")).stdout)
            assert told["month"] == {"name": month, "final": is_final}
        assert "month" not in json.loads((await operator.run("usage", "--json")).stdout)

        headers = {"authorization": f"Bearer {TOKEN}"}
        page = "/admin/v1/usage/close?month=2020-03"
        closed = await gateway.request("POST", page, admin=True, headers=headers)
        assert (closed.status, closed.json) == (200, {"month": {"name": "2020-03", "final": True}})
        assert (await gateway.request("GET", page, admin=True, headers=headers)).status == 405
        assert (await gateway.request("POST", page, admin=True)).status == 401
        for wrong in ("", "?month=2020", "?month=9999-12", f"?month={this_month}", "?month=2020-01&team=search"):
            reply = await gateway.request("POST", f"/admin/v1/usage/close{wrong}", admin=True, headers=headers)
            assert reply.status == 400, wrong


async def test_usage_is_written_as_focus_rows_with_every_filter(store: Json, tmp_path: Path) -> None:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with (
        DemoUpstream(DemoScript(chunks=30)) as upstream,
        whole_gateway(upstream.base_url, admin=admin, team=TEAM | {"cost_center": "4711"}, store=store) as gateway,
    ):
        operator = operator_of(gateway, tmp_path, store=store)
        for _ in range(2):
            await gateway.chat()
            await gateway.ended()
        written = await operator.run("usage", "--focus", "--cost-center", "4711", "--since", "7d")
        assert written.exit_code == 0, written.output
        (row,) = csv.DictReader(io.StringIO(written.stdout))
        assert (row["SubAccountId"], row["ProviderName"], row["x_CostCenter"]) == ("search", "up1", "4711")
        assert (row["x_Requests"], row["x_OutputTokens"], row["ChargeClass"]) == ("2", "60", "")
        nothing = await operator.run("usage", "--focus", "--cost-center", "4712")
        assert (nothing.exit_code, len(nothing.stdout.splitlines())) == (0, 1)


async def test_a_window_in_which_nothing_was_used_is_told_so(redis: RedisServer, tmp_path: Path) -> None:
    config = configuration("http://127.0.0.1:1/v1", store=store_at(redis, tmp_path))
    operator = Operator(tmp_path / "gateway.yaml", config)
    assert (await operator.run("usage", "--since", "2999-01-01")).stdout == "Nothing was used.\n"
    assert (await operator.run("limits")).stdout == "There are no limits.\n"


async def test_a_report_without_rows_says_which_name_may_be_wrong(redis: RedisServer, tmp_path: Path) -> None:
    config = configuration("http://127.0.0.1:1/v1", store=store_at(redis, tmp_path), model={"aliases": ["oss"]})
    operator = Operator(tmp_path / "gateway.yaml", config)
    for option, name, hint in (
        ("--team", "serch", "The configuration has no team 'serch'. Did you mean search?"),
        ("--upstream", "zzz", "The configuration has no upstream 'zzz'."),
        ("--model", "oss", "'oss' is another name of the model 'openai/gpt-oss-120b', under which its usage is."),
        ("--key", "search-prod", "'search-prod' is not the id of a key: `gateway keys list` shows the ids."),
        ("--team", "search", ""),
    ):
        told = await operator.run("usage", option, name)
        assert (told.exit_code, told.stdout, told.stderr.strip()) == (0, "Nothing was used.\n", hint)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("usage", "--by", "colour"), "'by' cannot be 'colour'"),
        (("usage", "--since", "yesterday"), "'since' must be a day"),
        (("usage", "--csv", "--json"), "cannot be combined"),
        (("usage", "--csv", "--focus"), "cannot be combined"),
        (("usage", "--focus", "--by", "team"), "leave --by out"),
        (("usage", "--focus", "--top", "3"), "leave --top out"),
        (("usage", "--final"), "name it with --month"),
        (("usage", "--month", "october"), "'month' must be a month such as 2026-10"),
        (("usage", "--month", "2026-13", "--final"), "'month' must be a month such as 2026-10"),
        (("usage", "--month", "2026-10", "--since", "7d"), "leave 'since' and 'until' out"),
        (("usage", "--month", "2999-01", "--final"), "2999-01 can be closed from 2999-02-02, 00:00 UTC on."),
        (("limits", "--team", "nobody"), "There is no team 'nobody'"),
    ],
)
async def test_a_question_that_means_nothing_ends_with_two(
    arguments: tuple[str, ...], said: str, store: Json, tmp_path: Path
) -> None:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with whole_gateway("http://127.0.0.1:1/v1", admin=admin, store=store) as gateway:
        result = await operator_of(gateway, tmp_path, store=store).run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr


async def test_a_bad_configuration_ends_with_two_and_its_errors(tmp_path: Path) -> None:
    result = await Operator(tmp_path / "gateway.yaml", {"listn": "x"}).run("usage")
    assert result.exit_code == 2
    assert "listn: is not a known setting" in result.stderr


async def test_memory_is_asked_of_the_running_gateway_and_that_is_said(tmp_path: Path) -> None:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with whole_gateway("http://127.0.0.1:1/v1", admin=admin) as gateway:
        result = await operator_of(gateway, tmp_path).run("limits")
        assert result.exit_code == 0
        assert result.stderr == (
            f"The store is in the running gateway's memory: asking it at 127.0.0.1:{gateway.admin_port}.\n"
        )


@pytest.mark.parametrize(
    ("admin", "said"),
    [
        ({"listen": "127.0.0.1:9090"}, "Set admin.token"),
        ({"listen": "127.0.0.1:0", "token": TOKEN}, "Give it a port of its own"),
        ({"listen": "127.0.0.1:PORT", "token": TOKEN}, "Is it running, with this configuration?"),
    ],
)
async def test_memory_that_cannot_be_asked_ends_with_one_and_what_to_do(admin: Json, said: str, tmp_path: Path) -> None:
    given = {**admin, "listen": admin["listen"].replace("PORT", str(free_port()))}
    operator = Operator(tmp_path / "gateway.yaml", configuration("http://127.0.0.1:1/v1", admin=given))
    result = await operator.run("usage")
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr.splitlines()[-1]


async def test_another_token_than_the_gateways_ends_with_one(tmp_path: Path) -> None:
    admin = {"listen": "127.0.0.1:0", "token": "another-token"}
    async with whole_gateway("http://127.0.0.1:1/v1", admin=admin) as gateway:
        operator, address = operator_of(gateway, tmp_path), f"127.0.0.1:{gateway.admin_port}"
        result = await operator.run("usage")
        assert result.exit_code == 1
        assert f"The gateway at {address} has another admin token. Use the configuration and the" in result.stderr
        result = await operator.run("usage", "--demo", address)
        assert result.exit_code == 1
        assert "If it is not the demo, use -c FILE in place of --demo." in result.stderr


async def test_a_store_that_is_out_ends_with_one(tmp_path: Path) -> None:
    store = {"url": f"redis://127.0.0.1:{free_port()}", "journal": str(tmp_path)}
    operator = Operator(tmp_path / "gateway.yaml", configuration("http://127.0.0.1:1/v1", store=store))
    result = await operator.run("usage")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: The store cannot be reached: ")
