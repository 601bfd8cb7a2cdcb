"""A program's errand straight to the scripted upstream and through a whole gateway, and what may differ."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.clients.programs.programs import CLAUDE, GOOGLE, GPT, Program, Run, WarmPythons, run
from tests.clients.programs.request_tap import RequestTap, Sent, request_tap
from tests.clients.programs.scripted_answers import APIS, Counts
from tests.clients.programs.scripted_upstream import MARK, Fault, ScriptedUpstream, Seen, scripted_upstream
from tests.whole_gateway import Json, WholeGateway, whole_gateway

GRACE_S = 15.0
ASKS_USAGE = b',"stream_options":{"include_usage":true}'
VERSION = re.compile("^/v1(beta)?")
"""Gemini's SDKs ask for either; its upstreams are asked for /v1beta."""

SERVED = (GPT, CLAUDE, "claude-haiku-5-5", GOOGLE)

# The rows of docs/api.md about what reaches an upstream.
PASSED = {
    *("content-type", "accept", "user-agent", "traceparent", "tracestate", "idempotency-key", "x-request-id"),
    *("session-id", "thread-id", "x-client-request-id", "originator", "version", "x-session-id", "x-session-affinity"),
}
PASSED_FAMILIES = ("anthropic-", "openai-", "x-stainless-", "x-claude-code-", "x-codex-", "x-opencode-")


class Scene(NamedTuple):
    """Where one run happened: the upstream, what the client sent, and the gateway between them, if any."""

    upstream: ScriptedUpstream
    tap: RequestTap
    gateway: WholeGateway | None


class Outcome(NamedTuple):
    """What a person in front of the program gets: `finished` means that the final words were printed. `requests` are
    its turns."""

    ended: bool
    code: int | None
    finished: bool
    requests: int

    def at_least_as_good_as(self, other: Outcome) -> bool:
        """One that did not end in its time is still trying; how often until then depends on the machine."""
        if (self.finished and not other.finished) or not other.ended:
            return True
        return (self.finished, self.code) == (other.finished, other.code) and self.requests <= other.requests


@asynccontextmanager
async def straight(*, tool_calls: int = 1, faults: tuple[Fault, ...] = ()) -> AsyncIterator[Scene]:
    async with scripted_upstream(tool_calls=tool_calls, faults=faults) as upstream, request_tap(upstream.port) as tap:
        yield Scene(upstream, tap, None)


@asynccontextmanager
async def through(
    *, tool_calls: int = 1, faults: tuple[Fault, ...] = (), team: Json | None = None
) -> AsyncIterator[Scene]:
    async with scripted_upstream(tool_calls=tool_calls, faults=faults) as upstream:
        models = {name: {"routes": [{"upstream": "up1"}]} for name in SERVED}
        async with (
            whole_gateway(f"{upstream.origin}/v1", models=models, team=team) as gateway,
            request_tap(gateway.port) as tap,
        ):
            yield Scene(upstream, tap, gateway)


class Bench(NamedTuple):
    """Where a test lets programs run: a folder of its own, and the interpreters that are warm."""

    folder: Path
    warm: WarmPythons

    async def both(self, program: Program, direct: Scene, gated: Scene, *, patience_s: float) -> tuple[Run, Run]:
        """The same errand in both scenes at once; only one that lags by `GRACE_S` seconds counts as slower."""
        ran = await asyncio.gather(
            run(program, direct.tap.port, self.folder / "direct", patience_s=patience_s, warm=self.warm),
            run(program, gated.tap.port, self.folder / "gated", patience_s=patience_s + GRACE_S, warm=self.warm),
        )
        return ran[0], ran[1]


def outcome(ran: Run, scene: Scene) -> Outcome:
    return Outcome(ran.code is not None, ran.code, MARK in ran.printed, len(turns(scene.tap.sent)))


def asking(requests: list[Sent]) -> list[Sent]:
    """Those that ask for an answer: not the probes, lists and counts of tokens."""
    counts = ("count_tokens", "input_tokens", ":countTokens")
    return [sent for sent in requests if sent.method == "POST" and sent.body and not sent.path.endswith(counts)]


def turns(requests: list[Sent]) -> list[Sent]:
    """Of an agent the requests with tools. Those without are for titles and summaries: an agent makes them beside its
    turns and ends without waiting for them, so how many there are is a race."""
    found = asking(requests)
    return [sent for sent in found if _has_tools(sent)] or found


def beside(requests: list[Sent]) -> list[Sent]:
    found, own = asking(requests), turns(requests)
    return [sent for sent in found if sent not in own]


def _has_tools(sent: Sent) -> bool:
    api = next((api for api in APIS if api.path in sent.path), None)
    return api is not None and bool(api.tools(json.loads(sent.body)))


def assert_untouched(scene: Scene, *, ended: bool = True) -> None:
    """What the upstream got is what the client sent. A program that leaves may leave requests beside its turns behind;
    one that had to be `ended` by the test, its last turn."""
    unseen = asking(scene.tap.sent)
    for other in scene.upstream.seen:
        if other.method == "POST":
            one = next(
                (sent for sent in unseen if sent.body in (other.body, other.body.replace(ASKS_USAGE, b""))), None
            )
            assert one is not None, other
            unseen.remove(one)
            assert VERSION.sub("", one.path) == VERSION.sub("", other.path)
            given = any(name == "x-request-id" for name, _ in one.headers)
            assert _passing(one) == [header for header in _passing(other) if given or header[0] != "x-request-id"]
    left = beside(scene.tap.sent)
    missing = [sent for sent in unseen if sent not in left]
    assert missing == ([] if ended else missing[:1])


def _passing(request: Sent | Seen) -> list[tuple[str, str]]:
    return sorted(
        (name, value) for name, value in request.headers if name in PASSED or name.startswith(PASSED_FAMILIES)
    )


async def assert_charged(scene: Scene) -> None:
    """The ledger has what the upstream said that it delivered, and no turn counts as left by its client."""
    assert scene.gateway is not None
    await assert_no_turn_aborted(scene)
    if not _left(scene.gateway):
        row = await scene.gateway.ledger()
        assert Counts(row.input, row.cached_input, row.output) == scene.upstream.delivered


async def assert_no_turn_aborted(scene: Scene) -> None:
    assert scene.gateway is not None
    async with asyncio.timeout(GRACE_S):
        while scene.gateway.gateway.in_flight:
            await asyncio.sleep(0)
    left = _left(scene.gateway)
    assert len(left) <= len(beside(scene.tap.sent)), left
    if not left:
        assert 'gateway_streams_aborted_total{by="client"} 0' in await scene.gateway.metrics()


def _left(gateway: WholeGateway) -> list[Json]:
    return [line for line in gateway.lines if line.get("code") == "client_gone"]
