"""What stands in the log, what never does, and that a log that cannot be written hurts nobody."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.core.endpoints import UNKNOWN
from gateway.core.errors import FieldInvalid, InternalError, ModelUnknown, UpstreamUnreachable
from gateway.core.exchange import Exchange
from gateway.core.limit_status import LimitHeaders, refusal_error
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.refusals import Fault
from gateway.telemetry.log import SHOWN_CHARACTERS, Log, configure
from tests.unit.fakes import ScriptedAnswer, with_headers
from tests.unit.telemetry.exchanges import CALLER, MONTHLY, SeenTally, answered, refuse, unheard

SECRETS = ("a prompt", "gw_client-secret", "upstream-secret")


def lines_of(*exchanges: Exchange, terminal: bool = False) -> list[bytes]:
    written: list[bytes] = []
    log = Log(written.append, terminal=terminal)
    for x in exchanges:
        log.exchange(x)
    return written


def line_of(x: Exchange) -> dict[str, Any]:
    (line,) = lines_of(x)
    told: dict[str, Any] = json.loads(line)
    return told


def test_an_answered_request_tells_everything_in_one_line() -> None:
    told = line_of(answered())
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "info",
        "event": "request",
        "request_id": "req-1",
        "endpoint": "chat.completions",
        "team": "search",
        "key": "0123456789ab",
        "model": "openai/gpt-oss-120b",
        "stream": True,
        "user": "ann",
        "upstream": "inducta",
        "status": 200,
        "input_tokens": 120,
        "output_tokens": 300,
        "cached_input_tokens": 20,
        "usage_source": "reported",
        "cost_usd": 1.234567,
        "duration_s": 2.0,
        "time_to_first_token_s": 0.5,
        "overhead_s": 0.002,
    }


def test_a_line_tells_who_asked_and_how_the_provider_calls_it() -> None:
    x = answered()
    headers = {
        "user-agent": "claude-cli/2.1 \udcff" + "x" * SHOWN_CHARACTERS,
        "x-claude-code-session-id": "s-1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    request = with_headers(x.request, headers)
    x.request = msgspec.structs.replace(request, client_ip="192.0.2.1", path="/v1/chat/completions")
    x.request.body.size = 8_000
    x.response = ScriptedAnswer(headers={"request-id": "req_upstream"})
    told = line_of(x)
    assert told["user_agent"] == ("claude-cli/2.1 \ufffd" + "x" * SHOWN_CHARACTERS)[:SHOWN_CHARACTERS]
    assert (told["client_ip"], told["session"], told["request_bytes"]) == ("192.0.2.1", "s-1", 8_000)
    assert told["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert told["upstream_request_id"] == "req_upstream"
    assert not {"method", "path"} & told.keys()


def test_a_request_to_no_endpoint_tells_its_method_and_path() -> None:
    x = unheard()
    x.request = msgspec.structs.replace(x.request, endpoint=UNKNOWN, method="GET", path="/nothing" + "/x" * 500)
    told = line_of(x)
    assert (told["method"], told["path"]) == ("GET", ("/nothing" + "/x" * 500)[:SHOWN_CHARACTERS])


def test_an_output_that_a_quota_capped_is_reported() -> None:
    x = answered()
    assert x.reservation is not None
    x.reservation = msgspec.structs.replace(x.reservation, granted=70, capped=True)
    assert line_of(x)["output_cap"] == 70


def test_what_a_shadow_limit_would_have_refused_is_named() -> None:
    x = answered()
    assert x.reservation is not None
    assert "shadow_refused" not in line_of(x)
    x.reservation = msgspec.structs.replace(x.reservation, would_refuse=(MONTHLY,))
    assert line_of(x)["shadow_refused"] == ["month"]


def test_how_long_the_store_took_is_reported() -> None:
    x = answered()
    x.store_seconds = 0.000_412_3
    assert line_of(x)["store_s"] == 0.000412


def test_a_refused_key_is_named_by_its_hash() -> None:
    x = unheard()
    x.refused_key = "89abcdef0123"
    assert line_of(x)["refused_key"] == "89abcdef0123"


@pytest.mark.parametrize(
    ("param", "shown"),
    [
        ("messages[3].role", "messages"),
        ("max_tokens", "max_tokens"),
        ("a prompt", None),
        ("gw_client-secret", None),
        ("x" * 500, None),
        ("", None),
        (None, None),
    ],
)
def test_of_the_member_at_fault_only_a_name_that_the_gateway_reads_is_there(
    param: str | None, shown: str | None
) -> None:
    x = unheard()
    x.status, x.error = 400, FieldInvalid("It is wrong.", param=param)
    assert line_of(x).get("param") == shown


@pytest.mark.parametrize(("asked", "shown"), [("gpt-9", "gpt-9"), ("é" * 300, "é" * 200), ("\udcff", "?"), ("", None)])
def test_a_model_that_is_not_there_is_named(asked: str, shown: str | None) -> None:
    x = unheard()
    x.status, x.error = 404, ModelUnknown("There is none.", param="model", asked=asked)
    assert line_of(x).get("asked_model") == (shown and shown.replace("?", "\ufffd"))


def test_what_always_holds_stands_in_every_line() -> None:
    written: list[bytes] = []
    log = Log(written.append, worker=2)
    log.info("serving")
    log.exchange(answered())
    assert [json.loads(line)["worker"] for line in written] == [2, 2]


def test_a_request_refused_at_the_door_tells_what_is_known() -> None:
    told = line_of(unheard())
    assert told["status"] == 401
    assert not {"team", "key", "model", "upstream", "input_tokens", "time_to_first_token_s"} & told.keys()


def test_a_refusal_names_its_limit_and_how_it_stood() -> None:
    x = answered()
    limit = Limit("team minute", Scope.TEAM, "search", Meter.TOKENS, Per.MINUTE, 20, 20, "search")
    x.attempts = ()
    refuse(x, limit, 20)
    told = line_of(x)
    assert told["code"] == "rate_limit_exceeded"
    figures = {"amount": 20, "used": 20, "held": 0, "requested": 10, "retry_after_ms": 5_000}
    assert told["limit"] == {"name": "team minute", "scope": "team", "meter": "tokens", "per": "minute", **figures}
    assert "attempts" not in told


def test_a_refusal_that_is_repeated_tells_what_is_its_own() -> None:
    shadow = Limit("trial", Scope.TEAM, "search", Meter.REQUESTS, Per.DAY, 5, 5, "search")
    x = answered()
    refuse(x, MONTHLY, 1_000)
    assert x.refusal is not None
    first = msgspec.structs.replace(x.refusal, would_refuse=(shadow,))
    headers = LimitHeaders(first.limit_statuses.limits)
    told = []
    for left_ms, session in [(5_000, "one"), (4_900, "two"), (4_900, "")]:
        x.refusal = msgspec.structs.replace(first, retry_after_ms=left_ms, repeats=first)
        x.error, x.store_seconds = refusal_error(x.refusal, headers), 0.0
        sent = {"x-session-id": session} if session else {}
        x.request = msgspec.structs.replace(with_headers(x.request, sent), request_id=f"req-{session}")
        told.append(line_of(x))
    assert [(each["limit"].pop("retry_after_ms"), each.get("session")) for each in told] == [
        (5_000, "one"),
        (4_900, "two"),
        (4_900, None),
    ]
    assert [each["request_id"] for each in told] == ["req-one", "req-two", "req-"]
    last = {"code": "insufficient_quota", "blame": "policy", "shadow_refused": ["trial"], "store_s": 0.0}
    assert [last.items() <= each.items() for each in told] == [True] * 3
    assert told[0]["limit"] == told[2]["limit"]


def test_an_upstreams_failure_tells_every_attempt() -> None:
    x = answered()
    x.status, x.error = 502, UpstreamUnreachable("Refused.")
    x.attempts = (("inducta", "unreachable"), ("spare", "unreachable"))
    told = line_of(x)
    assert told["attempts"] == ["inducta: unreachable", "spare: unreachable"]
    assert told["blame"] == "upstream"


@pytest.mark.parametrize(
    ("status", "fault", "blame"),
    [(400, Fault.CALLER, "caller"), (429, Fault.PROVIDER, "upstream"), (500, Fault.PROVIDER, "upstream")],
)
def test_an_upstreams_own_error_is_told_as_passed_on(status: int, fault: Fault, blame: str) -> None:
    x = answered()
    x.tally = SeenTally(fault)
    x.status, x.attempts = status, (("inducta", str(status)),)
    told = line_of(x)
    assert (told["code"], told["blame"]) == ("passed_on", blame)
    assert told["attempts"] == [f"inducta: {status}"]


def test_a_success_at_the_second_attempt_tells_both() -> None:
    x = answered()
    x.attempts = (("inducta", "timeout"), ("spare", "ok"))
    assert line_of(x)["attempts"] == ["inducta: timeout", "spare: ok"]


def test_a_defect_tells_its_place_and_not_its_text() -> None:
    x = answered()
    try:
        raise KeyError("a prompt")
    except KeyError as cause:
        x.error = InternalError("Try again.")
        x.error.__cause__ = cause
    told = line_of(x)
    assert told["error"] == "KeyError"
    assert "test_log.py" in told["stack"][0]
    assert "a prompt" not in json.dumps(told)


@pytest.mark.parametrize("terminal", [False, True])
def test_no_secret_and_no_prompt_stands_in_a_line(terminal: bool) -> None:
    x = answered()
    x.error = UpstreamUnreachable("Refused.")
    text = b"".join(lines_of(x, unheard(), terminal=terminal)).decode()
    assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("user", ['x"}\n{"event":"request"', "x\r\x1b[2K\x1b[31mforged", "\x00\x85\u2028"])
def test_a_user_cannot_forge_a_line(user: str, terminal: bool) -> None:
    (line,) = lines_of(answered(user=user), terminal=terminal)
    assert line.count(b"\n") == 1
    assert user.encode() not in line
    if not terminal:
        assert json.loads(line)["user"] == user


def test_alike_requests_share_no_field_that_differs() -> None:
    keys = [msgspec.structs.replace(CALLER, key_id=key) for key in ("key-1", "key-2")]
    exchanges = [answered(stream=stream) for stream in (True, False, True, False)]
    for number, x in enumerate(exchanges):
        x.caller, x.status = keys[number // 2], 200 + number
        x.usage = None if number == 3 else x.usage
        headers = {"user-agent": f"agent-{number % 2}"}
        x.request = msgspec.structs.replace(with_headers(x.request, headers), request_id=f"req-{number}")
    told = [json.loads(line) for line in lines_of(*exchanges, *exchanges)]
    assert [line["request_id"] for line in told] == [f"req-{number}" for number in range(4)] * 2
    assert [line["key"] for line in told[:4]] == ["key-1", "key-1", "key-2", "key-2"]
    assert [line["stream"] for line in told[:4]] == [True, False, True, False]
    assert [line["status"] for line in told[:4]] == [200, 201, 202, 203]
    assert [line["user_agent"] for line in told[:4]] == ["agent-0", "agent-1"] * 2
    assert [line.get("usage_source") for line in told[:4]] == ["reported"] * 3 + [None]


def test_a_terminal_is_shown_every_field() -> None:
    (shown,) = lines_of(answered(), terminal=True)
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", shown).decode()
    told = [f"{name}={value}" for name, value in line_of(answered()).items() if name not in ("time", "level", "event")]
    assert not [each for each in told if each not in plain]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \[info +\] request ", plain)


def test_a_huge_user_is_cut() -> None:
    assert line_of(answered(user="u" * 1_000_000))["user"] == "u" * SHOWN_CHARACTERS


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield root
    root.handlers = handlers
    root.setLevel(level)


def test_libraries_log_through_the_same_log(root_logger: logging.Logger) -> None:
    reader, writer = os.pipe()
    configure(writer)
    logging.getLogger("aiohttp.access").info("not this")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    try:
        raise ValueError("a prompt")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request")
    with os.fdopen(reader, "rb") as pipe:
        first, second = (json.loads(pipe.readline()) for _ in range(2))
    assert (first["level"], first["event"], first["logger"]) == ("warning", "slow callback", "asyncio")
    assert (second["event"], second["error"]) == ("Error handling request", "ValueError")
    assert "a prompt" not in json.dumps(second)


LOGS_AND_ENDS = """
import os
from gateway.telemetry.log import configure

log = configure()
for number in range(5_000):
    log.info("line", number=number)
if os.fork() == 0:
    log.info("child")
"""


def test_a_process_that_ends_writes_what_it_has_logged_and_so_does_its_fork() -> None:
    # Python 3.12 and later warn of a fork beside threads; here it is what is tried.
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LOGS_AND_ENDS],
        capture_output=True,
        check=True,
        timeout=60,
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["number"] for line in lines if line["event"] == "line"] == list(range(5_000))
    assert [line["event"] for line in lines].count("child") == 1
    assert ended.stderr == b""


def test_dropped_lines_are_reported_once_the_log_works_again(root_logger: logging.Logger) -> None:
    reader, writer = os.pipe()
    log = configure(writer)
    while not log.dropped():
        log.info("line", text="x" * 10_000)
    with os.fdopen(reader, "rb") as pipe:
        lines = (json.loads(line) for line in pipe)
        report = next(line for line in lines if line["event"] != "line")
    assert (report["level"], report["event"]) == ("warning", "log lines dropped")
    assert report["lines"] == log.dropped()
