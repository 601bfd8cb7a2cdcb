"""An upstream that refuses: what the caller caused reaches the caller and hurts nobody else, what the gateway or the
provider caused does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.core.circuit import FAILURES_IN_A_ROW
from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import HandUpstream, hand_upstream
from tests.whole_gateway import KEY, MODEL, PATIENCE_S, Json, WholeGateway, configuration, key_settings, whole_gateway

OPS_KEY = "gw_oPs5Yz0Gd2mR8sT1vX4bF7hJ3qP6wA9eU0iO5yKcAAA"
TEAMS = {"search": {"keys": [key_settings()]}, "ops": {"keys": [key_settings("ops-test", OPS_KEY)]}}
ADMIN = {"listen": "127.0.0.1:0", "token": "t"}
FLAGGED = '{"error":{"message":"flagged","code":403,"metadata":{"reasons":["violence"],"flagged_input":"x"}}}'
POLICY_EVENT = (
    b'event: error\ndata: {"type":"error","code":"content_policy_violation","message":"This was flagged"}\n\n'
)
POISON = b"poison"
ANSWER = b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}'


async def circuit_of(gateway: WholeGateway) -> Json:
    reply = await gateway.request("GET", "/admin/v1/upstreams", admin=True, headers={"authorization": "Bearer t"})
    seen: Json = reply.json["data"][0]["circuits"][0]
    return seen


async def answer_next(upstream: HandUpstream) -> None:
    """500 to what is poison for this server, else an answer."""
    turn = await upstream.asked()
    turn.answer(*((b"{}", 500) if POISON in turn.body else (ANSWER, 200)))


async def ask(gateway: WholeGateway, upstream: HandUpstream, text: str, key: str = KEY) -> int:
    asking = asyncio.create_task(gateway.chat(key=key, messages=[{"role": "user", "content": text}]))
    answering = asyncio.create_task(answer_next(upstream))
    await asyncio.wait((asking, answering), return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
    status = (await asking).status
    answering.cancel()
    return status


async def test_a_refusal_by_policy_is_the_callers_and_is_not_tried_elsewhere() -> None:
    async with (
        DemoUpstream(DemoScript(status=403, body=FLAGGED)) as strict,
        DemoUpstream(DemoScript(chunks=1)) as other,
        whole_gateway(strict.base_url, other.base_url, admin=ADMIN) as gateway,
    ):
        for _ in range(2 * FAILURES_IN_A_ROW):
            reply = await gateway.chat()
            assert (reply.status, reply.body.decode()) == (403, FLAGGED)
        assert (strict.truth.total.requests, other.truth.total.requests) == (2 * FAILURES_IN_A_ROW, 0)
        await gateway.ended()
        assert (gateway.lines[-1]["blame"], gateway.lines[-1]["code"]) == ("caller", "passed_on")
        assert (await circuit_of(gateway))["state"] == "closed"


async def test_a_refusal_by_policy_inside_a_stream_leaves_the_upstream_to_the_others() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, teams=TEAMS) as gateway:
        for _ in range(2 * FAILURES_IN_A_ROW):
            asking = asyncio.create_task(gateway.chat(stream=True))
            turn = await upstream.asked()
            turn.begin_stream()
            turn.send(POLICY_EVENT)
            turn.end_stream()
            await turn.close()
            reply = await asking
            assert (reply.status, reply.body) == (200, POLICY_EVENT)
            await gateway.ended()
            assert gateway.lines[-1]["blame"] == "caller"
        assert await ask(gateway, upstream, "good morning", OPS_KEY) == 200


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, "{}"),
        (403, '{"error":{"message":"no such permission","code":"permission_denied"}}'),
        (400, '{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}'),
    ],
)
async def test_a_key_that_the_provider_rejects_is_not_the_callers(status: int, body: str) -> None:
    script = DemoScript(status=status, body=body)
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (502, "upstream_auth_failed")
        assert reply.headers["x-should-retry"] == "false"
        assert "retry-after" not in reply.headers


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, '{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}'),
        (401, '{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}'),
        (400, '{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}'),
        (403, '{"message":"The security token included in the request is invalid."}'),
        (401, "<html><h1>401 Authorization Required</h1></html>"),
    ],
    ids=["OpenAI", "Anthropic", "Google", "Amazon", "a proxy"],
)
async def test_while_the_gateways_key_is_rejected_every_caller_is_told_so(status: int, body: str) -> None:
    """However often it is asked: a 503 would let clients try again, and hide from operators what is the matter."""
    script = DemoScript(status=status, body=body)
    async with (
        DemoUpstream(script) as upstream,
        whole_gateway(upstream.base_url, teams=TEAMS, admin=ADMIN) as gateway,
    ):
        for key in (KEY, OPS_KEY) * (2 * FAILURES_IN_A_ROW):
            reply = await gateway.chat(key=key)
            assert (reply.status, reply.error["code"]) == (502, "upstream_auth_failed")
            assert (reply.headers["x-should-retry"], "retry-after" in reply.headers) == ("false", False)
            await gateway.ended()
            assert gateway.lines[-1]["blame"] == "upstream"
        assert upstream.truth.total.requests < 2 * 2 * FAILURES_IN_A_ROW
        assert (await circuit_of(gateway))["why"].keys() == {"upstream_auth_failed"}
        assert (await gateway.ledger()).requests == 0


async def test_a_key_without_a_right_to_one_model_leaves_the_others_and_the_other_route_alone() -> None:
    """A 403 for one model opens the circuit of that model there; another model of the same upstream is served, and
    where there is another route, it takes over."""
    denied = '{"error":{"message":"no access to this model","code":"permission_denied"}}'
    models = {
        MODEL: {"routes": [{"upstream": "up1"}, {"upstream": "up2", "priority": 2}]},
        "other": {"routes": [{"upstream": "up1"}]},
    }
    async with (
        DemoUpstream(DemoScript(status=403, body=denied)) as strict,
        DemoUpstream(DemoScript(chunks=1)) as spare,
        whole_gateway(strict.base_url, spare.base_url, models=models, teams=TEAMS) as gateway,
    ):
        statuses = [(await gateway.chat()).status for _ in range(FAILURES_IN_A_ROW + 3)]
        assert statuses == [502] * FAILURES_IN_A_ROW + [200] * 3
        strict.script = DemoScript(chunks=1)
        assert (await gateway.chat(model="other")).status == 200
        assert (await gateway.chat(model="other", key=OPS_KEY)).status == 200
        assert (await gateway.chat(key=OPS_KEY)).status == 200
        assert strict.truth.total.requests == FAILURES_IN_A_ROW + 3


async def test_errors_that_one_key_gets_do_not_take_the_upstream_away_from_another() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, teams=TEAMS, admin=ADMIN) as gateway:
        for _ in range(FAILURES_IN_A_ROW):
            assert await ask(gateway, upstream, "poison") == 500
        for _ in range(FAILURES_IN_A_ROW):
            assert await ask(gateway, upstream, "good morning", OPS_KEY) == 200
        trickle = await ask(gateway, upstream, "poison")
        assert (trickle, await ask(gateway, upstream, "poison")) == (500, 503)
        seen = await circuit_of(gateway)
        assert (seen["state"], seen["why"]) == ("open", {"500": FAILURES_IN_A_ROW})
        (line,) = [line for line in gateway.lines if line["event"] == "upstream health"]
        assert (line["why"], line["only_key"]) == ({"500": FAILURES_IN_A_ROW}, seen["key"])
        for _ in range(FAILURES_IN_A_ROW):
            assert await ask(gateway, upstream, "poison", OPS_KEY) == 500
        assert (await circuit_of(gateway))["key"] is None


async def test_a_team_that_is_told_to_wait_waits_alone() -> None:
    busy = DemoScript(status=429, headers={"retry-after": "300"})
    async with DemoUpstream(busy) as upstream, whole_gateway(upstream.base_url, teams=TEAMS, admin=ADMIN) as gateway:
        assert (await gateway.chat()).status == 429
        refused = await gateway.chat()
        assert (refused.status, refused.error["code"]) == (503, "no_upstream_available")
        assert 290 <= int(refused.headers["retry-after"]) <= 300
        upstream.script = DemoScript(chunks=1)
        for _ in range(3):
            assert (await gateway.chat(key=OPS_KEY)).status == 200
        (cooling,) = (await circuit_of(gateway))["cooling"]
        assert cooling["team"] == "search"


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("halt", ["reset", "close"])
async def test_the_next_route_answers_for_a_plain_answer_that_breaks(halt: str, framing: str) -> None:
    broken = DemoScript(halt=halt, halt_at="inside_event", framing=framing)  # type: ignore[arg-type]
    async with (
        DemoUpstream(broken) as first,
        DemoUpstream(DemoScript(chunks=4)) as second,
        whole_gateway(first.base_url, second.base_url) as gateway,
    ):
        assert (await gateway.chat()).status == 200
        exchange = await gateway.ended()
        assert exchange.attempts == (("up1", "hung_up"), ("up2", "200"))
        assert exchange.usage is not None
        assert exchange.usage.output == 4
        assert (await gateway.ledger()).requests == 1


async def test_operators_see_why_a_circuit_is_open(tmp_path: Path) -> None:
    async with (
        DemoUpstream(DemoScript(status=500)) as sick,
        whole_gateway(sick.base_url, admin=ADMIN) as gateway,
    ):
        file = tmp_path / "gateway.yaml"
        admin = {"listen": f"127.0.0.1:{gateway.admin_port}", "token": "t"}
        file.write_text(json.dumps(configuration(sick.base_url, admin=admin)))

        async def run(*more: str) -> str:
            result = await asyncio.to_thread(CliRunner().invoke, main, ["upstreams", "-c", str(file), *more])
            assert result.exit_code == 0, result.output
            return result.stdout

        assert (await run()).splitlines()[1].split() == ["up1", "up", "0"]
        for _ in range(FAILURES_IN_A_ROW):
            await gateway.chat()
        row = (await run()).splitlines()[1]
        assert row.split()[:4] == ["up1", "down", "0", MODEL]
        assert f"500 ({FAILURES_IN_A_ROW})" in row
        shown = json.loads(await run("--json"))
        (circuit,) = shown["data"][0]["circuits"]
        assert (shown["next"], circuit["state"], circuit["share"]) == (None, "open", 0.0)
        assert circuit["opened_at"] < circuit["next_try_at"]
