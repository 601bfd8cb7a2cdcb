"""What the gateway judges is what an upstream reads, whichever parser it has.

Requests are generated to be read differently: each is a usual one with oddities in it. What the gateway lets through is
given, as it would be sent, to real parsers. None may find another value of a field that the gateway judged.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.endpoints import CHAT, TRANSCRIPTIONS, Endpoint
from gateway.core.errors import GatewayError
from gateway.core.form import Form
from gateway.core.request import ParsedRequest
from gateway.core.snapshot import Model
from gateway.stages.parse_request import parse_request
from gateway.stages.read_body import read_body
from tests.parsers.servers import (
    OtherProcess,
    Reading,
    other_processes,
    python_form_readings,
    python_json_reading,
)
from tests.unit.fakes import CALLER, GivenBody, incoming_of, snapshot_with

CHEAP, DEAR = "cheap-1", "dear-1"
SNAPSHOT = snapshot_with(Model(CHEAP, ()), Model(DEAR, ()))
WRITTEN = "0" * 64
FORM_FIELDS = ("model", "stream", "user", "n")
JSON_FIELDS = (*FORM_FIELDS, "max_tokens", "max_completion_tokens")
THOROUGH = settings(
    max_examples=3_000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[OtherProcess]]:
    with other_processes(tmp_path_factory.mktemp("parsers")) as processes:
        yield processes


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


class Sent(msgspec.Struct):
    """A request as it goes to an upstream, and what the gateway judged it by."""

    parsed: ParsedRequest
    body: bytes
    judged: dict[str, Any]


async def sent(body: bytes, content_type: str, endpoint: Endpoint) -> Sent | None:
    """None where the gateway refuses it."""
    try:
        taken = await read_body(incoming_of(GivenBody(body), endpoint=endpoint, content_type=content_type), _boundary)
        parsed = parse_request(taken, endpoint, CALLER, SNAPSHOT)
        pieces = [parsed.members.body]
        while parsed.rest is not None and (piece := await parsed.rest.piece()):
            pieces.append(piece)
    except GatewayError:
        return None
    if isinstance(taken, Form):
        judged: dict[str, Any] = {name: taken.fields.text(name) for name in taken.fields.spans}
    else:
        judged = {name: msgspec.json.decode(parsed.members.value(name) or b"null") for name in JSON_FIELDS}
        judged["asks_usage"] = parsed.asks_usage
    assert judged["model"] == parsed.asked_model
    return Sent(parsed, b"".join(pieces), judged)


def _boundary() -> str:
    return WRITTEN


# Forms.

BOUNDARY = "b"
NAMES = [
    *("model", "model", "stream", "user", "n", "prompt", "file", "MODEL", "Model", "model[]", "model[0]", "model.x"),
    *(
        "[model]",
        "model-",
        "_charset_",
        "__proto__",
        "__proto__[model]",
        "constructor",
        "ſtream",
        "mode%6c",
        "a[model]",
    ),
    *("model\\", 'mo\\"del', "model ", " model", "mod\tel", "", "temperature", "user[name]", "x;name=model", "x]model"),
]
VALUES = [
    CHEAP,
    DEAR,
    "true",
    "1",
    "ann",
    "punycode",
    "UTF-16",
    "",
    f"{DEAR}\r\n",
    f"\r\n--{BOUNDARY}x",
    "é",
    "\ufeff1",
]
MORE = [
    *(
        "",
        "",
        "",
        "",
        '; filename="a.wav"',
        "; filename=a",
        '; filename=""',
        "; filename*=utf-8''model",
        "; name*=utf-8''model",
    ),
    *('; name="model"', "; name=model", '; x="a;name=model"', '; filename="a\\"; name=model; x="', "; NAME=model", ";"),
    *(
        '; filename="x; name=model"',
        "; filename=\"x\"; filename*=utf-8''%22%3b%20name=model",
        "; filename=model; size=3",
    ),
    *('; filename="%22; name=%22model"', "; charset=utf-16", '; filename="é\\"', "; filename*0=a; filename*1=b"),
]
HEADERS = [
    *(
        "",
        "",
        "",
        "",
        "\r\nContent-Type: text/plain",
        "\r\nContent-Type: application/octet-stream",
        "\r\nContent-Length: 3",
    ),
    *("\r\nContent-Type: text/plain; charset=utf-16", "\r\nContent-Transfer-Encoding: base64", "\r\nX: y\r\n z: q"),
    *("\r\nContent-Transfer-Encoding: quoted-printable", "\r\nContent-Type: multipart/mixed; boundary=c", "\nX: y"),
    *(
        '\r\nContent-Disposition: form-data; name="model"',
        "\r\nContent-Type: application/json",
        "\r\nContent-Type: a/b; charset=punycode",
    ),
]
KINDS = ["form-data", "form-data", "form-data", "form-data", "FORM-DATA", "attachment", "form-data ", "file"]
TYPES = [
    *[f"multipart/form-data; boundary={BOUNDARY}"] * 8,
    f"Multipart/Form-Data;BOUNDARY={BOUNDARY}; charset=utf-8",
    f"multipart/form-data; boundary={BOUNDARY}; charset=punycode",
    f"multipart/form-data; boundary={BOUNDARY}; boundary=c",
    f"multipart/form-data; boundary={BOUNDARY}; boundary*=utf-8''c",
    f'multipart/form-data; boundary="{BOUNDARY}"',
    f"multipart/mixed; boundary={BOUNDARY}",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-16",
]
BREAKS = [*["\r\n"] * 12, "\n", "\r", "\r\n\r\n"]


@st.composite
def parts(draw: st.DrawFn, *, odd: bool) -> str:
    def one_of(choices: list[str], usual: str) -> str:
        return draw(st.sampled_from(choices)) if odd else usual

    name = draw(st.sampled_from(NAMES if odd else [*FORM_FIELDS[1:], "prompt", "file"]))
    quote = one_of(['"', '"', '"', "", "'"], '"')
    disposition = f"Content-Disposition: {one_of(KINDS, 'form-data')}; name={quote}{name}{quote}{one_of(MORE, '')}"
    value = draw(st.sampled_from(VALUES)) if odd or name == "prompt" else {"stream": "true", "n": "1"}.get(name, "ann")
    return f"{disposition}{one_of(HEADERS, '')}\r\n\r\n{value}"


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, str]:
    model = f'Content-Disposition: form-data; name="model"\r\n\r\n{CHEAP}'
    chosen = [model, *draw(st.lists(parts(odd=False), max_size=1)), *draw(st.lists(parts(odd=True), max_size=2))]
    text = draw(st.sampled_from(["", "", "", "", "\r\n", "preamble\r\n"]))
    for part in draw(st.permutations(chosen)):
        text += f"--{BOUNDARY}\r\n{part}{draw(st.sampled_from(BREAKS))}"
    text += f"--{BOUNDARY}--" + draw(st.sampled_from(["\r\n", "", "\r\nepilogue", f"\r\n--{BOUNDARY}\r\n{model}"]))
    large = draw(st.sampled_from([False, False, False, True]))
    body = text.encode()
    if large:
        file = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode()
        body = file + b"x" * 70_000 + b"\r\n" + body
    return body, draw(st.sampled_from(TYPES))


@THOROUGH
@given(forms())
def test_no_parser_finds_another_field_in_a_form(
    others: list[OtherProcess], runner: asyncio.Runner, made: tuple[bytes, str]
) -> None:
    given_ = runner.run(sent(*made, TRANSCRIPTIONS))
    if given_ is None or given_.parsed.content_type == "application/json":
        return
    readings = python_form_readings(runner, given_.parsed.content_type, given_.body)
    for other in others:
        readings += other.readings(given_.parsed.content_type, given_.body)
    for parser, found in readings:
        assert found is not None, f"{parser} refuses what the gateway wrote"
        judged = {name: [text] for name, text in given_.judged.items()}
        assert {name: found[name] for name in found if name.casefold() in FORM_FIELDS} == judged, parser


# JSON.

MEMBERS = [
    *(
        '"model"',
        '"model"',
        '"Model"',
        '"MODEL"',
        '"mode\\u006c"',
        '"m\\u004fdel"',
        '"stream"',
        '"Stream"',
        '"\\u017ftream"',
    ),
    *(
        '"ſtream"',
        '"user"',
        '"USER"',
        '"n"',
        '"N"',
        '"max_tokens"',
        '"max_to\\u212aens"',
        '"Max_Tokens"',
        '"max_completion_tokens"',
    ),
    *('"stream_options"', '"Stream_Options"', '"__proto__"', '"constructor"', '"model\\u0000"', '" model"', '"mоdel"'),
    *(
        '"+AG0-odel"',
        '"mode\\ud800l"',
        '"messages"',
        '"Messages"',
        '"\\ufeffmodel"',
        '"model\\u200b"',
        '"response_format"',
    ),
]
TEXTS = [
    *(
        f'"{CHEAP}"',
        f'"{DEAR}"',
        '"dear\\u002d1"',
        "true",
        "false",
        "null",
        "1",
        "2",
        "1.0",
        "1e0",
        "-1",
        '"1"',
        '"ann"',
    ),
    *("1E400", "{}", "[]", '"\\ud83d"', '"\\ud83d\\ude00"', '{"include_usage":true}', '{"include_usage":false}'),
    *(
        '{"include_usage":true,"Include_Usage":false}',
        '{"include_usage":true,"include_usage":false}',
        '{"model":"dear-1"}',
    ),
    *('{"INCLUDE_U\\u017fAGE":true}', "[{}]", "NaN", "01", "9007199254740993"),
]
ENDS = [*[("", "")] * 16, ("\ufeff", ""), (" ", "\n"), ("", "{}"), ("", "\0")]
JSON_TYPES = [
    *["application/json"] * 4,
    "application/json; charset=utf-7",
    "application/json; charset=utf-16",
    "application/x-www-form-urlencoded",
    "text/plain",
    "",
]


@st.composite
def members(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(MEMBERS))
    fitting = {"stream": "true", "user": '"ann"', "n": "2", "stream_options": '{"include_usage":true}'}.get(
        name[1:-1], "5"
    )
    text = fitting if draw(st.booleans()) else draw(st.sampled_from(TEXTS))
    return f"{name}{draw(st.sampled_from(['', '', '', ' ', chr(0x85)]))}:{text}"


@st.composite
def objects(draw: st.DrawFn) -> tuple[bytes, str]:
    usual = [f'"model":"{CHEAP}"', '"messages":[{"role":"user","content":"hi"}]']
    odd = [draw(members()) for _ in range(draw(st.integers(0, 3)))]
    text = "{" + ",".join(draw(st.permutations(usual + odd))) + "}"
    begin, end = draw(st.sampled_from(ENDS))
    encoding = draw(st.sampled_from([*["utf-8"] * 18, "utf-16", "utf-7"]))
    return (begin + text + end).encode(encoding), draw(st.sampled_from(JSON_TYPES))


@THOROUGH
@given(objects())
def test_no_parser_finds_another_member_in_json(
    others: list[OtherProcess], runner: asyncio.Runner, made: tuple[bytes, str]
) -> None:
    given_ = runner.run(sent(*made, CHAT))
    if given_ is None:
        return
    assert given_.parsed.content_type == "application/json"
    readings = [python_json_reading(given_.body)]
    for other in others:
        readings += other.readings("application/json", given_.body)
    for reading in readings:
        _assert_same_members(given_, reading)


def _assert_same_members(given_: Sent, reading: Reading) -> None:
    if reading.found is None:
        return  # A parser that refuses a request serves nothing.
    for name in JSON_FIELDS:
        (value,) = reading.found.get(name, [None])
        assert _comparable(value) == _comparable(given_.judged[name]), (reading.parser, name)
    (options,) = reading.found.get("stream_options", [None])
    assert bool(options and options.get("include_usage")) == given_.judged["asks_usage"], reading.parser


def _comparable(value: Any) -> Any:
    """Half a surrogate pair is what each parser makes of it."""
    return json.dumps(value).replace('\\ud83d"', '\\ufffd"') if isinstance(value, str) else value
