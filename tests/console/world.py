"""A gateway to look at: weeks of use by several teams, two model servers of which one fails, and a busy last hour.

`python -m tests.console.world` runs it, so that people can look at the console with something in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import yaml

from gateway.demo import DemoScript, DemoUpstream
from gateway.runtime.system_clock import SystemClock
from tests.webhook_receiver import webhook_receiver
from tests.whole_gateway import WholeGateway, whole_gateway

TOKEN = "operators-token-of-the-tests"
REFUSED = "4f0c2a9e51d37b86"
"""The id of a request that a limit refused."""

RUNNING = "b1946ac92492d234"
"""The id of the request of `long_stream`."""

RECORDED_S = 20.0
LOOK_EVERY_S = 0.1
LOOKS = 20

DAY_MS = 86_400_000
MINUTE_MS = 60_000

LARGE, SMALL, SLOW = "openai/gpt-oss-120b", "qwen/qwen3-32b", "deepseek/deepseek-r1"
NOBODY_THERE = {"url": "http://127.0.0.1:1/hook", "format": "slack", "name": "mobile-leads", "teams": ["mobile"]}
"""A receiver of notifications that does not answer."""

TEAMS = {"search": 5, "support-bot": 3, "data-platform": 2, "mobile": 1}
"""How much each uses."""


class ShiftedClock(SystemClock):
    """The system's, moved by `shift_ms`."""

    shift_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.shift_ms


def key_of(team: str) -> str:
    return f"gw_{hashlib.sha256(team.encode()).hexdigest()[:43]}"


def _team(name: str, **more: Any) -> dict[str, Any]:
    secret = hashlib.sha256(key_of(name).encode()).hexdigest()
    return {"keys": [{"name": f"{name}-prod", "sha256": secret}], **more}


def settings(up: str, broken: str, slow: str) -> dict[str, Any]:
    """Changes of the configuration of `tests.whole_gateway`."""
    routes = [{"upstream": "vllm-a", "weight": 3}, {"upstream": "vllm-b", "model": "gpt-oss-120b-awq", "priority": 2}]
    return {
        "admin": {"listen": "127.0.0.1:0", "token": TOKEN},
        "upstreams": {
            "vllm-a": {"base_url": up, "api_key": "sk-of-vllm-a-3Tq9Zx7Lw2"},
            "vllm-b": {"base_url": broken, "api_key": "sk-of-vllm-b-8Rn4Vx1Tz6"},
            "batch": {"base_url": slow},
        },
        "models": {
            LARGE: {
                "aliases": ["gpt-oss"],
                "routes": routes,
                "context_window": 131_072,
                "max_output_tokens": 32_768,
                "price": {"input": 150, "output": 600, "cached_input": 70},
            },
            SMALL: {
                "routes": [{"upstream": "vllm-b"}, {"upstream": "vllm-a", "priority": 2}],
                "context_window": 40_960,
                "price": {"input": 80, "output": 240},
            },
            SLOW: {"routes": [{"upstream": "batch"}], "context_window": 65_536},
        },
        "limits": [{"usd": 2_000, "per": "month", "models": [LARGE, SMALL]}],
        "teams": {
            "search": _team(
                "search",
                cost_center="4711",
                owner="search-leads@example.com",
                limits=[
                    {"requests": 600, "per": "minute"},
                    {"tokens": 9_000, "per": "day"},
                    {"usd": 6, "per": "month", "models": [LARGE, SMALL]},
                    {"concurrent": 64},
                ],
                key_limits=[{"usd": 50, "per": "month", "models": [LARGE, SMALL]}],
            ),
            "support-bot": _team(
                "support-bot", cost_center="4720", limits=[{"usd": 20, "per": "month", "models": [LARGE]}]
            ),
            "data-platform": _team(
                "data-platform", models=["qwen/*", "deepseek/*"], limits=[{"tokens": 4_000, "per": "week"}]
            ),
            "mobile": _team("mobile", limits=[{"requests": 5, "per": "day", "name": "pilot"}]),
            "research": _team("research", limits=[{"tokens": 1_000_000, "per": "month", "mode": "shadow"}]),
        },
    }


@asynccontextmanager
async def busy_gateway(days: int = 20, *, away: bool = True) -> AsyncIterator[WholeGateway]:
    """`days` of use, and then the last hour. One receiver of notifications may be `away`: what it is sent is given up
    after three days."""
    clock = ShiftedClock()
    chance = random.Random(7)
    failing = DemoScript(chunks=14, mishap_share=0.5, mishaps=({"status": 503},))
    async with (
        DemoUpstream(DemoScript(chunks=24, first_delay_ms=8, chunk_delay_ms=1, cached_tokens=4)) as up,
        DemoUpstream(failing) as broken,
        DemoUpstream(DemoScript(chunks=10_000, chunk_delay_ms=100)) as slow,
        webhook_receiver() as receiver,
        whole_gateway(
            clock=clock,
            notify=[receiver.channel(name="operators"), *([NOBODY_THERE] if away else [])],
            **settings(up.base_url, broken.base_url, slow.base_url),
        ) as gateway,
    ):
        for day in range(days, 0, -1):
            clock.shift_ms = -day * DAY_MS
            await _use(gateway, chance, times=max(2, 7 - abs(day % 7 - 3)))
        gateway.gateway._traffic.sample()
        for minute in range(58, 0, -1):
            clock.shift_ms = -minute * MINUTE_MS
            if minute % 4:
                await _use(gateway, chance, times=1, quiet=chance.random() < 0.85)
            gateway.gateway._traffic.sample()
        clock.shift_ms = 0
        await _use(gateway, chance, times=2)
        await _make_keys(gateway)
        await _have_a_request_refused(gateway)
        _show_as_written(gateway)
        await gateway.gateway._pipeline.wait_settled()
        yield gateway


@asynccontextmanager
async def long_stream(gateway: WholeGateway) -> AsyncIterator[None]:
    """A request that is in flight, under the id RUNNING, until somebody ends it."""
    request = asyncio.ensure_future(
        gateway.chat(key=key_of("search"), model=SLOW, stream=True, headers={"x-request-id": RUNNING})
    )
    try:
        yield
    finally:
        request.cancel()
        await asyncio.wait([request])


async def _use(gateway: WholeGateway, chance: random.Random, times: int, quiet: bool = False) -> None:
    """So many rounds of requests, most of them answered."""
    sent = []
    for team, weight in TEAMS.items():
        for _ in range(times * (1 if quiet else weight)):
            model = SMALL if team == "data-platform" or chance.random() < 0.3 else LARGE
            user = chance.choice(["ada@example.com", "grace@example.com", "linus@example.com"])
            sent.append(gateway.chat(key=key_of(team), model=model, stream=chance.random() < 0.7, user=user))
    if not quiet:
        sent.append(gateway.chat(key="gw_unknown-key-of-somebody-who-guesses-0000000"))
        sent.append(gateway.chat(key=key_of("search"), model="no/such-model"))
    await asyncio.gather(*sent)


async def _have_a_request_refused(gateway: WholeGateway) -> None:
    """Until its record is there: records are written a second later, and of many refusals only some."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with asyncio.timeout(RECORDED_S):
        while True:
            await gateway.chat(key=key_of("mobile"), headers={"x-request-id": REFUSED})
            for _ in range(LOOKS):
                path = f"/admin/v1/requests/{REFUSED}"
                if (await gateway.request("GET", path, admin=True, headers=headers)).status == 200:
                    return
                await asyncio.sleep(LOOK_EVERY_S)


async def _make_keys(gateway: WholeGateway) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    for name, team, more in (
        ("search-batch", "search", {"expires_at": "90d", "limits": [{"requests": 60, "per": "minute"}]}),
        ("search-notebooks", "search", {"networks": ["10.0.0.0/8"], "metadata": {"owner": "ada"}}),
        ("mobile-staging", "mobile", {"expires_at": "6d"}),
        ("support-old", "support-bot", {"disabled": True}),
    ):
        body = json.dumps({"team": team, "name": name, **more})
        await gateway.request("POST", "/admin/v1/keys", admin=True, data=body, headers=headers)


def _show_as_written(gateway: WholeGateway) -> None:
    """People write YAML; the tests' configuration is JSON."""
    config = gateway.gateway._config
    text = re.sub(r"sk-of-vllm-(a|b)-\w+", "${UPSTREAM_API_KEY}", config.text)
    written = yaml.safe_dump(json.loads(text), sort_keys=False)
    gateway.gateway._config = msgspec.structs.replace(config, text=written, file="config/gateway.yaml")


async def main() -> None:
    async with busy_gateway() as gateway, long_stream(gateway):
        sys.stdout.write(
            f"{gateway.admin_url}/console   {TOKEN}\nhttp://127.0.0.1:{gateway.port}/me   {key_of('search')}\n"
        )
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
