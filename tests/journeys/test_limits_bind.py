"""Limits as clients meet them: what they admit, what they say, whom they bind, and when to come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.contract.store.keepers import FalseClock
from tests.hand_upstream import hand_upstream
from tests.whole_gateway import KEY, MODEL, Json, Reply, chat_body, key_settings, whole_gateway

SECOND_KEY = "gw_second0000000000000000000000000000000000000"
OTHER_TEAM_KEY = "gw_other000000000000000000000000000000000000000"
OTHER_MODEL = "mistral/small"
TEN_TOKENS = DemoScript(prompt_tokens=6, completion_tokens=4, chunks=4)
NOON_TO_MIDNIGHT_MS = 12 * 3_600_000


async def test_a_rate_admits_its_burst_and_then_as_it_refills() -> None:
    clock, limit = FalseClock(), {"requests": 60, "per": "minute", "burst": 3, "name": "calm"}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, clock=clock, **_team(limit)) as gateway:
        replies = [await gateway.chat() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 200]
        assert [_rate(reply) for reply in replies] == [("60", "2", "1s"), ("60", "1", "2s"), ("60", "0", "3s")]

        refused = await gateway.chat()
        assert refused.status == 429
        assert refused.error["code"] == "rate_limit_exceeded"
        assert refused.error["type"] == "requests"
        assert refused.error["param"] is None
        assert refused.headers["retry-after-ms"] == "1000"
        assert refused.headers["retry-after"] == "1"
        assert "x-should-retry" not in refused.headers
        assert _rate(refused) == ("60", "0", "3s")
        assert refused.json["limit"] == {
            "name": "calm",
            "scope": "team",
            "subject": "search",
            "meter": "requests",
            "per": "minute",
            "amount": 60,
            "used": 3,
            "held": 0,
            "requested": 1,
            "resets_at": "2026-11-05T12:00:03.000Z",
            "retry_after_ms": 1000,
        }

        clock.at_ms += 999
        refused = await gateway.chat()
        assert (refused.status, refused.headers["retry-after-ms"], refused.headers["retry-after"]) == (429, "1", "1")
        clock.at_ms += 1
        assert (await gateway.chat()).status == 200
        assert upstream.truth.total.requests == 4


@pytest.mark.parametrize(
    "limit",
    [
        {"requests": 7, "per": "second", "burst": 1},
        {"requests": 7, "per": "minute", "burst": 1},
        {"requests": 7, "per": "hour", "burst": 2},
        {"requests": 1, "per": "hour"},
        {"tokens": 7000, "per": "hour", "burst": 60},
        {"input_tokens": 11, "per": "minute", "burst": 30},
        {"output_tokens": 11, "per": "second", "burst": 40},
        {"usd": "0.001", "per": "minute", "burst": "0.00013"},
    ],
)
async def test_a_client_that_obeys_retry_after_succeeds_at_the_first_try(limit: Json) -> None:
    clock = FalseClock()
    changes = {"clock": clock, "model": {"price": {"input": 1, "output": 3.5}}, **_team(limit)}
    async with DemoUpstream(TEN_TOKENS) as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        refusals = 0
        for _ in range(20):
            reply = await gateway.chat(max_tokens=20)
            await gateway.ended()
            if reply.status == 200:
                continue
            refusals += 1
            wait_ms = int(reply.headers["retry-after-ms"])
            assert reply.json["limit"]["retry_after_ms"] == wait_ms
            assert int(reply.headers["retry-after"]) == -(-wait_ms // 1000)
            clock.at_ms += wait_ms - 1
            assert (await gateway.chat(max_tokens=20)).status == 429
            await gateway.ended()
            clock.at_ms += 1
            assert (await gateway.chat(max_tokens=20)).status == 200
            await gateway.ended()
        assert refusals >= 5


@pytest.mark.parametrize(
    ("limit", "used", "noun", "figures"),
    [
        ({"requests": 2}, 2, "requests", ("2", "0")),
        ({"tokens": 20}, 20, "tokens", ("20", "0")),
        ({"input_tokens": 12}, 12, "tokens", ("12", "0")),
        ({"output_tokens": 8}, 8, "tokens", ("8", "0")),
        ({"usd": "0.00004"}, 0.00004, "usd", ("0.00004", "0")),
    ],
)
@pytest.mark.parametrize(
    ("per", "until", "wait_ms"),
    [
        ("day", "2026-11-06T00:00:00.000Z", NOON_TO_MIDNIGHT_MS),
        ("week", "2026-11-09T00:00:00.000Z", NOON_TO_MIDNIGHT_MS + 3 * 86_400_000),
        ("month", "2026-12-01T00:00:00.000Z", NOON_TO_MIDNIGHT_MS + 25 * 86_400_000),
    ],
)
async def test_a_quota_that_is_spent_refuses_until_its_window_ends(
    limit: Json, used: float, noun: str, figures: tuple[str, str], per: str, until: str, wait_ms: int
) -> None:
    """Each answer takes 6 tokens in and 4 out, at 1 and 3.5 dollars a million: 20 micro-dollars."""
    clock = FalseClock()
    model = {"price": {"input": 1, "output": 3.5}, "max_output_tokens": 4}
    changes = {"model": model, "clock": clock, **_team({**limit, "per": per})}
    async with DemoUpstream(TEN_TOKENS) as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        await _spend(gateway, 2)
        refused = await gateway.chat(messages=[{"role": "user"}])
        assert refused.status == 429
        assert refused.error["code"] == refused.error["type"] == "insufficient_quota"
        assert refused.headers["x-should-retry"] == "false"
        assert not {"retry-after", "retry-after-ms"} & set(refused.headers)
        told = refused.json["limit"]
        assert (told["used"], told["held"], told["per"], told["resets_at"]) == (used, 0, per, until)
        assert told["retry_after_ms"] == wait_ms
        assert (refused.headers[f"x-quota-limit-{noun}"], refused.headers[f"x-quota-remaining-{noun}"]) == figures

        clock.at_ms += wait_ms - 60_001
        assert "retry-after" not in (await gateway.chat(messages=[{"role": "user"}])).headers
        clock.at_ms += 1
        assert (await gateway.chat(messages=[{"role": "user"}])).headers["retry-after"] == "60"
        clock.at_ms += 59_999
        assert (await gateway.chat(messages=[{"role": "user"}])).status == 429
        clock.at_ms += 1
        assert (await gateway.chat(messages=[{"role": "user"}])).status == 200


async def test_a_total_that_is_spent_names_no_time_to_come_back() -> None:
    limit = {"requests": 1, "per": "total"}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **_team(limit)) as gateway:
        admitted, refused = await gateway.chat(), await gateway.chat()
        assert (admitted.headers["x-quota-limit-requests"], admitted.headers["x-quota-remaining-requests"]) == (
            "1",
            "0",
        )
        assert refused.error["code"] == "insufficient_quota"
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        assert refused.json["limit"]["resets_at"] is None


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        ({"tokens": 1, "per": "minute"}, "tokens"),
        ({"input_tokens": 1, "per": "hour"}, "tokens"),
        ({"tokens": 5, "per": "month"}, "tokens"),
        ({"usd": "0.000001", "per": "minute"}, "tokens"),
    ],
)
async def test_a_request_that_no_wait_would_let_pass_is_told_not_to_retry(limit: Json, kind: str) -> None:
    changes = {"model": {"price": {"input": 1, "output": 2}, "max_output_tokens": 5000}, **_team(limit)}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        refused = await gateway.chat(max_tokens=100)
        assert (refused.status, refused.error["code"]) == (429, "request_exceeds_limit")
        assert refused.error["type"] == kind
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        assert "retry-after-ms" not in refused.headers
        assert refused.json["limit"]["requested"] > refused.json["limit"]["amount"]
        assert upstream.truth.total.requests == 0


async def test_concurrent_requests_are_counted_while_they_run() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, **_team({"concurrent": 1})) as gateway:
        running = asyncio.create_task(gateway.chat())
        turn = await upstream.asked()
        refused = await gateway.chat()
        assert (refused.status, refused.error["type"], refused.error["code"]) == (
            429,
            "concurrency",
            "rate_limit_exceeded",
        )
        assert refused.headers["retry-after-ms"] == "1000"
        told = refused.json["limit"]
        assert (told["meter"], told["per"], told["amount"], told["held"], told["used"]) == ("concurrent", None, 1, 1, 0)
        assert told["resets_at"] is None

        turn.answer(b"{}")
        assert (await running).status == 200
        await gateway.ended()
        await gateway.ended()
        again = asyncio.create_task(gateway.chat())
        (await upstream.asked()).answer(b"{}")
        assert (await again).status == 200


@pytest.mark.parametrize(
    ("scope", "subject", "also_bound", "free"),
    [
        ("organisation", "", [{"key": SECOND_KEY}, {"key": OTHER_TEAM_KEY}, {"model": OTHER_MODEL}], []),
        (
            "model",
            MODEL,
            [{"key": SECOND_KEY}, {"key": OTHER_TEAM_KEY}, {"model": "gpt-oss"}],
            [{"model": OTHER_MODEL}],
        ),
        ("team", "search", [{"key": SECOND_KEY}, {"model": OTHER_MODEL}, {"user": "bo"}], [{"key": OTHER_TEAM_KEY}]),
        ("key", "1e7c472fd4f8", [{"model": OTHER_MODEL}], [{"key": SECOND_KEY}, {"key": OTHER_TEAM_KEY}]),
        (
            "user",
            "ann",
            [{"user": "ann", "key": SECOND_KEY}],
            [{"user": "bo"}, {}, {"user": "ann", "key": OTHER_TEAM_KEY}],
        ),
    ],
)
async def test_a_limit_binds_its_scope_and_nobody_else(
    scope: str, subject: str, also_bound: list[Json], free: list[Json]
) -> None:
    changes = _limited(scope, {"requests": 1, "per": "hour"})
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        by = {"user": "ann"} if scope == "user" else {}
        assert (await gateway.chat(**by)).status == 200
        for asked in (by, *also_bound):
            refused = await gateway.chat(**asked)
            assert refused.status == 429, asked
            assert (refused.json["limit"]["scope"], refused.json["limit"]["subject"]) == (scope, subject)
        for asked in free:
            assert (await gateway.chat(**asked)).status == 200, asked


async def test_a_limit_on_some_models_leaves_the_others_alone() -> None:
    changes = _limited("organisation", {"requests": 1, "per": "hour", "models": ["openai/*"]})
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        assert [(await gateway.chat()).status for _ in range(2)] == [200, 429]
        assert (await gateway.chat(model=OTHER_MODEL)).status == 200


async def test_a_refusal_charges_nothing_to_any_limit() -> None:
    clock = FalseClock()
    roomy = [{"requests": 100, "per": "hour"}, {"tokens": 10_000, "per": "month"}, {"concurrent": 5}]
    changes = {**_team(*roomy, {"requests": 1, "per": "day"}), "clock": clock}
    async with DemoUpstream(TEN_TOKENS) as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        assert (await gateway.chat()).status == 200
        await gateway.ended()
        before = await _limit_statuses(gateway)
        assert [(await gateway.chat()).status for _ in range(20)] == [429] * 20
        assert await _limit_statuses(gateway) == before
        assert (await gateway.ledger()).requests == 1


async def test_of_several_limits_that_refuse_the_one_with_the_longest_wait_is_told() -> None:
    limits = [{"requests": 1, "per": "second"}, {"requests": 1, "per": "day"}, {"requests": 1, "per": "minute"}]
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **_team(*limits)) as gateway:
        await gateway.chat()
        assert (await gateway.chat()).json["limit"]["per"] == "day"


async def test_an_admitted_request_that_fails_tells_its_limits_and_costs_no_tokens() -> None:
    limits = [{"requests": 10, "per": "hour"}, {"tokens": 1000, "per": "month"}]
    async with (
        DemoUpstream(DemoScript(status=500)) as upstream,
        whole_gateway(upstream.base_url, **_team(*limits)) as gateway,
    ):
        failed = await gateway.chat(max_tokens=10)
        assert failed.headers["x-ratelimit-remaining-requests"] == "9"
        assert failed.headers["x-quota-limit-tokens"] == "1000"
        await gateway.ended()
        await upstream.stop()
        assert (await gateway.chat(max_tokens=10)).headers["x-ratelimit-remaining-requests"] == "8"
        await gateway.ended()
        assert [(row["meter"], row["used"], row["held"]) for row in await _limit_statuses(gateway)] == [
            ("requests", 2, 0),
            ("tokens", 0, 0),
        ]


async def test_the_tightest_limit_of_a_kind_is_the_one_in_the_headers() -> None:
    limits = [{"tokens": 10_000, "per": "minute"}, {"tokens": 500, "per": "hour"}, {"tokens": 900, "per": "day"}]
    clock = FalseClock()
    changes = {**_team(*limits), "clock": clock}
    async with DemoUpstream(TEN_TOKENS) as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        reply = await gateway.chat(max_tokens=20)
        held = 500 - int(reply.headers["x-ratelimit-remaining-tokens"])
        assert 20 < held < 60
        assert reply.headers["x-ratelimit-limit-tokens"] == "500"
        assert reply.headers["x-quota-limit-tokens"] == "900"
        assert reply.headers["x-quota-remaining-tokens"] == str(900 - held)
        assert reply.headers["x-quota-reset-tokens"] == "12h0m0s"


async def test_a_cap_that_a_rate_never_holds_is_paid_back_by_waiting() -> None:
    clock, limit = FalseClock(), {"tokens": 1_000, "per": "minute"}
    script = DemoScript(prompt_tokens=10, completion_tokens=3_000)
    async with (
        DemoUpstream(script) as upstream,
        whole_gateway(upstream.base_url, clock=clock, **_team(limit)) as gateway,
    ):
        assert (await gateway.chat(max_tokens=128_000)).status == 200
        await gateway.ended()
        refused = await gateway.chat(max_tokens=128_000)
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert refused.json["limit"]["used"] == 3_010
        clock.at_ms += int(refused.headers["retry-after-ms"])
        assert (await gateway.chat(max_tokens=128_000)).status == 200


async def test_fifteen_requests_at_one_time_share_a_quota_that_one_answer_could_take() -> None:
    changes = {"model": {"max_output_tokens": 128_000}, **_team({"tokens": 100_000, "per": "month"})}
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        running = [asyncio.create_task(gateway.chat()) for _ in range(15)]
        for turn in [await upstream.asked() for _ in running]:
            turn.answer(b"{}")
        replies = await asyncio.gather(*running)
        assert [reply.status for reply in replies] == [200] * 15
        caps = [int(reply.headers["x-quota-output-cap"]) for reply in replies]
        assert 12_000 < max(caps) <= 12_500
        assert min(caps) > 1_500
        for _ in running:
            await gateway.ended()
        logged = [line["output_cap"] for line in gateway.lines if line["event"] == "request"]
        assert sorted(logged) == sorted(caps)


async def test_a_quota_that_has_less_than_a_thinking_budget_is_spent() -> None:
    changes = {"model": {"max_output_tokens": 32_000}, **_team({"tokens": 20_000, "per": "month"})}
    script = DemoScript(prompt_tokens=10, completion_tokens=12_000)
    asked = {"max_tokens": 16_000, "thinking_budget": 10_000}
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        reply = await gateway.chat(**asked)
        assert (reply.status, reply.headers["x-quota-output-cap"]) == (200, "11024")
        assert json.loads(upstream.truth.requests[0].body)["max_tokens"] == 11_024
        await gateway.ended()
        refused = await gateway.chat(**asked)
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
        assert "thinking budget of 10,000 tokens" in refused.error["message"]
        assert (await gateway.chat(max_tokens=16_000)).status == 200


async def test_near_its_end_a_quota_caps_the_output_that_is_asked_for() -> None:
    limits = [{"tokens": 60, "per": "day"}]
    script, changes = DemoScript(chunks=500, prompt_tokens=11), {"model": {"max_output_tokens": 1000}, **_team(*limits)}
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        reply = await gateway.chat()
        assert json.loads(upstream.truth.requests[0].body) == chat_body(max_tokens=49)
        assert reply.json["choices"][0]["finish_reason"] == "length"
        assert reply.json["usage"]["total_tokens"] == 60
        assert reply.headers["x-quota-output-cap"] == "49"
        await gateway.ended()
        assert (await gateway.chat()).error["code"] == "insufficient_quota"
        assert (await gateway.chat(max_tokens=1)).error["code"] == "insufficient_quota"


async def test_a_limit_in_shadow_refuses_nobody_and_counts_what_it_would_have_refused() -> None:
    limit = {"requests": 1, "per": "hour", "mode": "shadow"}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **_team(limit)) as gateway:
        replies = [await gateway.chat() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 200]
        assert not any(name.lower().startswith("x-ratelimit") for reply in replies for name in reply.headers)
        (row,) = await _limit_statuses(gateway)
        assert (row["used"], row["mode"]) == (1, "shadow")
        counted = [line for line in (await gateway.metrics()).splitlines() if "gateway_shadow_refused_total{" in line]
        assert [line.split()[-1] for line in counted] == ["2"]


async def test_a_storm_on_a_cold_limit_admits_exactly_as_many_as_it_holds() -> None:
    changes = {**_team({"requests": 7, "per": "minute"}), "clock": FalseClock()}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        replies = await asyncio.gather(*(gateway.chat() for _ in range(60)))
        assert sorted(reply.status for reply in replies) == [200] * 7 + [429] * 53
        assert upstream.truth.total.requests == 7


async def test_a_storm_of_streams_never_has_more_in_flight_than_allowed() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, **_team({"concurrent": 5})) as gateway:
        storm = [asyncio.create_task(gateway.chat()) for _ in range(60)]
        turns = [await upstream.asked() for _ in range(5)]
        for _ in range(55):
            assert (await gateway.ended()).status == 429
        for turn in turns:
            turn.answer(b"{}")
        replies = await asyncio.gather(*storm)
        assert sorted(reply.status for reply in replies) == [200] * 5 + [429] * 55
        (row,) = await _limit_statuses(gateway)
        assert row["held"] == 0


async def test_a_storm_on_a_token_quota_spends_at_most_what_it_holds() -> None:
    script = DemoScript(chunks=40, prompt_tokens=11)
    changes = {**_team({"tokens": 600, "per": "day"}), "model": {"max_output_tokens": 100}}
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, **changes) as gateway:
        replies = await asyncio.gather(*(gateway.chat() for _ in range(60)))
        for _ in replies:
            await gateway.ended()
        assert {reply.status for reply in replies} == {200, 429}
        row = await gateway.ledger()
        assert row.input + row.output == upstream.truth.total.reported.prompt + upstream.truth.total.reported.completion
        assert row.input + row.output <= 600
        (limit_status,) = await _limit_statuses(gateway)
        assert (limit_status["used"], limit_status["held"]) == (row.input + row.output, 0)


async def _spend(gateway: Any, times: int) -> None:
    for _ in range(times):
        assert (await gateway.chat(messages=[{"role": "user"}])).status == 200
        await gateway.ended()


async def _limit_statuses(gateway: Any) -> list[Json]:
    reply = await gateway.request("GET", "/v1/limits", headers={"authorization": f"Bearer {KEY}"})
    await gateway.ended()
    rows: list[Json] = reply.json["data"]
    return rows


def _rate(reply: Reply) -> tuple[str, str, str]:
    headers: Mapping[str, str] = reply.headers
    return tuple(headers[f"x-ratelimit-{what}-requests"] for what in ("limit", "remaining", "reset"))  # type: ignore[return-value]


def _team(*limits: Json) -> Json:
    return {"team": {"limits": list(limits)}}


def _limited(scope: str, limit: Json) -> Json:
    """Two models, two teams, two keys in the first; the limit at one scope."""
    route = {"routes": [{"upstream": "up1"}]}
    at = {place: [limit] for place in [scope]}
    return {
        "limits": at.get("organisation", []),
        "models": {
            MODEL: {**route, "aliases": ["gpt-oss"], "limits": at.get("model", [])},
            OTHER_MODEL: route,
        },
        "teams": {
            "search": {
                "limits": at.get("team", []),
                "user_limits": at.get("user", []),
                "keys": [key_settings(limits=at.get("key", [])), key_settings("second", SECOND_KEY)],
            },
            "other": {"keys": [key_settings("other", OTHER_TEAM_KEY)]},
        },
    }
