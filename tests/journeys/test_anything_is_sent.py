"""Whatever is sent, nothing makes a 500, a traceback or a log line with a prompt or a key in it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from random import Random
from typing import Any

import pytest

from gateway.core.endpoints import ENDPOINTS
from gateway.demo import DemoScript, DemoUpstream
from tests.raw_client import http_chat, http_head, raw_client
from tests.whole_gateway import KEY, WholeGateway, chat_body, whole_gateway

SECRET = "xyzzy-prompt"
ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**40, 0.5, -0.0, 1e308, "", "x", "\ud800", "\x00"),
    *([], {}, [[]], [None], {"": ""}, {"include_usage": 1}, ["a"] * 5, "é" * 300, [{"role": "user"}] * 3),
)
CHAT = b"/v1/chat/completions"
PATHS = tuple(path.encode() for path in ENDPOINTS)
FIELDS = (
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stream"),
    *("stream_options", "stop", "n", "user", "tools", "response_format", "input", "prompt", "system", "", "zzz"),
)
ODD_HEADERS = (
    *({"authorization": "Bearer \udcff"}, {"authorization": ""}, {"x-request-id": "\udcfe" * 9}, {"accept": "\t"}),
    *({"user-agent": "a\tb"}, {"user-agent": "\udce9"}, {"content-type": "text/plain; charset=utf-16"}),
    *(
        {"content-encoding": "gzip"},
        {"content-encoding": "br"},
        {"content-encoding": "nonsense"},
        {"content-length": "0"},
    ),
    *(
        {"content-encoding": "zstd"},
        {"content-encoding": "deflate"},
        {"content-length": "7"},
        {"connection": "upgrade"},
    ),
    *({"expect": "100-continue"}, {"expect": "the unexpected"}, {"transfer-encoding": "gzip, chunked"}, {"te": "x"}),
    *({"connection": "upgrade", "upgrade": "websocket"}, {"upgrade": "h2c"}, {"host": ""}, {"traceparent": "\udc80"}),
    *({"openai-beta": "x" * 9_000}, {"cookie": "a=b"}, {"accept-encoding": "gzip"}, {"range": "bytes=0-1"}),
)
ODD_PATHS = (
    *(
        "*",
        "/",
        "//",
        "/v1/models/%",
        "/v1/models/%00",
        "/v1/models/%ff",
        "/v1/models/../..",
        "/v1/models/" + "x" * 5000,
    ),
    *(
        "http://[::1/v1/models",
        "http://other:99999/v1/models",
        "/v1/models?%zz",
        "/v1/models#a",
        "/\udcff",
        "example.com:443",
    ),
    *("/v1/limits", "/v1/limits/x", "/v1/models/", "/v1/chat%2Fcompletions", "/%76%31/models", "/v1/models/a%0d%0ab"),
)


@pytest.mark.parametrize("seed", range(4))
async def test_hundreds_of_strange_requests_make_no_error_of_ours(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    dice = Random(seed)
    limits = [{"tokens": 10**9, "per": "month"}, {"requests": 10**6, "per": "minute"}, {"usd": 1000, "per": "day"}]
    model = {"price": {"input": 1, "output": 2}, "max_output_tokens": 1000}
    async with (
        DemoUpstream(DemoScript(chunks=3)) as upstream,
        whole_gateway(upstream.base_url, team={"limits": limits}, model=model) as gateway,
    ):
        for _ in range(150):
            data = _strange(dice).replace(CHAT, dice.choice(PATHS), 1)
            assert 500 not in await _statuses(gateway, data), data
        assert (await gateway.chat()).status == 200
        await upstream.truth.quiet()
        told = json.dumps(gateway.lines) + json.dumps(await gateway.metrics())
        assert SECRET not in told
        assert KEY not in told
        assert "internal_error" not in told
        assert "stack" not in told
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def _statuses(gateway: WholeGateway, data: bytes) -> list[int]:
    """Those of all answers on one connection. What follows the data ends a body that it left open."""
    told = b""
    async with raw_client(gateway.port) as client:
        client.send(data)
        with contextlib.suppress(TimeoutError, ConnectionError):
            told += await client.read(2**16, patience_s=0.1)
        client.send(b"\r\n0\r\n\r\n" + b"x" * 20_000 + b"\r\n\r\n")
        with contextlib.suppress(TimeoutError, ConnectionError):
            told += await client.rest(patience_s=1)
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", told)]


def _strange(dice: Random) -> bytes:
    headers = {"host": "gateway", **(dice.choice(ODD_HEADERS) if dice.random() < 0.3 else {})}
    match dice.randrange(6):
        case 0:
            path = dice.choice(ODD_PATHS)
            given = {"authorization": f"Bearer {KEY}", **headers}
            return http_head(f"{dice.choice(('GET', 'POST', 'OPTIONS', 'HEAD', 'PUT'))} {path} HTTP/1.1", given)
        case 1:
            return _mutated(http_chat(headers=headers, **_odd_fields(dice)), dice)
        case 2:
            body = _mutated(json.dumps(_body(dice)).encode(), dice)
            return http_chat(body, headers=headers)
        case 3:
            return http_chat(dice.randbytes(dice.randrange(200)), headers=headers)
        case _:
            return http_chat(json.dumps(_body(dice)).encode(), headers=headers)


def _body(dice: Random) -> dict[str, Any]:
    return chat_body(messages=[{"role": "user", "content": SECRET}], **_odd_fields(dice))


def _odd_fields(dice: Random) -> dict[str, Any]:
    fields = {dice.choice(FIELDS): dice.choice(ODD_VALUES) for _ in range(dice.randrange(3))}
    return {name: value for name, value in fields.items() if name != "messages"}


def _mutated(data: bytes, dice: Random) -> bytes:
    """A few bytes taken out, put in, changed or doubled."""
    mutant = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(mutant))
        match dice.randrange(4):
            case 0:
                del mutant[place : place + dice.randint(1, 5)]
            case 1:
                mutant[place:place] = dice.randbytes(dice.randint(1, 3))
            case 2:
                mutant[place] = dice.randrange(256)
            case _:
                mutant[place:place] = mutant[place : place + 20]
    return bytes(mutant)
