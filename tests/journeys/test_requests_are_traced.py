"""Requests become spans at a collector: what they say, whose trace they belong to, and what a collector that fails does
to requests, which is nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.whole_gateway import KEY, MODEL, UPSTREAM_KEY, WholeGateway, key_settings, whole_gateway

SERVER, CLIENT = 2, 3
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
COLLECTORS_KEY = "ck-9Qm2Vx7Tz4Lw8Rn3"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
PROMPT = "a secret prompt of a client"


@asynccontextmanager
async def traced(
    script: DemoScript = DemoScript(chunks=3),  # noqa: B008 - frozen, so that one default can be shared.
    environ: Mapping[str, str] = SOON,
    **changes: Any,
) -> AsyncIterator[tuple[WholeGateway, DemoUpstream, OtlpReceiver]]:
    async with otlp_receiver() as collector, DemoUpstream(script) as upstream:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **environ}
        async with whole_gateway(upstream.base_url, environ=given, **changes) as gateway:
            yield gateway, upstream, collector


def of_kind(spans: list[ReceivedSpan], kind: int) -> list[ReceivedSpan]:
    return [span for span in spans if span.kind == kind]


async def test_a_request_is_a_span_and_its_attempt_one_below_it() -> None:
    model = {"price": {"input": 1, "output": 2}, "routes": [{"upstream": "up1", "model": "gpt-oss"}]}
    async with traced(DemoScript(chunks=3, cached_tokens=2), model=model) as (gateway, upstream, collector):
        await gateway.chat(max_tokens=50, headers={"user-agent": "a-client/1", "session-id": "talk-7"})
        served, attempt = await collector.wait_for(spans=2)
        key_id = gateway.lines[-1]["key"]
        assert (served.name, served.kind, served.is_error) == ("POST /v1/chat/completions", SERVER, False)
        assert served.parent_id == ""
        duration = served.attributes.pop("inducta.gateway.duration")
        assert 0 < duration < (served.end_ns - served.start_ns) / 1e9
        assert served.attributes == {
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "http.route": "/v1/chat/completions",
            "url.path": "/v1/chat/completions",
            "url.scheme": "http",
            "client.address": "127.0.0.1",
            "user_agent.original": "a-client/1",
            "inducta.request.id": gateway.lines[-1]["request_id"],
            "inducta.team": "search",
            "inducta.key.id": key_id,
            "inducta.model": MODEL,
            "inducta.usage.source": "reported",
            "inducta.cost.usd": pytest.approx(9e-06),
        }
        assert (attempt.name, attempt.kind, attempt.is_error) == ("chat gpt-oss", CLIENT, False)
        assert (attempt.trace_id, attempt.parent_id) == (served.trace_id, served.span_id)
        assert served.start_ns <= attempt.start_ns <= attempt.end_ns <= served.end_ns
        assert attempt.attributes == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "up1",
            "gen_ai.request.model": "gpt-oss",
            "gen_ai.request.max_tokens": 50,
            "gen_ai.conversation.id": "talk-7",
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.usage.cache_read.input_tokens": 2,
            "server.address": "127.0.0.1",
            "server.port": upstream.port,
            "http.response.status_code": 200,
            "inducta.upstream": "up1",
        }
        assert gateway.lines[-1]["trace_id"] == served.trace_id


async def test_a_clients_trace_is_continued_to_the_upstream() -> None:
    async with traced() as (gateway, upstream, collector):
        await gateway.chat(headers=SAMPLED)
        served, attempt = await collector.wait_for(spans=2)
        assert (served.trace_id, served.parent_id) == (TRACE, PARENT)
        (asked,) = upstream.truth.requests
        assert asked.header("traceparent") == f"00-{TRACE}-{attempt.span_id}-01"
        assert asked.header("tracestate") == "vendor=1"


async def test_what_the_client_does_not_keep_is_not_kept_and_passes_as_it_is() -> None:
    async with traced() as (gateway, upstream, collector):
        unsampled = f"00-{TRACE}-{PARENT}-00"
        await gateway.chat(headers={"traceparent": unsampled})
        await gateway.chat(headers=SAMPLED)
        assert {span.parent_id for span in of_kind(await collector.wait_for(spans=2), SERVER)} == {PARENT}
        assert upstream.truth.requests[0].header("traceparent") == unsampled


async def test_a_traceparent_that_is_none_begins_a_trace() -> None:
    async with traced() as (gateway, upstream, collector):
        await gateway.chat(headers={"traceparent": "00-nonsense", "tracestate": "vendor=1"})
        served, attempt = await collector.wait_for(spans=2)
        assert served.parent_id == ""
        (asked,) = upstream.truth.requests
        assert asked.header("traceparent") == f"00-{served.trace_id}-{attempt.span_id}-01"
        assert asked.header("tracestate") is None


async def test_each_attempt_has_a_span_with_what_it_failed_of() -> None:
    async with otlp_receiver() as collector, DemoUpstream(DemoScript(status=500)) as failing, DemoUpstream() as good:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **SOON}
        closed = "http://127.0.0.1:1/v1"
        async with whole_gateway(closed, failing.base_url, good.base_url, environ=given) as gateway:
            assert (await gateway.chat(demo={})).status == 200
            spans = await collector.wait_for(spans=4)
    told = [
        (span.attributes["inducta.upstream"], span.attributes.get("error.type"), span.is_error) for span in spans[1:]
    ]
    assert told == [("up1", "not_reached", True), ("up2", "500", True), ("up3", None, False)]
    assert [span.is_error for span in of_kind(spans, SERVER)] == [False]
    assert ["gen_ai.usage.input_tokens" in span.attributes for span in spans[1:]] == [False, False, True]
    assert all(first.end_ns <= second.start_ns for first, second in pairwise(spans[1:]))


async def test_a_stream_says_when_its_first_chunk_came() -> None:
    async with traced(DemoScript(chunks=3, first_delay_ms=30)) as (gateway, _upstream, collector):
        stream = await gateway.open_stream()
        await stream.rest()
        _served, attempt = await collector.wait_for(spans=2)
        assert attempt.attributes["gen_ai.request.stream"] is True
        assert 0.02 < attempt.attributes["gen_ai.response.time_to_first_chunk"] < 10


async def test_a_response_has_its_id_and_that_of_the_one_before() -> None:
    async with traced() as (gateway, _upstream, collector):
        body = {"model": MODEL, "input": "x"}
        first = await gateway.post(json.dumps(body).encode(), path="/v1/responses")
        await gateway.post(
            json.dumps({**body, "previous_response_id": first.json["id"]}).encode(), path="/v1/responses"
        )
        _, one, _, other = await collector.wait_for(spans=4)
        assert one.attributes["gen_ai.response.id"] == first.json["id"]
        assert other.attributes["gen_ai.request.previous_response.id"] == first.json["id"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/completions", "/v1/messages"])
async def test_every_api_has_its_operation(path: str) -> None:
    fields = {
        "/v1/embeddings": {"input": "x"},
        "/v1/rerank": {"query": "x", "documents": ["y"]},
        "/v1/completions": {"prompt": "x"},
        "/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9},
    }[path]
    operations = {"/v1/embeddings": "embeddings", "/v1/rerank": "rerank", "/v1/completions": "text_completion"}
    async with traced() as (gateway, _upstream, collector):
        assert (await gateway.post(json.dumps({"model": MODEL, **fields}).encode(), path=path)).status == 200
        _, attempt = await collector.wait_for(spans=2)
        assert attempt.attributes["gen_ai.operation.name"] == operations.get(path, "chat")
        assert attempt.name == f"{operations.get(path, 'chat')} {MODEL}"
        assert ("gen_ai.usage.output_tokens" in attempt.attributes) == (path in ("/v1/completions", "/v1/messages"))


async def test_refusals_are_spans_without_an_attempt() -> None:
    team = {"keys": [key_settings()], "limits": [{"requests": 1, "per": "day"}]}
    async with traced(team=team) as (gateway, _upstream, collector):
        await gateway.chat()
        await gateway.chat()
        await gateway.chat(key="gw_wrong")
        await gateway.request("GET", "/v1/nothing?key=of-a-client")
        spans = of_kind(await collector.wait_for(spans=5), SERVER)
        told = [(span.attributes["http.response.status_code"], span.attributes.get("error.type")) for span in spans]
        assert told == [(200, None), (429, "insufficient_quota"), (401, "invalid_api_key"), (404, "unknown_url")]
        assert [span.is_error for span in spans] == [False] * 4
        assert spans[-1].name == "GET"


async def test_no_content_key_or_secret_is_in_a_span() -> None:
    environ = {**SOON, "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={COLLECTORS_KEY}"}
    async with traced(environ=environ) as (gateway, upstream, collector):
        gateway.secrets.add(COLLECTORS_KEY)
        answer = await gateway.chat(messages=[{"role": "user", "content": PROMPT}])
        await gateway.request("GET", f"/v1/models?key={KEY}", headers={"x-api-key": KEY})
        await gateway.post(b"{" + PROMPT.encode(), path="/v1/chat/completions")
        await collector.wait_for(spans=4)
        sent = b"".join(collector.bodies)
        said = answer.json["choices"][0]["message"]["content"].encode()
        for hidden in (PROMPT.encode(), said, KEY.encode(), UPSTREAM_KEY.encode(), COLLECTORS_KEY.encode()):
            assert hidden not in sent
        assert {headers["api-key"] for headers in collector.headers} == {COLLECTORS_KEY}
        assert all(COLLECTORS_KEY not in str(asked.headers) for asked in upstream.truth.requests)


async def test_a_collector_that_fails_gets_the_same_batch_again_and_no_request_waits() -> None:
    async with traced() as (gateway, _upstream, collector):
        collector.statuses = [503]
        assert (await gateway.chat()).status == 200
        served, _ = await collector.wait_for(spans=2, requests=2)
        assert len(collector.spans) == 2
        assert served.attributes["http.response.status_code"] == 200
        events = [line["event"] for line in gateway.lines]
        assert "traces are not accepted" in events


async def test_what_the_queue_has_no_place_for_is_dropped_and_counted() -> None:
    environ = {**SOON, "OTEL_BSP_MAX_QUEUE_SIZE": "3", "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    async with traced(environ=environ) as (gateway, _upstream, _collector):
        for _ in range(3):
            await gateway.chat()
            await gateway.ended()
        assert 'gateway_spans_total{outcome="dropped"} 3' in await gateway.metrics()


async def test_what_is_left_is_sent_at_the_end() -> None:
    async with otlp_receiver() as collector, DemoUpstream() as upstream:
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        async with whole_gateway(upstream.base_url, environ=given) as gateway:
            await gateway.chat()
        assert len(collector.spans) == 2


async def test_what_a_collector_rejects_is_counted() -> None:
    async with traced() as (gateway, _upstream, collector):
        collector.rejected = 1
        await gateway.chat()
        await collector.wait_for(spans=2)
        collector.statuses = [400, 503]
        for requests in (2, 3):
            await gateway.chat()
            await collector.wait_for(requests=requests)
        # The third batch is only sent once the second one is counted, and is not counted itself.
        metrics = await gateway.metrics()
        assert 'gateway_spans_total{outcome="rejected"} 3' in metrics
        assert 'gateway_spans_total{outcome="exported"} 1' in metrics


async def test_a_collector_that_never_answers_delays_neither_requests_nor_the_end() -> None:
    async with DemoUpstream() as upstream:
        server = await asyncio.start_server(_silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        given = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **SOON}
        async with whole_gateway(upstream.base_url, environ=given) as gateway:
            for _ in range(5):
                assert (await gateway.chat()).status == 200
        server.close()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_the_service_is_named_as_the_environment_says() -> None:
    environ = {**SOON, "OTEL_SERVICE_NAME": "llm", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod"}
    async with traced(environ=environ) as (gateway, _upstream, collector):
        await gateway.chat()
        await collector.wait_for(spans=2)
        (resource,) = collector.resources
        assert resource.pop("service.version")
        assert resource == {"service.name": "llm", "deployment.environment": "prod"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
async def test_nothing_is_traced_that_nobody_asked_for(environ: Mapping[str, str]) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, environ=environ) as gateway:
        await gateway.chat(headers=SAMPLED)
        assert (await gateway.ended()).trace is None
        (asked,) = upstream.truth.requests
        assert asked.header("traceparent") == SAMPLED["traceparent"]
        assert gateway.lines[-1]["trace_id"] == TRACE


async def test_a_proxy_that_cannot_be_used_is_a_warning_without_its_password() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example", "HTTP_PROXY": "socks://u:p4ssw0rd@proxy:1"}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, environ=environ) as gateway:
        assert (await gateway.chat()).status == 200
        (line,) = [line for line in gateway.lines if line["event"] == "traces are not exported"]
        assert "HTTP_PROXY" in line["why"]
        assert "p4ssw0rd" not in json.dumps(gateway.lines)


async def test_a_variable_that_cannot_be_used_is_a_warning_without_its_value() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "no-url-7Tz4Lw8", "OTEL_EXPORTER_OTLP_HEADERS": "x"}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, environ=environ) as gateway:
        assert (await gateway.chat()).status == 200
        (line,) = [line for line in gateway.lines if line["event"] == "a variable of OpenTelemetry cannot be used"]
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in line["what"]
        assert "no-url" not in json.dumps(gateway.lines)


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    code = (
        "import sys; import gateway.app.serve; import gateway.app.trace_export\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'google'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
