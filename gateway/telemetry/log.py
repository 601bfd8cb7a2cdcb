"""The log: one line for each request at its end, and what else an operator should know.

JSON lines in production, coloured lines on a terminal, both through structlog. Never in it: a prompt,
an answer, a key, an upstream's secret. Writing never raises: a line that cannot be written is dropped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from gateway.core.errors import GatewayError, InternalError
from gateway.core.exchange import Exchange

SHOWN_CHARACTERS = 200
"""What a client may add to a line: its `user` is cut there."""

_LIMIT_FIELDS = ("name", "scope", "meter", "per", "amount", "used", "held", "requested", "retry_after_ms")
"""What a line tells of a limit that refuses. Whom it binds stands in the line itself."""


class Log:
    """Events are short and lower case; what varies goes into fields, with the unit in the name. The fields of
    `always` stand in every line."""

    def __init__(self, write: Callable[[bytes], None], *, terminal: bool = False, **always: Any) -> None:
        self._log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            _Lines(write),
            processors=_processors(terminal),
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            context_class=dict,
            cache_logger_on_first_use=True,
        ).bind(**always)

    def info(self, event: str, **fields: Any) -> None:
        self._log.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        self._log.error(event, **fields)

    def defect(self, event: str, error: BaseException, **fields: Any) -> None:
        """An exception that nobody expects: its class and where it arose. Its text is left out,
        since the text of a foreign exception can quote what a client sent."""
        self._log.error(event, error=type(error).__qualname__, stack=_stack(error), **fields)

    def exchange(self, x: Exchange) -> None:
        """The canonical line of a request. Fields that the request never came to have are left out."""
        fields: dict[str, Any] = {"request_id": x.request.request_id, "endpoint": x.request.endpoint.name}
        if x.caller is not None:
            fields["team"] = x.caller.team
            fields["key"] = x.caller.key_id
        if x.parsed is not None:
            _tell_envelope(fields, x)
        if x.target is not None:
            fields["upstream"] = x.target.upstream.name
        fields["status"] = x.status
        if x.usage is not None:
            _tell_usage(fields, x)
        _tell_times(fields, x)
        failure = x.failure
        if failure is not None:
            fields["code"], fields["blame"] = failure.code, failure.blame
        if x.error is not None:
            _tell_error(fields, x.error)
        if x.attempts and (failure is not None or len(x.attempts) > 1):
            fields["attempts"] = [f"{upstream}: {outcome}" for upstream, outcome in x.attempts]
        self._log.info("request", **fields)


def configure(fd: int | None = None, **always: Any) -> Log:
    """The process's log on a file descriptor (standard output if None), and the standard library's
    logging led into it from warnings up, since aiohttp and asyncio speak through that."""
    out = sys.stdout.fileno() if fd is None else fd
    log = Log(lambda line: write_whole(out, line), terminal=os.isatty(out), **always)
    root = logging.getLogger()
    root.handlers = [_FromLibraries(log)]
    root.setLevel(logging.WARNING)
    return log


def write_whole(fd: int, line: bytes) -> None:
    while line:
        line = line[os.write(fd, line) :]


def _tell_envelope(fields: dict[str, Any], x: Exchange) -> None:
    parsed = x.parsed
    if parsed is None:
        return
    fields["model"] = parsed.model.name
    fields["stream"] = parsed.stream
    if parsed.user:
        fields["user"] = parsed.user[:SHOWN_CHARACTERS]


def _tell_usage(fields: dict[str, Any], x: Exchange) -> None:
    usage = x.usage
    if usage is None:
        return
    fields["input_tokens"] = usage.input
    fields["output_tokens"] = usage.output
    fields["cached_input_tokens"] = usage.cached_input
    fields["usage_source"] = usage.source
    fields["cost_usd"] = x.cost / 1_000_000


def _tell_times(fields: dict[str, Any], x: Exchange) -> None:
    duration = x.ended - x.request.at
    fields["duration_s"] = round(duration, 6)
    if x.first_byte_at is not None:
        fields["time_to_first_token_s"] = round(x.first_byte_at - x.request.at, 6)
    fields["overhead_s"] = round(max(0.0, duration - x.upstream_seconds), 6)


def _tell_error(fields: dict[str, Any], error: GatewayError) -> None:
    if error.limit is not None:
        fields["limit"] = {name: error.limit[name] for name in _LIMIT_FIELDS}
    if isinstance(error, InternalError):
        cause = error.__cause__ or error
        fields["error"] = type(cause).__qualname__
        fields["stack"] = _stack(cause)


def _stack(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _processors(terminal: bool) -> list[Processor]:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    if terminal:
        colours = structlog.dev.ConsoleRenderer(timestamp_key="time", colors=True, sort_keys=False)
        return [structlog.processors.add_log_level, stamp, _printable, colours]
    return [stamp, _as_json]


def _as_json(_logger: Any, level: str, fields: EventDict) -> bytes:
    return _ENCODER.encode({"time": fields.pop("time"), "level": level, "event": fields.pop("event"), **fields})


_ENCODER = msgspec.json.Encoder(enc_hook=str)


def _printable(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """On a terminal a control character acts: it is shown, not sent."""
    return {name: _shown(value) for name, value in fields.items()}


def _shown(value: Any) -> Any:
    if isinstance(value, str) and not value.isprintable():
        return value.encode("unicode_escape").decode()
    return value


class _Lines:
    """The end of the pipeline: a rendered line becomes bytes and leaves. What cannot leave is dropped,
    since a full disk or a closed pipe is no reason to fail a request."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def info(self, line: bytes | str) -> None:
        whole = line if isinstance(line, bytes) else line.encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            self._write(whole + b"\n")

    warning = error = info


class _FromLibraries(logging.Handler):
    """What aiohttp and asyncio say, as lines of this log."""

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
