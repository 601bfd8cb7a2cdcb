"""A program's errand straight to the scripted upstream and through a whole gateway, and what may differ."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.clients.programs.programs import CLAUDE, GOOGLE, GPT, Program, Run, run
from tests.clients.programs.request_tap import RequestTap, Sent, request_tap
from tests.clients.programs.scripted_answers import Counts
from tests.clients.programs.scripted_upstream import MARK, Fault, ScriptedUpstream, Seen, scripted_upstream
from tests.whole_gateway import Json, WholeGateway, whole_gateway

GRACE_S = 15.0
ASKS_USAGE = b',"stream_options":{"include_usage":true}'
VERSION = re.compile("^/v1(beta)?")
"""Gemini's SDKs ask for either; its upstreams are asked for /v1beta."""

SERVED = (GPT, CLAUDE, "claude-haiku-4-5", GOOGLE, "gemini-2.5-flash", "gemini-2.5-flash-lite")

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
    """What a person in front of the program gets: `finished` means that the final words were printed."""

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


async def both(program: Program, direct: Scene, gated: Scene, folder: Path, *, patience_s: float) -> tuple[Run, Run]:
    """The same errand in both scenes at once; only one that lags by `GRACE_S` seconds counts as slower."""
    ran = await asyncio.gather(
        run(program, direct.tap.port, folder / "direct", patience_s=patience_s),
        run(program, gated.tap.port, folder / "gated", patience_s=patience_s + GRACE_S),
    )
    return ran[0], ran[1]


def outcome(ran: Run, scene: Scene) -> Outcome:
    return Outcome(ran.code is not None, ran.code, MARK in ran.printed, len(asking(scene.tap.sent)))


def asking(requests: list[Sent]) -> list[Sent]:
    """Those that ask for an answer: not the probes, lists and counts of tokens."""
    counts = ("count_tokens", "input_tokens", ":countTokens")
    return [sent for sent in requests if sent.method == "POST" and sent.body and not sent.path.endswith(counts)]


def assert_untouched(scene: Scene) -> None:
    """What the upstream got is what the client sent."""
    sent, seen = asking(scene.tap.sent), [one for one in scene.upstream.seen if one.method == "POST"]
    assert len(sent) == len(seen)
    for one, other in zip(
        sorted(sent, key=lambda each: each.body), sorted(seen, key=lambda each: each.body), strict=True
    ):
        assert VERSION.sub("", one.path) == VERSION.sub("", other.path)
        assert one.body == other.body or one.body == other.body.replace(ASKS_USAGE, b"")
        given = any(name == "x-request-id" for name, _ in one.headers)
        assert _passing(one) == [header for header in _passing(other) if given or header[0] != "x-request-id"]


def _passing(request: Sent | Seen) -> list[tuple[str, str]]:
    return sorted(
        (name, value) for name, value in request.headers if name in PASSED or name.startswith(PASSED_FAMILIES)
    )


async def assert_charged(scene: Scene) -> None:
    """The ledger has what the upstream said that it delivered, and no turn counts as left by its client."""
    assert scene.gateway is not None
    row = await scene.gateway.ledger()
    assert Counts(row.input, row.cached_input, row.output) == scene.upstream.delivered
    await assert_nothing_aborted(scene)


async def assert_nothing_aborted(scene: Scene) -> None:
    assert scene.gateway is not None
    assert [line for line in scene.gateway.lines if line.get("code") == "client_gone"] == []
    assert 'gateway_streams_aborted_total{by="client"} 0' in await scene.gateway.metrics()
