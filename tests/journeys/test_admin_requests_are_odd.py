"""Requests to the admin API that mean two things, or nothing: which are refused, and what is left as it was."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.web.admin_openapi import PREFIX, admin_document
from tests.whole_gateway import Reply, WholeGateway, whole_gateway

TOKEN = "operators-token-2f8c1d"
BEARER = f"Bearer {TOKEN}"
NOWHERE = "http://127.0.0.1:1/v1"
READ = sorted(
    path
    for path, methods in json.loads(admin_document())["paths"].items()
    if path.startswith(PREFIX) and "get" in methods and "{" not in path
)


@pytest.fixture
async def gateway() -> AsyncIterator[WholeGateway]:
    async with whole_gateway(NOWHERE, admin={"listen": "127.0.0.1:0", "token": TOKEN}) as running:
        yield running


async def ask(gateway: WholeGateway, method: str, page: str, body: str | None = None, **headers: str) -> Reply:
    given = {"authorization": BEARER, **headers}
    return await gateway.request(method, f"{PREFIX}{page}", admin=True, headers=given, data=body)


async def create(gateway: WholeGateway, **fields: Any) -> Reply:
    return await ask(gateway, "POST", "keys", json.dumps({"team": "search", "name": "made", **fields}))


@pytest.mark.parametrize(
    "query",
    ["usage?by=day&by=team", "usage?team=a&team=a", "keys?limit=1&limit=2", "teams?x=1&x=1", "audit?cursor&cursor"],
)
async def test_a_parameter_that_is_given_twice_is_refused(gateway: WholeGateway, query: str) -> None:
    reply = await ask(gateway, "GET", query)
    name = query.partition("?")[2].partition("&")[0].partition("=")[0]
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_value", name)
    stranger = await ask(gateway, "GET", query, authorization="Bearer another")
    assert stranger.status == 401


async def test_every_page_that_get_reads_is_there_for_head_without_its_body(gateway: WholeGateway) -> None:
    for path in READ:
        page = path.removeprefix(PREFIX)
        head, whole = await ask(gateway, "HEAD", page), await ask(gateway, "GET", page)
        assert (head.status, head.body) == (whole.status, b""), path
        assert (await ask(gateway, "HEAD", page, authorization="Bearer another")).status in (401, whole.status)


@pytest.mark.parametrize(
    ("page", "allow"),
    [
        ("usage", "GET, HEAD"),
        ("keys", "GET, HEAD, POST"),
        ("requests", "GET, HEAD"),
        ("config", "GET, HEAD"),
        ("config/diff", "POST"),
        ("reload", "POST"),
        ("usage/close", "POST"),
        ("session", "GET, HEAD, POST, DELETE"),
    ],
)
async def test_a_wrong_method_is_answered_with_those_that_are_taken(
    gateway: WholeGateway, page: str, allow: str
) -> None:
    reply = await ask(gateway, "PUT", page, "{}")
    assert (reply.status, reply.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("page", ["nothing", "usage/", "reload/", "", "keys/abc/def"])
async def test_what_is_not_there_is_not_there_for_any_method(gateway: WholeGateway, method: str, page: str) -> None:
    assert (await ask(gateway, method, page, "{}" if method != "GET" else None)).status == 404


async def test_a_window_that_ends_before_it_begins_is_refused(gateway: WholeGateway) -> None:
    reply = await ask(gateway, "GET", "usage?since=2026-11-02&until=2026-11-01")
    assert (reply.status, reply.error["param"]) == (400, "until")
    assert (await ask(gateway, "GET", "usage?since=2026-11-01&until=2026-11-01")).json["rows"] == []


async def test_two_tokens_that_differ_are_no_token_whichever_comes_first(gateway: WholeGateway) -> None:
    for given in ([BEARER, "Bearer another"], ["Bearer another", BEARER]):
        headers = CIMultiDict([("authorization", each) for each in given])
        assert (await gateway.request("GET", f"{PREFIX}teams", admin=True, headers=headers)).status == 401
    headers = CIMultiDict([("authorization", BEARER), ("authorization", BEARER)])
    assert (await gateway.request("GET", f"{PREFIX}teams", admin=True, headers=headers)).status == 200


async def test_a_member_that_is_written_twice_is_refused_and_nothing_is_made(gateway: WholeGateway) -> None:
    for body in (
        '{"team": "search", "name": "a", "name": "b"}',
        '{"team": "search", "name": "a", "limits": [{"requests": 1, "requests": 2, "per": "minute"}]}',
        '{"team": "search", "name": "a", "metadata": {"owner": "x", "\\u006fwner": "y"}}',
    ):
        reply = await ask(gateway, "POST", "keys", body)
        assert (reply.status, reply.error["code"]) == (400, "invalid_json"), body
    assert (await ask(gateway, "GET", "keys?source=store")).json["data"] == []


async def test_too_many_entries_are_said_to_be_too_many(gateway: WholeGateway) -> None:
    reply = await create(gateway, metadata={f"n{number}": "x" for number in range(33)})
    assert (reply.status, reply.error["message"]) == (400, "'metadata' has too many entries.")


async def test_a_key_is_not_replaced_by_one_that_has_expired_already(gateway: WholeGateway) -> None:
    made = await create(gateway)
    gateway._answers.pop()  # It shows the secret, once.
    rotated = await ask(gateway, "POST", f"keys/{made.json['id']}/rotate", '{"expires_at": "2020-01-01"}')
    assert (rotated.status, rotated.error["param"]) == (400, "expires_at")
    (key,) = (await ask(gateway, "GET", "keys?source=store")).json["data"]
    assert (key["status"], key["expires_at"]) == ("active", None)


async def test_a_month_that_is_closed_is_an_entry_of_the_audit_once(gateway: WholeGateway) -> None:
    for _ in range(2):
        assert (await ask(gateway, "POST", "usage/close?month=2020-03")).status == 200
    assert (await ask(gateway, "POST", "usage/close?month=2020-02")).status == 200
    (entry,) = (await ask(gateway, "GET", "audit")).json["data"]
    assert (entry["action"], entry["subject"]) == ("usage.close", "2020-03")
    assert (entry["before"], entry["after"]) == ({"closed_until": None}, {"closed_until": "2020-04-01"})
    assert [line["subject"] for line in gateway.lines if line["event"] == "audit"] == ["2020-03"]
