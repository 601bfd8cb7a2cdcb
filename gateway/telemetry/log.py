"""The log: one line for each request at its end, and events for operators.

JSON lines in production; a terminal is shown the same lines in colours (structlog). Never in it: a prompt, a response,
a key, an upstream's secret. Logging neither raises nor waits: line_writer.py writes the lines, and drops what cannot be
written. Requests without a valid key have only so many lines in a while; the others are counted.
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

from gateway.core.errors import (
    Failure,
    FieldInvalid,
    InternalError,
    KeyExpired,
    KeyUnknown,
    LimitRefusal,
    ModelUnknown,
    TooLarge,
)
from gateway.core.exchange import Exchange
from gateway.core.head_outline import TRACE_HEADER
from gateway.core.header_rules import (
    AGENT_HEADERS,
    SESSION_HEADERS,
    TURN_HEADERS,
    TURN_METADATA_HEADER,
    UPSTREAM_ID_HEADERS,
    first_of,
)
from gateway.core.limit_status import WrittenRefusal
from gateway.core.remembered import remembered
from gateway.core.request import IncomingRequest
from gateway.core.traces import RequestTrace
from gateway.core.usage import UsageSource
from gateway.telemetry.line_writer import LineWriter
from gateway.telemetry.sampling import LineSample

SHOWN_CHARACTERS = 200
"""The length at which each text of a client is cut in a line."""

_TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")
"""W3C Trace Context, 3.2."""

_UPSTREAM_IDS = frozenset(UPSTREAM_ID_HEADERS)

_TURN_ID = re.compile(r'"turn_id"\s*:\s*"([^"\\]{1,200})"')

_FIRST_NAME = re.compile("[A-Za-z_]{1,64}")

_LIMIT_FIELDS = ("name", "scope", "meter", "per", "amount", "used", "held", "requested")
"""The fields of a limit that refused; `retry_after_ms` is another. The team and the key are fields of the line
itself."""

_SHARED_REMEMBERED = 2_048
"""Alike requests whose shared fields are kept encoded: about half a kilobyte for each."""

_CLIENTS_REMEMBERED = 1_024

_MEMBERS = slice(1, -1)
"""Of an object in JSON, what is between its braces."""

_REPORTED = UsageSource.REPORTED  # Slow to reach through the class in Python 3.11.


def _none_dropped() -> int:
    return 0


class _SharedFields(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The fields of a request's line that many requests have in common; None is left out."""

    endpoint: str
    team: str | None = None
    key: str | None = None
    model: str | None = None
    stream: bool | None = None
    upstream: str | None = None
    status: int
    usage_source: str | None = None


class _ClientFields(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Those that the requests of one client have in common."""

    client_ip: str | None = None
    user_agent: str | None = None


class _RequestLine(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The other fields that most lines have; None is left out."""

    request_id: str
    request_bytes: int | None = None
    user: str | None = None
    upstream_request_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cost_usd: float | None = None
    duration_s: float
    time_to_first_token_s: float | None = None
    overhead_s: float
    store_s: float | None = None


class _ConversationFields(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Those of a request that says what it is a part of."""

    session: str | None = None
    agent: str | None = None
    turn: str | None = None
    trace_id: str | None = None


class _OutcomeFields(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Those of a request that failed, or did not go the usual way."""

    method: str | None = None
    path: str | None = None
    refused_key: str | None = None
    refused_because: str | None = None
    param: str | None = None
    asked_model: str | None = None
    body_bytes: int | None = None
    output_cap: int | None = None
    shadow_refused: list[str] | None = None
    redacted: int | None = None
    code: str | None = None
    blame: str | None = None
    limit: msgspec.Raw | None = None
    error: str | None = None
    stack: list[str] | None = None
    attempts: list[str] | None = None


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
        self._shown = _in_colours() if terminal else None
        self._always = b"," + _ENCODER.encode(always)[_MEMBERS] if always else b""
        self._shared_fields = lru_cache(_SHARED_REMEMBERED)(self._encode_shared_fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write_event("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write_event("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write_event("error", event, fields)

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

    def exchange(self, exchange: Exchange) -> None:
        """The line of a request, unless it needed no key and there are too many of those. Fields that the request
        never came to have are left out."""
        request, caller, parsed = exchange.request, exchange.caller, exchange.parsed
        target, usage, failure = exchange.target, exchange.usage, exchange.failure()
        team = key = model = stream = None
        if caller is not None:
            team, key = caller.team, caller.key_id
        elif not self._samples["request"].admits(failure.code if failure is not None else "answered"):
            return
        if parsed is not None:
            model, stream = parsed.binding.model.name, parsed.stream
        shared = self._shared_fields(
            request.endpoint.name,
            team,
            key,
            model,
            stream,
            target.upstream.name if target is not None else None,
            exchange.status,
            None if usage is None else usage.source is _REPORTED,
        )
        client = _client_fields(request.client_ip, request.headers.get("user-agent", "")[:SHOWN_CHARACTERS])
        line = _ENCODER.encode(_line_of(exchange))[_MEMBERS]
        self._write((shared, client, line, _conversation_of(request, exchange.trace), _outcome_of(exchange, failure)))

    def _write_event(self, level: str, event: str, fields: dict[str, Any]) -> None:
        begin = _level_and_event(level, event) + self._always
        self._write((begin, b",", _ENCODER.encode(fields)[_MEMBERS]) if fields else (begin,))

    def _write(self, members: tuple[bytes, ...]) -> None:
        """Time, level and event first, so that lines can be read by eye. The time is that of RFC 3339, in UTC, to the
        microsecond. `members` are encoded, with the commas between them."""
        second, microsecond = divmod(time.time_ns() // 1000, 1_000_000)
        line = b"".join((_date_and_time(second), b'%06dZ",' % microsecond, *members, b"}\n"))
        self._write_line(line if self._shown is None else self._shown(line))

    def _encode_shared_fields(
        self,
        endpoint: str,
        team: str | None,
        key: str | None,
        model: str | None,
        stream: bool | None,
        upstream: str | None,
        status: int,
        is_reported: bool | None,
    ) -> bytes:
        """What the line of a request begins with, up to the comma behind these fields."""
        fields = _SharedFields(
            endpoint=endpoint,
            team=team,
            key=key,
            model=model,
            stream=stream,
            upstream=upstream,
            status=status,
            usage_source=None
            if is_reported is None
            else UsageSource.REPORTED
            if is_reported
            else UsageSource.ESTIMATED,
        )
        return b"%b%b,%b," % (_level_and_event("info", "request"), self._always, _ENCODER.encode(fields)[_MEMBERS])


def configure(fd: int | None = None, *, is_shared: bool = True, **always: Any) -> Log:
    """The process's log on a file descriptor (standard output if None), to which other processes of the gateway write
    as well if it `is_shared`. The standard library's logging goes into it from warnings up, since aiohttp and asyncio
    log there. To be called once in a process."""
    out = sys.stdout.fileno() if fd is None else fd
    writer = LineWriter(out, is_shared=is_shared)
    log = Log(writer.write, terminal=os.isatty(out), dropped=lambda: writer.dropped, **always)
    writer.on_recovered = lambda dropped: log.warning("log lines dropped", lines=dropped)
    atexit.register(writer.close)
    os.register_at_fork(after_in_child=writer.restart)
    root = logging.getLogger()
    root.handlers = [_LibraryHandler(log)]
    root.setLevel(logging.WARNING)
    return log


def _line_of(exchange: Exchange) -> _RequestLine:
    request, parsed, usage = exchange.request, exchange.parsed, exchange.usage
    duration, in_store = exchange.ended - request.at, exchange.store_seconds
    upstream_seconds = exchange.upstream_seconds
    waited = None if exchange.first_byte_at is None else exchange.first_byte_at - request.at
    # Seconds are rounded to the microsecond by arithmetic: `round` to so many digits writes them, and so takes longer.
    duration_s = overhead_s = (duration * 1e6 + 0.5) // 1 / 1e6
    if upstream_seconds:
        overhead = duration - upstream_seconds
        overhead_s = (overhead * 1e6 + 0.5) // 1 / 1e6 if overhead > 0 else 0.0
    line = _RequestLine(
        request_id=request.request_id,
        request_bytes=request.body.size or None,
        upstream_request_id=_upstream_id(exchange.response.headers) if exchange.response is not None else None,
        input_tokens=usage.input if usage is not None else None,
        output_tokens=usage.output if usage is not None else None,
        cached_input_tokens=usage.cached_input if usage is not None else None,
        cost_usd=exchange.cost / 1_000_000 if usage is not None else None,
        duration_s=duration_s,
        time_to_first_token_s=waited and (waited * 1e6 + 0.5) // 1 / 1e6,
        overhead_s=overhead_s,
        store_s=in_store and (in_store * 1e6 + 0.5) // 1 / 1e6,
    )
    if parsed is not None and parsed.user:
        line.user = parsed.user[:SHOWN_CHARACTERS]
    return line


@lru_cache(_CLIENTS_REMEMBERED)
def _client_fields(client_ip: str, user_agent: str) -> bytes:
    """The members of the line, each with its comma."""
    fields = _ClientFields(client_ip=client_ip or None, user_agent=shortened(user_agent) or None)
    encoded = _ENCODER.encode(fields)[_MEMBERS]
    return encoded and encoded + b","


def _members(fields: msgspec.Struct) -> bytes:
    """The members of a line that these fields are, each with a comma in front of it."""
    encoded = _ENCODER.encode(fields)[_MEMBERS]
    return encoded and b"," + encoded


def _conversation_of(request: IncomingRequest, trace: RequestTrace | None) -> bytes:
    """The members that say what the client calls the request a part of."""
    headers, head = request.headers, request.head
    if trace is None and not head.names_session and not head.names_trace:
        return b""
    fields = _ConversationFields()
    if head.names_session and (session := first_of(SESSION_HEADERS, headers)):
        fields.session = shortened(session)
        # What names its agent or its turn names its session, too.
        if helper := first_of(AGENT_HEADERS, headers):
            fields.agent = shortened(helper)
        if turn := _turn(headers):
            fields.turn = shortened(turn)
    if trace is not None:
        fields.trace_id = trace.trace_id
    elif head.names_trace and (named := _TRACE_ID.match(headers[TRACE_HEADER])):
        fields.trace_id = named[1]
    return _members(fields)


def _upstream_id(headers: Mapping[str, str]) -> str | None:
    if _UPSTREAM_IDS.isdisjoint(headers):
        return None
    return shortened(first_of(UPSTREAM_ID_HEADERS, headers)) or None


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


def _outcome_of(exchange: Exchange, failure: Failure | None) -> bytes:
    """The members that say how the request failed, or what was unusual about it."""
    if failure is None:
        reservation = exchange.reservation
        is_limited = reservation is not None and (reservation.capped or reservation.would_refuse)
        if not (is_limited or exchange.redacted or len(exchange.attempts) > 1):
            return b""
    elif isinstance(error := exchange.error, LimitRefusal) and error.written is not None:
        return error.logged or _refused_by_limit(error, error.written)
    return _members(_outcome_fields(exchange, failure))


def _outcome_fields(exchange: Exchange, failure: Failure | None) -> _OutcomeFields:
    fields, reservation = _OutcomeFields(), exchange.reservation
    if reservation is not None:
        if reservation.capped:
            fields.output_cap = exchange.quota_output_cap()
        if reservation.would_refuse:
            fields.shadow_refused = [limit.name for limit in reservation.would_refuse]
    if exchange.redacted:
        fields.redacted = exchange.redacted
    if failure is not None:
        _add_failure(fields, exchange, failure)
    elif len(exchange.attempts) > 1:
        fields.attempts = _attempts_of(exchange)
    return fields


def _add_failure(fields: _OutcomeFields, exchange: Exchange, failure: Failure) -> None:
    fields.blame, fields.code = failure
    if not exchange.request.endpoint.name:
        # The path without its query, which can carry a key.
        fields.method, fields.path = shortened(exchange.request.method), shortened(exchange.request.path)
    if exchange.refused_key:
        fields.refused_key = exchange.refused_key
    _add_reason(fields, exchange)
    if exchange.attempts:
        fields.attempts = _attempts_of(exchange)


def _refused_by_limit(error: LimitRefusal, written: WrittenRefusal) -> bytes:
    """The same of a refusal by a limit, which is written once for all requests that are refused alike at one time, and
    except for the time that is left as often as it is repeated: nothing was sent for any of them."""
    if not written.logged:
        shadows = error.refusal.would_refuse if error.refusal is not None else ()
        fields = _OutcomeFields(
            shadow_refused=[limit.name for limit in shadows] or None,
            code=error.code,
            blame=error.blame,
            limit=msgspec.Raw(_ENCODER.encode({name: written.limit[name] for name in _LIMIT_FIELDS})),
        )
        written.logged = _members(fields)[:-1]
    error.logged = b'%b,"retry_after_ms":%d}' % (written.logged, error.retry_after_ms or 0)
    return error.logged


def _add_reason(fields: _OutcomeFields, exchange: Exchange) -> None:
    """What the code of a refusal leaves open. Of the place of a fault its first name alone, and only one that the
    gateway itself reads: the others are what the client has written."""
    match exchange.error:
        case KeyUnknown(why=why) | KeyExpired(why=why):
            fields.refused_because = why
        case ModelUnknown(why=why, asked=asked):
            fields.refused_because = why
            fields.asked_model = shortened(asked) or None
        case TooLarge(size=size):
            fields.body_bytes = size
        case FieldInvalid(param=str(param)):
            name = _FIRST_NAME.match(param)
            if name is not None and name[0] in exchange.request.endpoint.names_read:
                fields.param = name[0]
        case InternalError() as error:
            cause = error.__cause__ or error
            fields.error = type(cause).__qualname__
            fields.stack = _stack(cause)


def _attempts_of(exchange: Exchange) -> list[str]:
    return [f"{upstream}: {outcome}" for upstream, outcome in exchange.attempts]


def _stack(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _in_colours() -> Callable[[bytes], bytes]:
    """What makes of a line in JSON the one that a terminal shows."""
    # A gateway whose log goes to no terminal does without these megabytes.
    import structlog

    colours = structlog.dev.ConsoleRenderer(timestamp_key="time", colors=True, sort_keys=False)

    def render(line: bytes) -> bytes:
        fields: dict[str, Any] = msgspec.json.decode(line)
        return f"{colours(None, fields['level'], _printable(fields))}\n".encode(errors="backslashreplace")

    return render


@remembered(1)
def _date_and_time(second: int) -> bytes:
    """What a line begins with, up to the point in front of its microsecond."""
    return time.strftime('{"time":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second)).encode()


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
