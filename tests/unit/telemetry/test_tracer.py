from __future__ import annotations

import asyncio
from random import Random

import pytest

from gateway.core.snapshot import Upstream
from gateway.telemetry.trace_options import Sampling
from gateway.telemetry.tracer import Tracer, provider_of, spans_of
from tests.unit.fakes import StandingClock, body_of, exchange_of, incoming_of, with_headers

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def tracer(sampling: Sampling = Sampling(), queue_max: int = 100, batch_max: int = 10) -> Tracer:  # noqa: B008 - frozen
    return Tracer(sampling, queue_max, batch_max, StandingClock(), Random(7), lambda _spans: None)


def begins(sampling: Sampling, flags: str = "") -> bool:
    request = incoming_of(body_of())
    if flags:
        request = with_headers(request, {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"})
    return tracer(sampling).begin(request) is not None


@pytest.mark.parametrize(
    ("sampling", "flags", "is_kept"),
    [
        (Sampling(), "", True),
        (Sampling(0.0), "", False),
        (Sampling(0.0), "01", True),
        (Sampling(1.0), "00", False),
        (Sampling(1.0, follows_parent=False), "00", True),
        (Sampling(0.0, follows_parent=False), "01", False),
    ],
)
def test_a_client_says_whether_its_trace_is_kept_unless_the_operator_does(
    sampling: Sampling, flags: str, is_kept: bool
) -> None:
    assert begins(sampling, flags) == is_kept


def test_a_share_of_the_traces_is_kept() -> None:
    keeping, request = tracer(Sampling(0.25)), incoming_of(body_of())
    kept = [keeping.begin(request) for _ in range(2_000)]
    assert 400 < sum(trace is not None for trace in kept) < 600
    ids = {trace.trace_id for trace in kept if trace is not None}
    assert all(len(name) == 32 for name in ids)
    assert len(ids) == sum(trace is not None for trace in kept)


async def test_a_batch_that_is_full_is_not_waited_for() -> None:
    keeping = tracer(batch_max=2)
    for _ in range(3):
        exchange, _ = exchange_of()
        exchange.trace = keeping.begin(exchange.request)
        keeping.record(exchange)
    async with asyncio.timeout(5):
        await keeping.wait_for_batch(60)
    assert [len(keeping.take()) for _ in range(3)] == [2, 1, 0]


def test_bytes_of_a_client_that_are_no_text_are_replaced() -> None:
    exchange, _ = exchange_of()
    headers = {"user-agent": "agent \udcff" + "x" * 500}
    exchange.request = with_headers(exchange.request, headers)
    exchange.trace = tracer().begin(exchange.request)
    assert exchange.trace is not None
    (served,) = spans_of(exchange, exchange.trace, StandingClock())
    agent = served.attributes["user_agent.original"]
    assert str(agent).startswith("agent \ufffdx")
    assert len(str(agent)) == 200


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://us.api.openai.com/v1", "openai"),
        ("https://name.openai.azure.com/openai/v1", "azure.ai.openai"),
        ("https://europe-west4-aiplatform.googleapis.com/v1/projects/p", "gcp.vertex_ai"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "aws.bedrock"),
        ("https://notapi.openai.com.example/v1", "ours"),
        ("http://127.0.0.1:8000/v1", "ours"),
    ],
)
def test_a_provider_is_known_by_its_host(base_url: str, provider: str) -> None:
    assert provider_of(Upstream("ours", base_url)) == provider
