"""Sends spans to a collector: in batches over HTTP, from a bounded queue, without delaying requests.

A batch that the collector does not take for now is sent again. Meanwhile newer spans that do not fit into the queue are
dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from random import Random
from typing import Any
from urllib.parse import urlsplit

from gateway.core.clock import Clock
from gateway.core.errors import GatewayError, UpstreamError
from gateway.core.header_rules import HeaderLines
from gateway.core.http_syntax import read_base_url
from gateway.core.proxies import EnvironmentProxies
from gateway.core.snapshot import Timeouts, Upstream
from gateway.runtime.backoff import Backoff
from gateway.runtime.tasks import BackgroundTasks
from gateway.telemetry.log import Log
from gateway.telemetry.trace_options import TraceOptions, read_trace_options
from gateway.telemetry.tracer import Span, Tracer
from gateway.upstream.contract import UpstreamClient, UpstreamRequest

CLOSE_S = 3.0
"""How long a stopping gateway waits for its last spans to be sent."""

ENCODED_AT_ONCE = 16
"""Spans in a piece of a batch; each takes some 50 µs to encode."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Between two attempts to send a batch."""

_AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses after which a batch is sent again (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response)."""

_EXTRA = "the extra [otel] is not installed: pip install opentelemetry-proto"

Count = Callable[[str, int], None]


class _NotTaken(Exception):
    """Why a batch is to be sent again."""


class TraceExport:
    """`count` gets how many spans were "exported", "dropped" (the queue was full) or "rejected" by the collector."""

    def __init__(
        self,
        options: TraceOptions,
        client: UpstreamClient,
        clock: Clock,
        log: Log,
        tasks: BackgroundTasks,
        count: Count,
        proxies: EnvironmentProxies,
    ) -> None:
        self.tracer = Tracer(
            options.sampling,
            options.queue_max,
            options.batch_max,
            clock,
            Random(),
            lambda spans: count("dropped", spans),
        )
        self._options = options
        self._client = client
        self._log = log
        self._tasks = tasks
        self._count = count
        self._batch: list[Span] = []
        """What is being sent."""
        self._is_failing = False
        self._otlp: Any = None
        url = urlsplit(options.endpoint)
        self._path = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
        base = f"{url.scheme}://{url.netloc}"
        self._collector = Upstream(
            name=url.hostname or "",
            base_url=base,
            headers=options.headers,
            timeouts=Timeouts(options.timeout_s, options.timeout_s, options.timeout_s, options.timeout_s),
            max_connections=1,
            proxy=proxies.proxy_for(read_base_url(base)),
        )

    def start(self) -> None:
        self._tasks.keep_running("export traces", self._run)

    async def close(self) -> None:
        """Send what is left, if the collector accepts it soon."""
        await self._tasks.close()
        with suppress(TimeoutError, _NotTaken, GatewayError):
            async with asyncio.timeout(CLOSE_S):
                while await self._send_batch():
                    continue

    async def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                if not await self._send_batch():
                    await self.tracer.wait_for_batch(self._options.every_s)
            except (_NotTaken, UpstreamError) as error:
                if not self._is_failing:
                    self._log.warning("traces are not accepted", collector=self._collector.name, why=str(error))
                self._is_failing = True
                await asyncio.sleep(backoff.next_s())
            else:
                if self._is_failing:
                    self._log.info("traces are accepted again", collector=self._collector.name)
                self._is_failing = False
                backoff.reset()

    async def _send_batch(self) -> bool:
        """Whether there was one. Raises _NotTaken and UpstreamError: then the batch stays."""
        self._batch = self._batch or self.tracer.take()
        if not self._batch:
            return False
        if self._otlp is None:
            self._otlp = await asyncio.to_thread(import_module, "gateway.telemetry.otlp")
        headers = HeaderLines(("content-type",), ("application/x-protobuf",))
        status, answer = await self._post(UpstreamRequest(self._path, headers, await self._encoded(self._batch)))
        if status in _AGAIN:
            raise _NotTaken(f"it answers with {status}")
        taken = len(self._batch) - self._otlp.rejected(answer) if status < 300 else 0
        if status >= 300:
            self._log.warning("traces are rejected", collector=self._collector.name, status=status)
        self._count("exported", taken)
        self._count("rejected", len(self._batch) - taken)
        self._batch = []
        return True

    async def _encoded(self, batch: list[Span]) -> bytes:
        """Encodes some spans at a time, with other work in between. Pieces that follow one another are one message:
        protocol buffers join lists (https://protobuf.dev/programming-guides/encoding/#last-one-wins)."""
        pieces = []
        for at in range(0, len(batch), ENCODED_AT_ONCE):
            pieces.append(self._otlp.encode(batch[at : at + ENCODED_AT_ONCE], self._options.resource))
            await asyncio.sleep(0)
        return b"".join(pieces)

    async def _post(self, request: UpstreamRequest) -> tuple[int, bytes]:
        response = await self._client.send(self._collector, request)
        body = bytearray()
        try:
            response.deliver_to(body.extend)
            await response.finished()
        finally:
            response.abandon()
        return response.status, bytes(body)


def trace_export(
    environ: Mapping[str, str],
    client: UpstreamClient,
    clock: Clock,
    log: Log,
    tasks: BackgroundTasks,
    count: Count,
) -> TraceExport | None:
    """None if the environment asks for no export, or the extra is missing; the log says so."""
    options, problems = read_trace_options(environ)
    for problem in problems:
        log.warning("a variable of OpenTelemetry cannot be used", what=problem)
    if options is None:
        return None
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.proto") is None:
        log.warning("traces are not exported", why=_EXTRA)
        return None
    try:
        return TraceExport(options, client, clock, log, tasks, count, EnvironmentProxies.of(environ))
    except ValueError as error:
        log.warning("traces are not exported", why=f"the collector {error}")
        return None
