"""Spans of requests, by OpenTelemetry's semantic conventions: one for the request as the gateway served it (HTTP), and
below it one for each attempt at an upstream (generative AI).

Sources: https://opentelemetry.io/docs/specs/semconv/http/http-spans/, and client-inference.md of
https://github.com/open-telemetry/semantic-conventions-genai as published in November 2026. Attributes that these do not
name begin with `inducta.`.

While it runs, a traced request costs a `RequestTrace`. Its spans are made when it has ended, from what the exchange has
anyway, and wait in a bounded queue to be exported. Never in them: a prompt, an answer, a key, an upstream's secret.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from urllib.parse import urlsplit

import msgspec

from gateway.core.clock import Clock
from gateway.core.endpoints import StreamFormat
from gateway.core.errors import Blame
from gateway.core.exchange import Exchange
from gateway.core.header_rules import SESSION_HEADERS, first_of
from gateway.core.http_syntax import read_base_url
from gateway.core.request import IncomingRequest, ParsedRequest
from gateway.core.snapshot import Upstream
from gateway.core.stored_objects import ObjectKind
from gateway.core.traces import RequestTrace, UpstreamSpan, read_traceparent
from gateway.core.usage import Usage
from gateway.telemetry.trace_options import Sampling

SERVER, CLIENT = 2, 3
"""Kinds of spans, as OTLP numbers them."""

_CUT = 200
"""Characters of a text that a client chose."""

_STALE = "stale_connection"
"""Not a separate attempt: the request was sent again over another connection."""

_OPERATIONS = {
    StreamFormat.CHAT: "chat",
    StreamFormat.RESPONSES: "chat",
    StreamFormat.MESSAGES: "chat",
    StreamFormat.COMPLETIONS: "text_completion",
    StreamFormat.GEMINI: "generate_content",
}
_PROVIDERS = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "amazonaws.com": "aws.bedrock",
    "api.cohere.ai": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}
"""The well-known values of `gen_ai.provider.name`, by the end of a host's name."""

Value = str | int | float | bool


class Span(msgspec.Struct, frozen=True):
    """Ids are hexadecimal, times nanoseconds since 1970. `parent_id` empty: the first of its trace. `error` is what
    its status says, empty for none."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Value]
    error: str = ""


class Tracer:
    """Keeps what has ended until it is exported, `queue_max` spans; `count_dropped` gets how many are beyond that."""

    def __init__(
        self,
        sampling: Sampling,
        queue_max: int,
        batch_max: int,
        clock: Clock,
        dice: Random,
        count_dropped: Callable[[int], None],
    ) -> None:
        self._sampling = sampling
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._clock = clock
        self._dice = dice
        self._count_dropped = count_dropped
        self._queue: deque[Span] = deque()
        self._batch_is_full = asyncio.Event()

    def begin(self, request: IncomingRequest) -> RequestTrace | None:
        """None if its spans are not kept: the client's `traceparent` then passes unchanged."""
        parent = read_traceparent(request.headers.get("traceparent", ""))
        trace_id = parent.trace_id if parent is not None else f"{self._dice.getrandbits(128) or 1:032x}"
        if parent is not None and self._sampling.follows_parent:
            is_kept = parent.is_sampled
        else:
            # As OpenTelemetry's TraceIdRatioBased decides, so that all who see a trace agree.
            is_kept = int(trace_id[16:], 16) < self._sampling.ratio * 2**64
        return RequestTrace(trace_id, parent.span_id if parent else "", self._new_span_id) if is_kept else None

    def record(self, exchange: Exchange) -> None:
        """Take the spans of an exchange that has ended."""
        if exchange.trace is None:
            return
        for span in spans_of(exchange, exchange.trace, self._clock):
            if len(self._queue) < self._queue_max:
                self._queue.append(span)
            else:
                self._count_dropped(1)
        if len(self._queue) >= self._batch_max:
            self._batch_is_full.set()

    def take(self) -> list[Span]:
        """The next batch, the oldest first."""
        batch = [self._queue.popleft() for _ in range(min(self._batch_max, len(self._queue)))]
        if len(self._queue) < self._batch_max:
            self._batch_is_full.clear()
        return batch

    async def wait_for_batch(self, most_s: float) -> None:
        """Wait until a batch is full, or for this long."""
        try:
            async with asyncio.timeout(most_s):
                await self._batch_is_full.wait()
        except TimeoutError:
            return

    def _new_span_id(self) -> str:
        return f"{self._dice.getrandbits(64) or 1:016x}"


def spans_of(exchange: Exchange, trace: RequestTrace, clock: Clock) -> list[Span]:
    """The span of the request, and those of its attempts, of an exchange that has ended."""
    offset_s = clock.now_ms() / 1000 - clock.monotonic()

    def nanoseconds(moment: float) -> int:
        return int((moment + offset_s) * 1_000_000_000)

    failure, request = exchange.failure(), exchange.request
    route = request.endpoint.path
    # Of a server, a 4xx is no error of its own (https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status).
    is_error = failure is not None and failure.blame is not Blame.CALLER and not 400 <= exchange.status < 500
    served = Span(
        trace.trace_id,
        trace.span_id,
        trace.parent_id,
        f"{_cut(request.method)} {route}".rstrip(),
        SERVER,
        nanoseconds(request.at),
        nanoseconds(exchange.ended),
        _served(exchange),
        failure.code if failure is not None and is_error else "",
    )
    spans = [served]
    outcomes = [outcome for _, outcome in exchange.attempts if outcome != _STALE]
    ends = [after.began for _, after in pairwise(trace.attempts)] + [exchange.ended]
    for number, (attempt, ended) in enumerate(zip(trace.attempts, ends, strict=False)):
        is_last = number == len(trace.attempts) - 1
        outcome = outcomes[number] if number < len(outcomes) else ""
        error = _error_of(exchange, outcome, is_last)
        attributes = _asked(exchange, attempt)
        if outcome.isdigit():
            attributes["http.response.status_code"] = int(outcome)
        if error:
            attributes["error.type"] = error
        if is_last:
            attributes |= _answered(exchange, attempt)
        name = f"{attributes['gen_ai.operation.name']} {attempt.target.model}"
        times = nanoseconds(attempt.began), nanoseconds(ended)
        spans.append(Span(trace.trace_id, attempt.span_id, trace.span_id, name, CLIENT, *times, attributes, error))
    return spans


def _error_of(exchange: Exchange, outcome: str, is_last: bool) -> str:
    """The failure of an attempt, if it is the upstream's."""
    if outcome.isdigit() and int(outcome) < 400:
        failure = exchange.failure() if is_last else None
        return failure.code if failure is not None and failure.blame is Blame.UPSTREAM else ""
    return outcome


def _served(exchange: Exchange) -> dict[str, Value]:
    request, caller, parsed = exchange.request, exchange.caller, exchange.parsed
    attributes: dict[str, Value] = {
        "http.request.method": _cut(request.method),
        "http.response.status_code": exchange.status,
        "url.path": _cut(request.path),
        "url.scheme": "http",
        "inducta.request.id": request.request_id,
    }
    texts = {
        "http.route": request.endpoint.path,
        "client.address": request.client_ip,
        "user_agent.original": _cut(request.headers.get("user-agent", "")),
        "error.type": failure.code if (failure := exchange.failure()) is not None else "",
        "inducta.team": caller.team if caller is not None else "",
        "inducta.key.id": caller.key_id if caller is not None else "",
        "inducta.model": parsed.model.name if parsed is not None else "",
        "inducta.usage.source": str(exchange.usage.source) if exchange.usage is not None else "",
    }
    attributes |= {name: text for name, text in texts.items() if text}
    if exchange.cost:
        attributes["inducta.cost.usd"] = exchange.cost / 1_000_000
    attributes["inducta.gateway.duration"] = max(0.0, exchange.ended - request.at - exchange.upstream_seconds)
    return attributes


def _asked(exchange: Exchange, attempt: UpstreamSpan) -> dict[str, Value]:
    parsed, target = exchange.parsed, attempt.target
    assert parsed is not None, "what is forwarded was parsed"
    url = read_base_url(target.upstream.base_url)
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": _operation(parsed),
        "gen_ai.provider.name": provider_of(target.upstream),
        "gen_ai.request.model": target.model,
        "server.address": url.host,
        "server.port": url.port,
        "inducta.upstream": target.upstream.name,
    }
    cap = exchange.quota_output_cap() or parsed.output_cap
    if cap is not None and parsed.endpoint.has_output:
        attributes["gen_ai.request.max_tokens"] = cap
    if parsed.choices != 1:
        attributes["gen_ai.request.choice.count"] = parsed.choices
    if parsed.stream:
        attributes["gen_ai.request.stream"] = True
    named = {name.kind: _cut(name.id) for name in parsed.continues}
    if ObjectKind.RESPONSE in named:
        attributes["gen_ai.request.previous_response.id"] = named[ObjectKind.RESPONSE]
    conversation = named.get(ObjectKind.CONVERSATION) or _cut(first_of(SESSION_HEADERS, exchange.request.headers))
    if conversation:
        attributes["gen_ai.conversation.id"] = conversation
    return attributes


def _answered(exchange: Exchange, attempt: UpstreamSpan) -> dict[str, Value]:
    """The attributes of the attempt whose answer was relayed."""
    attributes: dict[str, Value] = {}
    parsed, usage, tally = exchange.parsed, exchange.usage, exchange.tally
    if parsed is not None and parsed.stream and exchange.first_byte_at is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = max(0.0, exchange.first_byte_at - attempt.began)
    if tally is not None and tally.object_id:
        attributes["gen_ai.response.id"] = tally.object_id
    if usage is not None and parsed is not None and not parsed.endpoint.is_free:
        attributes |= dict(_usage(usage, has_output=bool(parsed.endpoint.has_output)))
    return attributes


def _usage(usage: Usage, *, has_output: bool) -> Iterator[tuple[str, Value]]:
    yield "gen_ai.usage.input_tokens", usage.input
    if has_output:
        yield "gen_ai.usage.output_tokens", usage.output
    parts = {
        "cache_read.input_tokens": usage.cached_input,
        "cache_write.input_tokens": usage.cache_writes,
        "reasoning.output_tokens": usage.reasoning,
        "audio.input_tokens": usage.audio_input,
        "audio.output_tokens": usage.audio_output,
        "image.input_tokens": usage.image_input,
        "image.output_tokens": usage.image_output,
    }
    for name, tokens in parts.items():
        if tokens:
            yield f"gen_ai.usage.{name}", tokens


def _operation(parsed: ParsedRequest) -> str:
    """One of the conventions' values where one fits, else the endpoint's name."""
    endpoint = parsed.endpoint
    if endpoint.stream_format is not None:
        return _OPERATIONS[endpoint.stream_format]
    return "embeddings" if endpoint.name in ("embeddings", "gemini.embedContent") else endpoint.name


def provider_of(upstream: Upstream) -> str:
    """The conventions' value where the host is a known provider's, else the upstream's name."""
    host = urlsplit(upstream.base_url).hostname or ""
    known = (name for end, name in _PROVIDERS.items() if host == end or host.endswith(("." + end, "-" + end)))
    return next(known, upstream.name)


def _cut(text: str) -> str:
    """Of bounded length, with the bytes that are not UTF-8 replaced."""
    return text[:_CUT].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
