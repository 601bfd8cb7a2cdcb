"""Five thousand requests, plain and streamed, while one answer in five goes wrong in one way or another.

What every client saw, what every upstream served and what the ledger says are compared, request by
request and in sum. An answer is known by its id and its model, for each route has a model of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import pytest

from gateway.core.errors import ClientGone
from gateway.core.estimate import TOKENS_PER_SECOND_AT_FIRST
from gateway.core.exchange import Exchange
from gateway.core.usage import Usage, UsageSource
from gateway.demo import DemoScript, DemoUpstream
from gateway.demo.plan import texts
from gateway.demo.truth import ServedRequest
from gateway.store.contract import UsageQuery
from tests.whole_gateway import Json, LiveStream, Reply, WholeGateway, chat_body, key_settings, whole_gateway

SEED = 20_261
REQUESTS = 5_000
CLIENTS = 40
OUT_FROM, OUT_UNTIL = 4_000, 4_200
"""While these requests come, one upstream refuses connections."""

RUN_S = 150
LEAVES_AFTER_S = 0.02
BYTEWISE_EACH = 100
"""One in so many comes byte by byte: each byte is a turn of the loop."""

PATIENCE = {"connect": "5s", "first_byte": "2500ms", "idle": "2500ms", "total": "30s"}
MISHAP_SHARE = 0.2
MISHAPS: tuple[Json, ...] = (
    *({"status": status} for status in (400, 401, 404, 429, 500, 500, 502, 503, 503, 529)),
    {"status": 429, "headers": {"retry-after-ms": "20"}},
    # Where the end of the connection ends the answer, too, an early end cannot be told: hence another framing.
    {"halt": "close", "halt_at": "before_headers"},
    {"halt": "close", "halt_at": "after_headers", "framing": ""},
    {"halt": "close", "halt_at": "between_events", "framing": ""},
    {"halt": "close", "halt_at": "inside_event", "framing": "length"},
    {"halt": "close", "halt_at": "inside_framing", "framing": "chunked"},
    *({"halt": "reset", "halt_at": place} for place in ("before_headers", "after_headers", "between_events")),
    *({"halt": "reset", "halt_at": place} for place in ("inside_event", "inside_framing")),
    *({"halt": "hang", "halt_at": place} for place in ("before_headers", "after_headers", "inside_event")),
    {"error_after": 0},
    {"error_after": 3},
)
USAGES = ("asked", "asked", "always", "never", "every", "last", "null", "early")
ACCENTS: tuple[Json, ...] = (
    *({} for _ in range(10)),
    *({"newline": newline} for newline in ("crlf", "cr")),
    *({"pieces": pieces} for pieces in ("random", "random", "whole")),
    *({"framing": framing} for framing in ("length", "close", "chunked")),
    *({"afterwards": what} for what in ("close", "vanish")),
    *({name: True} for name in ("gzip", "bom", "tight", "comments", "multiline", "spaced", "no_done", "trailers")),
    {"informational": [103]},
    {"after_done": ": that was all\n\n"},
)

KEYS = {name: f"gw_{name}".ljust(46, "x") for name in ("search-one", "search-two", "chat-one")}
LIMITS = [{"tokens": 100_000_000, "per": "month"}, {"requests": 1_000_000, "per": "day"}, {"concurrent": 100}]
ROUTES = {
    "org/in-turn": [("up1", 1, 1), ("up2", 2, 1), ("up3", 3, 1), ("up1", 4, 1)],
    "org/by-weight": [("up1", 1, 3), ("up2", 1, 1), ("up3", 1, 1)],
    "org/in-tiers": [("up2", 1, 1), ("up3", 1, 2), ("up1", 2, 1)],
}
"""Upstream, priority and weight of each model's routes."""

MORE_TARGETS = 2


class Plan(NamedTuple):
    """One request. `leaves_after` is the events after which the client goes; a plain one goes before any byte."""

    id: str
    model: str
    key: str
    stream: bool
    asks_usage: bool
    prompt: str
    demo: Json
    leaves_after: int | None

    @property
    def fields(self) -> Json:
        fields: Json = {"model": self.model, "messages": [{"role": "user", "content": self.prompt}], "demo": self.demo}
        if self.stream:
            fields["stream"] = True
        if self.asks_usage:
            fields["stream_options"] = {"include_usage": True}
        return fields

    @property
    def text(self) -> str:
        return "".join(texts(self.demo["chunks"], self.demo.get("chunk_bytes", 0), arguments=False))


@dataclass
class Case:
    """A request as its client, its gateway and its upstreams knew it."""

    plan: Plan
    seen: Reply | None
    exchange: Exchange
    fastest: float
    """Tokens a second that any whole answer had at most."""

    served: list[ServedRequest] = field(default_factory=list)

    @property
    def last(self) -> ServedRequest | None:
        """What the last route served, if the request reached it."""
        target = self.exchange.target
        return next((one for one in reversed(self.served) if target and one.model == target.model), None)

    @property
    def left(self) -> bool:
        return isinstance(self.exchange.error, ClientGone)

    @property
    def chunks(self) -> list[Json]:
        """What the client was told in JSON: the events of its stream, or its plain answer."""
        assert self.seen is not None
        if self.seen.broken and not self.plan.stream:
            return []
        if not self.seen.headers.get("content-type", "").startswith("text/event-stream"):
            return [self.seen.json]
        return [json.loads(data) for data in _events(self.seen.body) if data != "[DONE]"]

    @property
    def is_done(self) -> bool:
        return self.seen is not None and "[DONE]" in _events(self.seen.body)

    @property
    def usage(self) -> Usage | None:
        return self.exchange.usage


def _events(body: bytes) -> list[str]:
    """The data of each whole event of a stream, in any dialect."""
    text = body.decode(errors="replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    *blocks, _ = text.split("\n\n")
    told = [[line[5:].removeprefix(" ") for line in block.split("\n") if line[:5] == "data:"] for block in blocks]
    return ["\n".join(lines) for lines in told if lines]


def _plans() -> Iterator[Plan]:
    dice = random.Random(SEED)
    for number in range(REQUESTS):
        stream = dice.random() < 0.6
        demo = {"chunks": dice.randint(3, 20), "usage": dice.choice(USAGES)}
        demo |= dice.choice(ACCENTS) | dice.choice(ACCENTS)
        if number % BYTEWISE_EACH == 0:
            demo |= {"pieces": "byte", "chunks": 3}
        if OUT_FROM - 1_000 < number < OUT_FROM + CLIENTS:
            demo.pop("framing", None)  # As above: the outage ends answers early.
        if not stream and dice.random() < 0.02:
            demo |= {"chunks": 50, "chunk_bytes": 4_000, "usage": "asked", "pieces": "event"}
        leaves_after = dice.randint(1, 4) if dice.random() < 0.05 else None
        if leaves_after is not None:
            demo |= {"chunk_delay_ms": 4, "pieces": "event", "chunks": 20, "newline": "lf"}
        prompt = f"Question {number}: " + "why? " * dice.randint(1, 60)
        asks_usage = stream and dice.random() < 0.5
        model, key = dice.choice(list(ROUTES)), dice.choice(list(KEYS))
        yield Plan(f"request-{number}", model, key, stream, asks_usage, prompt, demo, leaves_after)


async def _ask(gateway: WholeGateway, plan: Plan) -> Reply | None:
    """The client's side of a request; None if it leaves."""
    body = json.dumps(chat_body(**plan.fields)).encode()
    headers = {"authorization": f"Bearer {KEYS[plan.key]}", "x-request-id": plan.id}
    if plan.leaves_after is None:
        return await gateway.post(body, key=KEYS[plan.key], headers=headers)
    asking = asyncio.create_task(gateway.session.post(f"{gateway.url}/chat/completions", data=body, headers=headers))
    await asyncio.wait((asking,), timeout=None if plan.stream else LEAVES_AFTER_S)
    if not asking.done():
        asking.cancel()
        return None
    stream = LiveStream(asking.result())
    with contextlib.suppress(aiohttp.ClientPayloadError, asyncio.IncompleteReadError):
        for _ in range(plan.leaves_after):
            await stream.event()
    stream.leave()
    return None


@contextlib.asynccontextmanager
async def _gateway(upstreams: Sequence[DemoUpstream]) -> AsyncIterator[WholeGateway]:
    """Before these upstreams, with a model of its own for each route."""
    told: Json = {
        f"up{number}": {"base_url": upstream.base_url, "timeouts": PATIENCE}
        for number, upstream in enumerate(upstreams, 1)
    }
    told["up3"]["on_disconnect"] = "drain"
    models = {
        name: {
            "routes": [
                {"upstream": up, "priority": priority, "weight": weight, "model": f"{name}/{place}"}
                for place, (up, priority, weight) in enumerate(routes)
            ]
        }
        for name, routes in ROUTES.items()
    }
    teams: Json = {name: {"limits": LIMITS, "keys": []} for name in ("search", "chat")}
    for name, secret in KEYS.items():
        teams[name.partition("-")[0]]["keys"].append(key_settings(name, secret))
    async with whole_gateway(upstreams=told, models=models, teams=teams) as gateway:
        yield gateway


async def _run(gateway: WholeGateway, outage: DemoUpstream) -> dict[str, Reply | None]:
    """What each client saw, by the request's id."""
    seen: dict[str, Reply | None] = {}
    plans = enumerate(_plans())

    async def client() -> None:
        for number, plan in plans:
            if number == OUT_FROM:
                await outage.stop()
            if number == OUT_UNTIL:
                await outage.start()
            seen[plan.id] = await _ask(gateway, plan)

    async with asyncio.timeout(RUN_S):
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return seen


def _check(case: Case) -> str:
    """Compare the three accounts of one request; what became of it, in a word."""
    attempts = case.exchange.attempts
    assert len([outcome for _, outcome in attempts if outcome != "stale_connection"]) <= 1 + MORE_TARGETS
    assert not any(outcome.startswith("2") for _, outcome in attempts[:-1]), "asked again after an answer had begun"
    if case.seen is None:
        return _check_left(case)
    assert case.seen.status == case.exchange.status
    if case.seen.status != 200:
        return _check_failed(case)
    assert case.last is not None
    _check_one_answer(case)
    if case.last.outcome == "completed":
        return _check_whole(case)
    return _check_cut(case)


def _speed(exchange: Exchange) -> float:
    """Tokens a second, as an estimator learns them."""
    usage = exchange.usage
    if usage is None or not exchange.whole or not exchange.upstream_seconds:
        return 0.0
    return usage.output / exchange.upstream_seconds


def _check_left(case: Case) -> str:
    """It pays for its prompt, and for no more than what its upstream made of it."""
    usage, last = case.usage, case.last
    if usage is None:
        assert not case.left or last is None or last.status >= 400
    elif usage.source is UsageSource.REPORTED:
        assert last is not None
        assert last.reported
        assert last.prompt_tokens in {0, usage.input}
        assert usage.output <= last.completion_tokens
    else:
        assert usage.output <= max(_most_estimated(last) if last else 0, _most_made_meanwhile(case))
    return "left" if case.left else "left too late"


def _most_made_meanwhile(case: Case) -> int:
    """A plain answer shows nothing of what was made until its client left: that is estimated by the time, at no more
    than the fastest speed that was seen, and never above what was reserved."""
    if case.plan.stream:
        return 0
    reservation = case.exchange.reservation
    assert reservation is not None
    return min(reservation.granted, math.ceil(case.fastest * case.exchange.upstream_seconds))


def _check_failed(case: Case) -> str:
    """Nothing was delivered: it is free, and an upstream's own error is told as it is."""
    assert case.seen is not None
    assert not case.seen.broken
    assert case.usage is None
    code, last = case.seen.error["code"], case.last
    assert code != "internal_error"
    if last is not None and last.status >= 400:
        assert (case.seen.status, code) == (502, "upstream_auth_failed") or case.seen.status == last.status
        return f"failed: {last.status}"
    # An answer that was whole may have come too late, where the machine is slow.
    assert last is None or last.outcome in {"halted", "cancelled"} or code == "upstream_timeout"
    assert code in {"upstream_unreachable", "upstream_broke", "upstream_timeout", "no_upstream_available"}
    return f"failed: {code}"


def _check_one_answer(case: Case) -> None:
    """All that the client was told comes from the one answer that its last route gave to this request."""
    last, chunks = case.last, [chunk for chunk in case.chunks if "error" not in chunk]
    assert last is not None
    assert {(chunk["model"], chunk["id"]) for chunk in chunks} <= {(last.model, f"chatcmpl-{last.number:024x}")}
    parts = [choice.get("delta", choice.get("message")) for chunk in chunks for choice in chunk["choices"]]
    text = "".join(part.get("content") or "" for part in parts)
    assert case.plan.text.startswith(text)
    if last.outcome == "completed":
        assert text == case.plan.text


def _check_whole(case: Case) -> str:
    """It ended as whole, and the ledger has what its upstream reported."""
    last, usage, chunks = case.last, case.usage, case.chunks
    assert case.seen is not None
    assert last is not None
    assert usage is not None
    assert not case.seen.broken
    assert not any("error" in chunk for chunk in chunks)
    assert any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
    assert not case.plan.stream or case.is_done != case.plan.demo.get("no_done", False)
    if last.reported:
        assert usage == Usage(last.prompt_tokens, last.completion_tokens)
        return "whole"
    assert usage.source is UsageSource.ESTIMATED
    _check_estimate(case, usage, last)
    return "whole, estimated"


def _check_cut(case: Case) -> str:
    """The client cannot take it for whole: it was told an error, and where the connection broke, no end."""
    assert case.seen is not None
    assert case.last is not None
    if not case.plan.stream:
        assert case.seen.broken
        assert case.usage is not None
        assert len(case.seen.body) / 8 <= case.usage.output <= len(case.seen.body) / 4
        return "cut, not a stream"
    *chunks, error = case.chunks
    assert "error" in error
    told_by_upstream = case.last.outcome == "halted" and not case.seen.broken
    assert told_by_upstream == ("script breaks here" in error["error"]["message"])
    assert case.seen.broken != told_by_upstream
    assert not (case.seen.broken and case.is_done)
    if not chunks:
        assert case.usage is None
        return "cut before anything"
    assert case.usage is not None
    if case.usage.source is UsageSource.REPORTED:
        assert case.last.reported
        assert case.last.prompt_tokens in {0, case.usage.input}
        assert _contents(case) <= case.usage.output <= case.last.completion_tokens
        return "cut, reported"
    _check_estimate(case, case.usage, case.last)
    return "told by upstream" if told_by_upstream else "cut"


def _check_estimate(case: Case, usage: Usage, last: ServedRequest) -> None:
    """At least what the client has, at most what the upstream made and its frame; the input within a factor of two and
    the frame of a message, which a short prompt is no longer than."""
    assert last.prompt_tokens == 0 or last.prompt_tokens / 2 <= usage.input <= last.prompt_tokens * 2 + 24
    assert usage.output <= _most_estimated(last)
    assert not case.plan.stream or usage.output >= _contents(case)


def _most_estimated(last: ServedRequest) -> int:
    """The estimate weighs the text, and a token of the scripted upstream may be a long word."""
    return last.completion_tokens * 5 // 4 + 4


def _contents(case: Case) -> int:
    """Chunks of content that the client has: a token each."""
    return sum(bool(choice["delta"].get("content")) for chunk in case.chunks for choice in chunk.get("choices", ()))


async def _check_ledger(gateway: WholeGateway, cases: list[Case]) -> None:
    """By team, key and model: what the upstreams say they reported, and the estimates checked one by one."""
    due: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for case in cases:
        caller, usage, last = case.exchange.caller, case.usage, case.last
        assert caller is not None
        if usage is None:
            continue
        row = due[caller.team, caller.key_id, case.plan.model]
        is_told = last is not None and last.outcome == "completed" and last.reported and not case.left
        told = (last.prompt_tokens, last.completion_tokens) if is_told and last else (usage.input, usage.output)
        row.update(requests=1, input=told[0], output=told[1])
        row.update(estimated=usage.total if usage.source is UsageSource.ESTIMATED else 0)
    rows = await gateway.gateway.store.usage(UsageQuery(by=("team", "key", "model")))
    billed = {
        (row.team, row.key, row.model): Counter(
            requests=row.requests, input=row.input, output=row.output, estimated=row.estimated
        )
        for row in rows
    }
    assert billed == due


async def _check_limits(gateway: WholeGateway, cases: list[Case]) -> None:
    """Nothing is held for anybody, and the quotas have what the ledger has."""
    for key, secret in KEYS.items():
        headers = {"authorization": f"Bearer {secret}"}
        limits = (await gateway.request("GET", "/v1/limits", headers=headers)).json["data"]
        assert {limit["meter"]: limit["held"] for limit in limits} == {"tokens": 0, "requests": 0, "concurrent": 0}
        used = {limit["meter"]: limit["used"] for limit in limits}
        team = [case for case in cases if case.plan.key.partition("-")[0] == key.partition("-")[0]]
        assert used["tokens"] == sum(case.usage.total for case in team if case.usage)
        # Who leaves while it waits for its turn to begin was never admitted.
        admitted = [case for case in team if case.exchange.reservation is not None]
        assert used["requests"] == len(admitted)
        assert all(case.left for case in team if case.exchange.reservation is None)


def _check_that_all_happened(kinds: Counter[str], tries: Counter[int], outcomes: Counter[str]) -> None:
    """The run is worth something: each way to fail was met, and most failures were made good by another route."""
    assert kinds["whole"] > REQUESTS / 2
    assert kinds["whole, estimated"] > 100
    assert kinds["left"] > 100
    assert kinds["cut"] > 30
    cuts = ("cut before anything", "cut, reported", "told by upstream")
    assert min(kinds[kind] for kind in (*cuts, "failed: 400", "failed: 401", "failed: 404")) > 3
    assert tries[2] > 200
    assert tries[3] > 5
    ways = ("401", "429", "500", "502", "503", "529", "hung_up", "first_byte_timeout")
    assert min(outcomes[way] for way in ways) > 10


@pytest.mark.slow
async def test_the_ledger_agrees_with_the_upstreams_and_no_client_sees_an_answer_made_of_two() -> None:
    async with contextlib.AsyncExitStack() as stack:
        script = DemoScript(mishap_share=MISHAP_SHARE, mishaps=MISHAPS)
        upstreams = [await stack.enter_async_context(DemoUpstream(script, seed=SEED + each)) for each in range(3)]
        gateway = await stack.enter_async_context(_gateway(upstreams))
        for upstream in upstreams:
            upstream.truth.keep_requests = 2 * REQUESTS
        exchanges: list[Exchange] = []
        gateway.gateway.services.recorders = (*gateway.gateway.services.recorders, exchanges.append)

        seen = await _run(gateway, outage=upstreams[2])
        await gateway.gateway._pipeline.wait_idle()
        for upstream in upstreams:
            await upstream.truth.quiet()

        plans = {plan.id: plan for plan in _plans()}
        fastest = max(TOKENS_PER_SECOND_AT_FIRST, *map(_speed, exchanges))
        cases: dict[str, Case] = {}
        for exchange in exchanges:
            name = exchange.request.request_id
            assert name not in cases
            cases[name] = Case(plans[name], seen[name], exchange, fastest)
        assert {name for name, reply in seen.items() if reply is not None} <= set(cases)
        for served in sorted((one for up in upstreams for one in up.truth.requests), key=lambda one: one.began_at):
            cases[served.header("x-request-id") or ""].served.append(served)

        kinds = Counter(_check(case) for case in cases.values())
        tries = Counter(len(case.exchange.attempts) for case in cases.values())
        outcomes = Counter(outcome for case in cases.values() for _, outcome in case.exchange.attempts)
        await _check_ledger(gateway, list(cases.values()))
        await _check_limits(gateway, list(cases.values()))
        _check_that_all_happened(kinds, tries, outcomes)
