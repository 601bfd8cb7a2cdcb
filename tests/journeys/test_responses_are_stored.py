"""Responses and conversations that an upstream keeps: each belongs to the team whose request made it, and is asked of
the upstream that has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from gateway.core.endpoints import OBJECT_ENDPOINTS, Endpoint
from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import hand_upstream
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import KEY, MODEL, Json, Reply, WholeGateway, key_settings, whole_gateway

OTHERS = "gw_oTh3rT34m5Gd2mR8sT1vX4bF7hJ3qP6wA9eU0iO5yKd"
UNKNOWN = {"response": "resp_that-never-was", "conversation": "conv_that-never-was"}
OTHER_MODEL = "openai/other"
TEAMS = {
    "search": {"keys": [key_settings()]},
    "ads": {"keys": [key_settings("ads-test", OTHERS)]},
}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


class Kept(NamedTuple):
    """What one team has made."""

    response: str
    conversation: str


async def ask(gateway: WholeGateway, method: str, path: str, *, key: str = KEY, body: Json | None = None) -> Reply:
    headers = {"authorization": f"Bearer {key}"}
    options: dict[str, Any] = {} if body is None else {"json": body}
    return await gateway.request(method, path, headers=headers, **options)


async def create(gateway: WholeGateway, *, key: str = KEY, **fields: Any) -> Reply:
    body = {"model": MODEL, "input": "Say hello.", **fields}
    return await gateway.post(json.dumps(body).encode(), path="/v1/responses", key=key)


async def make_both(gateway: WholeGateway, key: str = KEY) -> Kept:
    response = (await create(gateway, key=key)).json["id"]
    conversation = (await ask(gateway, "POST", "/v1/conversations", key=key, body={})).json["id"]
    await gateway.ended()
    await gateway.ended()
    return Kept(response, conversation)


@asynccontextmanager
async def two_upstreams(**changes: Any) -> AsyncIterator[tuple[WholeGateway, DemoUpstream, DemoUpstream]]:
    """Two that answer alike, and whose ids differ; requests take turns."""
    script = DemoScript(chunks=2)
    async with DemoUpstream(script) as one, DemoUpstream(script, seed=1) as other:
        routes = [{"upstream": name} for name in ("up1", "up2")]
        given = {"model": {"routes": routes}, "teams": TEAMS, **changes}
        async with whole_gateway(one.base_url, other.base_url, **given) as gateway:
            yield gateway, one, other


def path_of(row: Endpoint, kept: Kept) -> str:
    names = {"{response_id}": kept.response, "{conversation_id}": kept.conversation, "{item_id}": "msg_0"}
    path = row.path
    for name, value in names.items():
        path = path.replace(name, value)
    return path


def named(row: Endpoint) -> str:
    return row.name


async def test_a_response_is_asked_for_at_the_upstream_that_made_it() -> None:
    async with two_upstreams() as (gateway, one, other):
        made = [(await create(gateway)).json["id"] for _ in range(4)]
        for name in made * 2:
            assert (await ask(gateway, "GET", f"/v1/responses/{name}")).json["id"] == name
        asked = [[each.path for each in up.truth.requests if each.method == "GET"] for up in (one, other)]
        assert sorted(path for paths in asked for path in paths) == sorted(f"/v1/responses/{name}" for name in made * 2)
        assert all(asked)


async def test_a_request_goes_on_where_the_response_is_that_it_names() -> None:
    async with two_upstreams() as (gateway, one, other):
        first = (await create(gateway)).json["id"]
        holder = next(up for up in (one, other) if up.truth.requests)
        for _ in range(4):
            again = await create(gateway, previous_response_id=first)
            assert again.json["previous_response_id"] == first
        assert len(holder.truth.requests) == 5


async def test_a_conversation_is_used_where_it_was_made() -> None:
    async with two_upstreams() as (gateway, one, other):
        made = await ask(gateway, "POST", "/v1/conversations", body={})
        (holder,) = [up for up in (one, other) if up.truth.requests]
        for _ in range(2):
            assert (await create(gateway, conversation=made.json["id"])).status == 200
            assert (await create(gateway, conversation={"id": made.json["id"]}, stream=True)).status == 200
        assert len(holder.truth.requests) == 5


async def test_both_are_sent_to_one_upstream_or_refused() -> None:
    async with two_upstreams() as (gateway, _one, _other):
        responses = [(await create(gateway)).json["id"] for _ in range(2)]
        conversation = (await ask(gateway, "POST", "/v1/conversations", body={})).json["id"]
        told = [
            (await create(gateway, previous_response_id=name, conversation=conversation)).status for name in responses
        ]
        assert sorted(told) == [200, 400]


@pytest.mark.parametrize("row", [row for row in OBJECT_ENDPOINTS if row.object_parameter], ids=named)
async def test_every_route_by_id_is_closed_to_another_team(row: Endpoint) -> None:
    """Its answer is that of an id which never was, but for the id."""
    async with two_upstreams() as (gateway, one, other):
        kept = await make_both(gateway)
        before = len(one.truth.requests) + len(other.truth.requests)
        theirs = await ask(gateway, row.method, path_of(row, kept), key=OTHERS)
        nobodys = await ask(gateway, row.method, path_of(row, Kept(*UNKNOWN.values())), key=OTHERS)
        assert theirs.status == nobodys.status == 404
        own = {"response": kept.response, "conversation": kept.conversation}[str(row.about)]
        assert theirs.body.decode().replace(own, UNKNOWN[str(row.about)]) == nobodys.body.decode()
        assert theirs.headers.keys() == nobodys.headers.keys()
        assert len(one.truth.requests) + len(other.truth.requests) == before
        assert (await ask(gateway, row.method, path_of(row, kept), body={})).status != 404 or "item_id" in row.path


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens", "/v1/responses/compact"])
@pytest.mark.parametrize("member", ["previous_response_id", "conversation", "conversation.id"])
async def test_every_member_that_goes_on_is_closed_to_another_team(path: str, member: str) -> None:
    async with two_upstreams() as (gateway, one, other):
        kept = await make_both(gateway)
        before = len(one.truth.requests) + len(other.truth.requests)
        own = kept.response if member == "previous_response_id" else kept.conversation
        answers = []
        for name in (own, "x-that-never-was"):
            value = {"id": name} if member.endswith(".id") else name
            body = {"model": MODEL, "input": "Say hello.", member.partition(".")[0]: value}
            answers.append(await ask(gateway, "POST", path, key=OTHERS, body=body))
        theirs, nobodys = answers
        assert theirs.status == nobodys.status == 404
        assert theirs.body.decode().replace(own, "x-that-never-was") == nobodys.body.decode()
        assert theirs.error["param"] == member.partition(".")[0]
        assert len(one.truth.requests) + len(other.truth.requests) == before


async def test_every_key_of_the_team_has_what_one_of_them_made() -> None:
    second = "gw_5ec0nDkEy5Gd2mR8sT1vX4bF7hJ3qP6wA9eU0iO5yKe"
    team = {"keys": [key_settings(), key_settings("second", second)]}
    async with two_upstreams(teams={"search": team}) as (gateway, _one, _other):
        name = (await create(gateway)).json["id"]
        assert (await ask(gateway, "GET", f"/v1/responses/{name}", key=second)).status == 200


async def test_a_key_that_may_not_use_the_model_does_not_see_its_responses() -> None:
    second = "gw_5ec0nDkEy5Gd2mR8sT1vX4bF7hJ3qP6wA9eU0iO5yKe"
    team = {"keys": [key_settings(), key_settings("second", second, models=["none/*"])]}
    models = {MODEL: {"routes": [{"upstream": "up1"}]}, "none/1": {"routes": [{"upstream": "up1"}]}}
    async with (
        DemoUpstream(DemoScript(chunks=2)) as upstream,
        whole_gateway(upstream.base_url, models=models, teams={"search": team}) as gateway,
    ):
        name = (await create(gateway)).json["id"]
        refused = await ask(gateway, "GET", f"/v1/responses/{name}", key=second)
        assert (refused.status, refused.error["code"]) == (404, "response_not_found")


async def test_what_is_not_to_be_stored_belongs_to_nobody() -> None:
    async with two_upstreams() as (gateway, one, other):
        name = (await create(gateway, store=False)).json["id"]
        assert (await ask(gateway, "GET", f"/v1/responses/{name}")).error["code"] == "response_not_found"
        told = await create(gateway, previous_response_id=name)
        assert (told.status, told.error["code"]) == (404, "previous_response_not_found")
        assert len(one.truth.requests) + len(other.truth.requests) == 1


async def test_a_streamed_response_is_known_by_its_events() -> None:
    async with two_upstreams() as (gateway, _one, _other):
        answer = await create(gateway, stream=True)
        name = json.loads(answer.body.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]
        assert (await ask(gateway, "GET", f"/v1/responses/{name}")).json["id"] == name


async def test_a_response_is_known_while_its_stream_is_still_coming() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=200, chunk_delay_ms=50)) as upstream,
        whole_gateway(upstream.base_url, teams=TEAMS) as gateway,
    ):
        headers = {"authorization": f"Bearer {KEY}"}
        body = {"model": MODEL, "input": "Say hello.", "stream": True}
        async with gateway.session.post(f"{gateway.url}/responses", json=body, headers=headers) as stream:
            began = await stream.content.readuntil(b"\n\n")
            name = json.loads(began.partition(b"data: ")[2])["response"]["id"]
            assert (await ask(gateway, "GET", f"/v1/responses/{name}")).status == 200
            assert (await ask(gateway, "GET", f"/v1/responses/{name}", key=OTHERS)).status == 404


async def test_a_retrieved_response_is_not_billed_again() -> None:
    team = {"keys": [key_settings()], "limits": [{"requests": 100, "per": "day"}, {"tokens": 1000, "per": "day"}]}
    async with two_upstreams(teams={"search": team}) as (gateway, _one, _other):
        name = (await create(gateway)).json["id"]
        await gateway.ended()
        billed = await gateway.ledger()
        answer = await ask(gateway, "GET", f"/v1/responses/{name}")
        await gateway.ended()
        after = await gateway.ledger()
        assert answer.json["usage"]["total_tokens"] > 0
        assert (after.input, after.output, after.cost) == (billed.input, billed.output, billed.cost)
        assert after.requests == billed.requests + 1
        assert answer.headers["x-quota-remaining-requests"] == "98"


async def test_the_query_passes_and_no_body_is_sent_and_a_head_has_none() -> None:
    long = b'{"object":"list","data":["%b"]}' % (b"x" * 200_000)
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, teams=TEAMS) as gateway:
        making = asyncio.create_task(create(gateway))
        (await upstream.asked()).answer(b'{"id":"resp_1","object":"response","output":[],"usage":null}')
        await making
        for method in ("GET", "HEAD"):
            path = "/v1/responses/resp_1/input_items?include[]=a&limit=2&api_key=no"
            asking = asyncio.create_task(ask(gateway, method, path))
            turn = await upstream.asked()
            turn.answer(long)
            assert (await asking).body == (b"" if method == "HEAD" else long)
            assert turn.request_line == "GET /v1/responses/resp_1/input_items?include%5B%5D=a&limit=2 HTTP/1.1"
            assert {"content-type", "content-length", "transfer-encoding"}.isdisjoint(dict(turn.headers))


async def test_a_stream_is_resumed_by_its_id() -> None:
    events = b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_1"}}\n\n'
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, teams=TEAMS) as gateway:
        making = asyncio.create_task(create(gateway))
        (await upstream.asked()).answer(b'{"id":"resp_1","object":"response","output":[],"usage":null}')
        await making
        asking = asyncio.create_task(ask(gateway, "GET", "/v1/responses/resp_1?stream=true&starting_after=3"))
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(events)
        turn.end_stream()
        told = await asking
        assert turn.request_line == "GET /v1/responses/resp_1?stream=true&starting_after=3 HTTP/1.1"
        assert (told.body, told.headers["content-type"]) == (events, "text/event-stream; charset=utf-8")


async def test_an_id_that_a_client_chose_gives_nothing_of_another_team_away() -> None:
    """vLLM calls a response as the request's `request_id` says."""
    begun = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","error":null}}\n\n'
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, teams=TEAMS) as gateway:
        making = asyncio.create_task(create(gateway))
        (await upstream.asked()).answer(b'{"id":"resp_1","object":"response","output":[],"usage":null}')
        await making
        body = {"model": MODEL, "input": "Say hello.", "stream": True, "request_id": "resp_1"}
        headers = {"authorization": f"Bearer {OTHERS}"}
        asking = asyncio.create_task(gateway.session.post(f"{gateway.url}/responses", json=body, headers=headers))
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(begun)
        async with await asking as stream:
            assert await stream.content.readuntil(b"\n\n") == begun
            assert (await ask(gateway, "GET", "/v1/responses/resp_1", key=OTHERS)).status == 404
        await turn.left()
        assert (await ask(gateway, "GET", "/v1/responses/resp_1", key=OTHERS)).status == 404


async def test_a_failing_store_is_a_clear_error(redis: RedisServer) -> None:
    store = {"url": redis.url, "on_outage": "allow", "prefix": "outage"}
    async with two_upstreams(store=store) as (gateway, one, other):
        name = (await create(gateway)).json["id"]
        await gateway.ended()
        before = len(one.truth.requests) + len(other.truth.requests)
        redis.stop()
        for told in (
            await ask(gateway, "GET", f"/v1/responses/{name}"),
            await create(gateway, previous_response_id=name),
        ):
            assert (told.status, told.error["code"]) == (503, "store_unavailable")
            assert "which upstream has this response" in told.error["message"]
            assert "retry-after" in told.headers
        redis.start()
        assert len(one.truth.requests) + len(other.truth.requests) == before


async def test_another_process_knows_what_one_has_made(redis: RedisServer) -> None:
    store = {"url": redis.url, "prefix": "two"}
    async with (
        DemoUpstream(DemoScript(chunks=2)) as upstream,
        whole_gateway(upstream.base_url, teams=TEAMS, store=store) as one,
        whole_gateway(upstream.base_url, teams=TEAMS, store=store) as other,
    ):
        for stream in (False, True):
            await create(one, stream=stream)
        for name in [f"resp_{number:024x}" for number in (1, 2)]:
            assert (await ask(other, "GET", f"/v1/responses/{name}")).status == 200
            assert (await ask(other, "GET", f"/v1/responses/{name}", key=OTHERS)).status == 404
            assert (await create(other, previous_response_id=name)).status == 200


async def test_an_upstream_without_stored_responses_says_so_itself() -> None:
    async with (
        DemoUpstream(DemoScript(chunks=2)) as upstream,
        whole_gateway(upstream.base_url, teams=TEAMS) as gateway,
    ):
        name = (await create(gateway)).json["id"]
        await ask(gateway, "DELETE", f"/v1/responses/{name}")
        gone = await ask(gateway, "GET", f"/v1/responses/{name}")
        assert (gone.status, gone.json["error"]["message"]) == (404, f"There is nothing with the id {name!r}.")


async def test_a_model_without_a_route_there_cannot_go_on() -> None:
    models = {MODEL: {"routes": [{"upstream": "up1"}]}, OTHER_MODEL: {"routes": [{"upstream": "up2"}]}}
    async with two_upstreams(models=models) as (gateway, _one, other):
        name = (await create(gateway)).json["id"]
        told = await create(gateway, model=OTHER_MODEL, previous_response_id=name)
        assert (told.status, told.error["param"]) == (400, "previous_response_id")
        assert f"Use {MODEL!r}." in told.error["message"]
        assert not other.truth.requests


async def test_the_query_says_whose_upstream_makes_a_conversation() -> None:
    models = {MODEL: {"routes": [{"upstream": "up1"}]}, OTHER_MODEL: {"routes": [{"upstream": "up2"}]}}
    async with two_upstreams(models=models) as (gateway, one, other):
        made = await ask(gateway, "POST", f"/v1/conversations?model={OTHER_MODEL}", body={"metadata": {"a": "b"}})
        assert made.json["metadata"] == {"a": "b"}
        assert (len(one.truth.requests), len(other.truth.requests)) == (0, 1)
        refused = await ask(gateway, "POST", "/v1/conversations?model=none", body={})
        assert refused.error["code"] == "model_not_found"


async def test_ids_cannot_lead_to_another_path() -> None:
    async with two_upstreams() as (gateway, one, other):
        kept = await make_both(gateway)
        before = len(one.truth.requests) + len(other.truth.requests)
        for item in ("..", "..%2F..%2Fresponses", "a%2Fb", "%2e%2e", "a%3Fb"):
            told = await ask(gateway, "GET", f"/v1/conversations/{kept.conversation}/items/{item}")
            assert told.status == 404, item
        assert len(one.truth.requests) + len(other.truth.requests) == before


@pytest.mark.parametrize("items", [1, "text", [1, "text", None], {"id": "x"}])
async def test_items_of_any_form_are_answered_by_the_demo(items: object) -> None:
    async with DemoUpstream(DemoScript()) as upstream, whole_gateway(upstream.base_url) as gateway:
        made = await ask(gateway, "POST", "/v1/conversations", body={"items": items})
        assert made.status == 200
        await gateway.ended()
        path = f"/v1/conversations/{made.json['id']}/items"
        assert (await ask(gateway, "POST", path, body={"items": items})).status == 200
        assert (await ask(gateway, "GET", path)).json["data"] == []
