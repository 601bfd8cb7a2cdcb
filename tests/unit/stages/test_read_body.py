from __future__ import annotations

import msgspec
import pytest

from gateway.core.endpoints import CHAT, ENDPOINTS, TRANSCRIPTIONS, Endpoint
from gateway.core.errors import BodyUnreadable, CallerError, FieldInvalid, FormUnreadable, TooLarge
from gateway.core.form import Form
from gateway.core.input_size import InputSize
from gateway.core.request import BodyTail, ParsedRequest
from gateway.stages.parse_request import parse_request
from gateway.stages.read_body import BEGINNING_BYTES, read_body
from tests.forms import FORM_TYPE, field, file, form, parts_of
from tests.unit.fakes import CALLER, MODEL, GivenBody, incoming_of, snapshot_with

FORMS = [row for row in ENDPOINTS.values() if row.takes_form]
LARGE = b"x" * 200_000
WRITTEN = "0" * 64
"""The boundary that the gateway writes."""


async def received(
    body: GivenBody, endpoint: Endpoint = TRANSCRIPTIONS, content_type: str = FORM_TYPE, path_model: str = ""
) -> bytes | Form:
    request = incoming_of(body, endpoint=endpoint, content_type=content_type)
    return await read_body(msgspec.structs.replace(request, path_model=path_model), lambda: WRITTEN)


def given_form(*parts: bytes) -> GivenBody:
    body = form(*parts)
    return GivenBody(*(body[begin : begin + 9_000] for begin in range(0, len(body), 9_000)))


async def envelope_of(*parts: bytes) -> ParsedRequest:
    return parse_request(await received(given_form(*parts)), TRANSCRIPTIONS, CALLER, snapshot_with(MODEL))


async def sent_by(parsed: ParsedRequest) -> list[tuple[str, str | None, bytes]]:
    return parts_of(parsed.members.body + await rest_of(parsed), parsed.content_type)


async def rest_of(parsed: ParsedRequest) -> bytes:
    return b"" if parsed.rest is None else await _to_the_end(parsed.rest)


async def _to_the_end(rest: BodyTail) -> bytes:
    pieces = []
    while piece := await rest.piece():
        pieces.append(piece)
    return b"".join(pieces)


def test_forms_are_for_sounds_and_images() -> None:
    assert [row.path for row in FORMS] == [
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/images/edits",
        "/v1/images/variations",
    ]


async def test_json_is_received_whole() -> None:
    body = b'{"model": "m"}'
    assert await received(GivenBody(body[:5], body[5:]), CHAT, "application/json") == body
    assert await received(GivenBody(body), TRANSCRIPTIONS, "application/json") == body
    assert await received(GivenBody(body), CHAT) == body


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        (b"{}", b'{"model":"m/1"}'),
        (b'{"model": "x", "n": 1}', b'{"model": "m/1", "n": 1}'),
        (b'{"n": 1}', b'{"n": 1,"model":"m/1"}'),
    ],
)
async def test_the_paths_model_is_written_into_json(sent: bytes, written: bytes) -> None:
    assert await received(GivenBody(sent), CHAT, "application/json", "m/1") == written
    with pytest.raises(BodyUnreadable):
        await received(GivenBody(b'{"model": "x", "model": "y"}'), CHAT, "application/json", "m/1")


@pytest.mark.parametrize("content", [b"sound", LARGE])
@pytest.mark.parametrize("around", [([], []), ([field("model", "x")], []), ([], [field("model", "x")])])
async def test_the_paths_model_takes_the_place_of_the_forms(
    around: tuple[list[bytes], list[bytes]], content: bytes
) -> None:
    before, behind = around
    taken = await received(given_form(*before, file(content), *behind), path_model="m/1")
    assert isinstance(taken, Form)
    assert taken.fields.text("model") == "m/1"
    written = taken.fields.body + (await _to_the_end(taken.rest) if taken.rest is not None else b"")
    assert written.count(b'name="model"') == 1
    assert b'name="model"\r\n\r\nm/1\r\n' in written
    assert content in written


async def test_of_a_large_form_the_beginning_is_held_and_the_rest_is_left_where_it_is() -> None:
    given = given_form(field("model", "m"), file(LARGE))
    taken = await received(given)
    assert isinstance(taken, Form)
    assert BEGINNING_BYTES - 200 < len(taken.fields.body) < BEGINNING_BYTES + 200
    assert given.taken == 8
    assert taken.rest is not None
    assert (taken.rest.length, taken.rest.taken) == (None, False)
    assert 5_000 < len(await taken.rest.piece()) < 10_000
    assert taken.rest.taken
    assert given.spools == []


async def test_of_a_small_form_nothing_is_left() -> None:
    taken = await received(given_form(field("model", "m"), file(b"sound")))
    assert isinstance(taken, Form)
    assert taken.rest is None


async def test_a_form_that_ends_with_its_beginning_has_an_end_all_the_same() -> None:
    small = form(field("model", "m"), file(b""))
    body = form(field("model", "m"), file(b"x" * (BEGINNING_BYTES - len(small))))
    assert len(body) == BEGINNING_BYTES
    taken = await received(GivenBody(body))
    assert isinstance(taken, Form)
    assert taken.rest is not None
    assert await taken.rest.piece() == f"--{WRITTEN}--\r\n".encode()
    assert await taken.rest.piece() == b""


async def test_what_the_gateway_must_know_of_a_form_is_read_and_comes_first() -> None:
    parts = (
        field("prompt", "p"),
        field("n", "2"),
        field("model", "alias"),
        field("stream", "true"),
        field("user", "ann"),
    )
    parsed = await envelope_of(*parts, file(LARGE))
    assert (parsed.model, parsed.asked_model) == (MODEL, "alias")
    assert (parsed.stream, parsed.user) == (True, "ann")
    assert (parsed.output_cap, parsed.choices, parsed.input_size) == (None, 1, InputSize())
    assert [(name, value) for name, _, value in await sent_by(parsed)] == [
        ("n", b"2"),
        ("model", b"alias"),
        ("stream", b"true"),
        ("user", b"ann"),
        ("prompt", b"p"),
        ("file", LARGE),
    ]


async def test_a_field_that_is_read_may_not_follow_what_has_been_passed_on() -> None:
    parsed = await envelope_of(field("model", "m"), file(LARGE), field("user", "ann"))
    with pytest.raises(FormUnreadable, match="in front of the files"):
        await rest_of(parsed)


async def test_a_field_behind_a_small_file_is_read() -> None:
    parsed = await envelope_of(file(b"sound"), field("model", "m"), field("user", "ann"))
    assert (parsed.user, parsed.rest) == ("ann", None)


@pytest.mark.parametrize("before", [(), (field("user", "ann"),)])
async def test_files_that_come_first_wait_for_the_fields(before: tuple[bytes, ...]) -> None:
    given = given_form(*before, file(LARGE), field("model", "m"), field("stream", "true"), field("prompt", "p"))
    parsed = parse_request(await received(given), TRANSCRIPTIONS, CALLER, snapshot_with(MODEL))
    assert (parsed.model, parsed.stream) == (MODEL, True)
    assert parsed.rest is not None
    (spool,) = given.spools
    assert parsed.rest.length == spool.length == len(spool.written)
    assert len(parsed.members.body) < 500
    sent = {name: value for name, _, value in await sent_by(parsed)}
    assert sent.pop("user", b"ann") == b"ann"
    assert sent == {"model": b"m", "stream": b"true", "file": LARGE, "prompt": b"p"}


async def test_a_field_that_is_cut_at_the_end_of_the_beginning_is_waited_for() -> None:
    parts = field("model", "m"), field("pad", "x" * (BEGINNING_BYTES - 250)), field("user", "a" * 300)
    parsed = await envelope_of(*parts)
    assert parsed.user == "a" * 300


@pytest.mark.parametrize(
    ("parts", "param", "said"),
    [
        ([file(LARGE)], "model", "required"),
        ([file(b"sound")], "model", "required"),
        ([], "model", "required"),
        ([field("model", "")], "model", "not valid"),
        ([field("model", "m" * 257)], "model", "not valid"),
        ([field("model", "m"), field("stream", "perhaps")], "stream", "not valid"),
        ([field("model", "m"), field("n", "many")], "n", "not valid"),
        ([field("model", "m"), field("n", "11")], "n", "not valid"),
        ([field("model", "absent")], "model", "does not exist"),
    ],
)
async def test_what_is_wrong_with_a_form_is_said_of_its_field(parts: list[bytes], param: str, said: str) -> None:
    with pytest.raises(CallerError) as refused:
        await envelope_of(*parts)
    assert refused.value.param == param
    assert said in refused.value.message


async def test_a_field_that_comes_again_in_the_rest_is_refused_before_it_is_passed_on() -> None:
    parsed = await envelope_of(field("model", "m"), file(LARGE), field("model", "other"))
    assert parsed.rest is not None
    passed = [await parsed.rest.piece() for _ in range(15)]
    with pytest.raises(FormUnreadable):
        await parsed.rest.piece()
    assert b"other" not in b"".join(passed)
    assert b"xxx" in passed[-1]


async def test_a_form_that_is_none_is_refused_with_its_beginning() -> None:
    with pytest.raises(FormUnreadable):
        await received(GivenBody(b'{"model": "m", "prompt": ""}'))
    with pytest.raises(FormUnreadable):
        await received(GivenBody(form(field("model", "m"))), content_type="multipart/form-data")
    with pytest.raises(FormUnreadable):
        await envelope_of(field("model", b"\xff"))


async def test_what_ends_the_body_ends_the_receiving() -> None:
    too_large = TooLarge("too large")
    with pytest.raises(TooLarge):
        await received(GivenBody(form(field("model", "m"))[:-9], failure=too_large))
    with pytest.raises(TooLarge):
        await received(GivenBody(failure=too_large), CHAT, "application/json")


async def test_json_at_an_endpoint_of_forms_is_read_as_json() -> None:
    parsed = parse_request(b'{"model": "m", "user": "ann"}', TRANSCRIPTIONS, CALLER, snapshot_with(MODEL))
    assert (parsed.model, parsed.user, parsed.rest) == (MODEL, "ann", None)
    with pytest.raises(FieldInvalid):
        parse_request(b"{}", TRANSCRIPTIONS, CALLER, snapshot_with(MODEL))


@pytest.mark.parametrize("name", ["models", "fallbacks", "fallbacks[]", "context_window_fallbacks", "Models"])
@pytest.mark.parametrize("size", [8, 2 * BEGINNING_BYTES])
async def test_a_form_cannot_have_its_upstream_choose_another_model(name: str, size: int) -> None:
    other = field(name, "openai/large")
    for parts in ([field("model", "m"), other, file(b"x" * size)], [field("model", "m"), file(b"x" * size), other]):
        with pytest.raises((FieldInvalid, FormUnreadable)):
            await read_to_its_end(given_form(*parts))


async def read_to_its_end(given: GivenBody) -> None:
    parsed = parse_request(await received(given), TRANSCRIPTIONS, CALLER, snapshot_with(MODEL))
    while parsed.rest is not None and await parsed.rest.piece():
        continue


async def test_a_form_without_other_models_passes() -> None:
    taken = await received(given_form(field("model", "m"), field("fallbacks", "[]"), file(b"sound")))
    assert parse_request(taken, TRANSCRIPTIONS, CALLER, snapshot_with(MODEL)).asked_model == "m"
