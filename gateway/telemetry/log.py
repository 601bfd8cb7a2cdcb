"""The log: one line for each request at its end, and events for operators.

JSON lines in production, coloured lines on a terminal (structlog). Never in it: a prompt, a response, a key, an
upstream's secret. Logging neither raises nor waits: line_writer.py writes the lines, and drops what cannot be written.
Requests without a valid key have only so many lines in a while; the others are counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from gateway.core.errors import GatewayError, InternalError
from gateway.core.exchange import Exchange
from gateway.core.header_rules import (
    AGENT_HEADERS,
    SESSION_HEADERS,
    TURN_HEADERS,
    TURN_METADATA_HEADER,
    UPSTREAM_ID_HEADERS,
    first_of,
)
from gateway.core.request import IncomingRequest
from gateway.core.traces import RequestTrace
from gateway.telemetry.line_writer import LineWriter
from gateway.telemetry.sampling import LineSample

SHOWN_CHARACTERS = 200
"""The length at which each text of a client is cut in a line."""

_TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")
"""W3C Trace Context, 3.2."""

_TURN_ID = re.compile(r'"turn_id"\s*:\s*"([^"\\]{1,200})"')

_LIMIT_FIELDS = ("name", "scope", "meter", "per", "amount", "used", "held", "requested", "retry_after_ms")
"""The fields of a limit that refused. The team and the key are fields of the line itself."""


def _none_dropped() -> int:
    return 0


Render = Callable[[str, str, dict[str, Any]], bytes]
"""Makes a line of a level, an event and its fields."""


class Log:
    """Events are short and lower case; what varies goes into fields, with the unit in the name. The fields of
    `always` are in every line. `dropped` counts the lines that could not be written."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        terminal: bool = False,
        dropped: Callable[[], int] = _none_dropped,
        **always: Any,
    ) -> None:
        self.dropped = dropped
        self._samples = {"request": LineSample(), "admin request refused": LineSample()}
        """Of lines that need no key, by their event."""
        self._write_line = write
        self._render = _for_terminal() if terminal else _as_json
        self._always = always

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write("error", event, fields)

    def defect(self, event: str, error: BaseException, **fields: Any) -> None:
        """An unexpected exception: its class and where it was raised. Its text is left out, since the text of a
        library's exception can quote what a client sent."""
        self.error(event, error=type(error).__qualname__, stack=_stack(error), **fields)

    def admin_refused(self, client_ip: str, method: str, path: str, status: int, code: str) -> None:
        """A request to the admin API without the right to make it."""
        if self._samples["admin request refused"].admits(code):
            fields = {"client_ip": client_ip, "method": shortened(method), "path": shortened(path), "status": status}
            self.warning("admin request refused", **fields, code=code)

    def report_left_out(self) -> None:
        """How many lines of requests without a good key were left out since the last call."""
        for event, sample in self._samples.items():
            if codes := sample.begin_period():
                self.warning("log lines left out", of=event, lines=sum(codes.values()), codes=codes)

    def exchange(self, x: Exchange) -> None:
        """The line of a request, unless it needed no key and there are too many of those. Fields that the request
        never came to have are left out."""
        if x.caller is not None or self._samples["request"].admits(_code_of(x)):
            self._write("info", "request", _fields_of(x))

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self._write_line(self._render(level, event, {**self._always, **fields} if self._always else fields))


def configure(fd: int | None = None, **always: Any) -> Log:
    """The process's log on a file descriptor (standard output if None). The standard library's logging goes into it
    from warnings up, since aiohttp and asyncio log there. To be called once in a process."""
    out = sys.stdout.fileno() if fd is None else fd
    writer = LineWriter(out)
    log = Log(writer.write, terminal=os.isatty(out), dropped=lambda: writer.dropped, **always)
    writer.on_recovered = lambda dropped: log.warning("log lines dropped", lines=dropped)
    atexit.register(writer.close)
    os.register_at_fork(after_in_child=writer.restart)
    root = logging.getLogger()
    root.handlers = [_LibraryHandler(log)]
    root.setLevel(logging.WARNING)
    return log


def _fields_of(x: Exchange) -> dict[str, Any]:
    fields: dict[str, Any] = {"request_id": x.request.request_id, "endpoint": x.request.endpoint.name}
    _add_client(fields, x.request, x.trace)
    _add_caller(fields, x)
    if x.parsed is not None:
        _add_request(fields, x)
    if x.target is not None:
        fields["upstream"] = x.target.upstream.name
    if x.response is not None and (upstream_id := first_of(UPSTREAM_ID_HEADERS, x.response.headers)):
        fields["upstream_request_id"] = shortened(upstream_id)
    if x.redacted:
        fields["redacted"] = x.redacted
    fields["status"] = x.status
    if x.usage is not None:
        _add_usage(fields, x)
    _add_times(fields, x)
    failure = x.failure
    if failure is not None:
        fields["code"], fields["blame"] = failure.code, failure.blame
    if x.error is not None:
        _add_error(fields, x.error)
    if x.attempts and (failure is not None or len(x.attempts) > 1):
        fields["attempts"] = [f"{upstream}: {outcome}" for upstream, outcome in x.attempts]
    return fields


def _add_caller(fields: dict[str, Any], x: Exchange) -> None:
    if x.caller is not None:
        fields["team"] = x.caller.team
        fields["key"] = x.caller.key_id
    elif x.refused_key:
        fields["refused_key"] = x.refused_key


def _code_of(x: Exchange) -> str:
    return x.failure.code if x.failure is not None else "answered"


def _add_client(fields: dict[str, Any], request: IncomingRequest, trace: RequestTrace | None) -> None:
    """Who asked, and what the endpoint's name does not say: the path without its query, which can carry a key."""
    if not request.endpoint.name:
        fields["method"], fields["path"] = shortened(request.method), shortened(request.path)
    if request.client_ip:
        fields["client_ip"] = request.client_ip
    headers = request.headers
    if agent := headers.get("user-agent"):
        fields["user_agent"] = shortened(agent)
    if session := first_of(SESSION_HEADERS, headers):
        fields["session"] = shortened(session)
        # What names its agent or its turn names its session, too.
        if helper := first_of(AGENT_HEADERS, headers):
            fields["agent"] = shortened(helper)
        if turn := _turn(headers):
            fields["turn"] = shortened(turn)
    if trace is not None:
        fields["trace_id"] = trace.trace_id
    elif (parent := headers.get("traceparent")) and (named := _TRACE_ID.match(parent)):
        fields["trace_id"] = named[1]
    if request.body.size:
        fields["request_bytes"] = request.body.size


def _turn(headers: Mapping[str, str]) -> str:
    named = first_of(TURN_HEADERS, headers)
    if not named and (metadata := headers.get(TURN_METADATA_HEADER)):
        found = _TURN_ID.search(metadata)
        named = found[1] if found else ""
    return named


def shortened(text: str) -> str:
    """What a client sent, of bounded length, with the bytes that are not UTF-8 replaced."""
    if len(text) <= SHOWN_CHARACTERS and text.isascii():
        return text
    return text[:SHOWN_CHARACTERS].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _add_request(fields: dict[str, Any], x: Exchange) -> None:
    parsed = x.parsed
    if parsed is None:
        return
    fields["model"] = parsed.binding.model.name
    fields["stream"] = parsed.stream
    if (cap := x.quota_output_cap) is not None:
        fields["output_cap"] = cap
    if parsed.user:
        fields["user"] = parsed.user[:SHOWN_CHARACTERS]
    if (verdict := x.reservation or x.refusal) is not None and verdict.would_refuse:
        fields["shadow_refused"] = [limit.name for limit in verdict.would_refuse]


def _add_usage(fields: dict[str, Any], x: Exchange) -> None:
    usage = x.usage
    if usage is None:
        return
    fields["input_tokens"] = usage.input
    fields["output_tokens"] = usage.output
    fields["cached_input_tokens"] = usage.cached_input
    fields["usage_source"] = usage.source
    fields["cost_usd"] = x.cost / 1_000_000


def _add_times(fields: dict[str, Any], x: Exchange) -> None:
    duration = x.ended - x.request.at
    fields["duration_s"] = _rounded(duration)
    if x.first_byte_at is not None:
        fields["time_to_first_token_s"] = _rounded(x.first_byte_at - x.request.at)
    overhead = duration - x.upstream_seconds
    fields["overhead_s"] = _rounded(overhead) if overhead > 0 else 0.0
    if x.store_seconds is not None:
        fields["store_s"] = _rounded(x.store_seconds)


def _rounded(seconds: float) -> float:
    """To the microsecond. To round to so many digits takes twenty times as long, since it writes them."""
    return round(seconds * 1e6) / 1e6


def _add_error(fields: dict[str, Any], error: GatewayError) -> None:
    if error.limit is not None:
        fields["limit"] = {name: error.limit[name] for name in _LIMIT_FIELDS}
    if isinstance(error, InternalError):
        cause = error.__cause__ or error
        fields["error"] = type(cause).__qualname__
        fields["stack"] = _stack(cause)


def _stack(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _for_terminal() -> Render:
    # A gateway whose log goes to no terminal does without these megabytes.
    import structlog

    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    colours = structlog.dev.ConsoleRenderer(timestamp_key="time", colors=True, sort_keys=False)

    def render(level: str, event: str, fields: dict[str, Any]) -> bytes:
        shown = stamp(None, level, {**_printable(fields), "event": _shown(event), "level": level})
        return f"{colours(None, level, shown)}\n".encode(errors="backslashreplace")

    return render


def _as_json(level: str, event: str, fields: dict[str, Any]) -> bytes:
    """Time, level and event first, so that lines can be read by eye. The time is that of RFC 3339, in UTC, to the
    microsecond."""
    now_us = time.time_ns() // 1000
    beginning = _date_and_time(now_us // 1_000_000), now_us % 1_000_000, _level_and_event(level, event)
    rest = _ENCODER.encode(fields)
    return b'{"time":"%b.%06dZ",%b%b%b\n' % (*beginning, b"," if fields else b"", rest[1:])


@lru_cache(maxsize=1)
def _date_and_time(second: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()


@lru_cache(maxsize=64)
def _level_and_event(level: str, event: str) -> bytes:
    return b'"level":"%b","event":%b' % (level.encode(), _ENCODER.encode(event))


_ENCODER = msgspec.json.Encoder(enc_hook=str)


def _printable(fields: dict[str, Any]) -> dict[str, Any]:
    """A terminal would obey control characters: they are escaped."""
    return {name: _shown(value) for name, value in fields.items()}


def _shown(value: Any) -> Any:
    if isinstance(value, str) and not value.isprintable():
        return value.encode("unicode_escape").decode()
    return value


class _LibraryHandler(logging.Handler):
    """Records of aiohttp and asyncio, as lines of this log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self._log.defect(str(record.msg), error, logger=record.name)
        elif record.levelno >= logging.ERROR:
            self._log.error(record.getMessage(), logger=record.name)
        else:
            self._log.warning(record.getMessage(), logger=record.name)
