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
from tests.forms import FORM_TYPE, field, file, form
from tests.unit.fakes import CALLER, MODEL, GivenBody, arrival_of, catalogue_of

FORMS = [row for row in ENDPOINTS.values() if row.takes_form]
LARGE = b"x" * 200_000


async def received(
    body: GivenBody, endpoint: Endpoint = TRANSCRIPTIONS, content_type: str = FORM_TYPE, path_model: str = ""
) -> bytes | Form:
    request = arrival_of(body, endpoint=endpoint, content_type=content_type)
    return await read_body(msgspec.structs.replace(request, path_model=path_model))


async def envelope_of(*parts: bytes, length: int | None = None) -> ParsedRequest:
    body = form(*parts)
    given = GivenBody(*(body[begin : begin + 9_000] for begin in range(0, len(body), 9_000)), length=length)
    return parse_request(await received(given), TRANSCRIPTIONS, CALLER, catalogue_of(MODEL))


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


@pytest.mark.parametrize("sent", [[], [field("model", "x")], [field("model", "m/1")]])
async def test_the_paths_model_is_written_into_a_form_of_any_size(sent: list[bytes]) -> None:
    body, written = form(*sent, file(LARGE)), form(field("model", "m/1"), file(LARGE))
    given = GivenBody(*(body[begin : begin + 10_000] for begin in range(0, len(body), 10_000)), length=len(body))
    taken = await received(given, path_model="m/1")
    assert isinstance(taken, Form)
    assert taken.fields.text("model") == "m/1"
    assert taken.rest is not None
    assert taken.rest.length == len(written) - len(taken.fields.body)
    assert taken.fields.body + await _to_the_end(taken.rest) == written


async def test_a_model_behind_the_files_does_not_count_beside_the_paths() -> None:
    body = form(file(LARGE), field("model", "x"))
    given = GivenBody(*(body[begin : begin + 10_000] for begin in range(0, len(body), 10_000)), length=len(body))
    taken = await received(given, path_model="m")
    assert isinstance(taken, Form)
    assert taken.rest is not None
    with pytest.raises(FormUnreadable):
        await _to_the_end(taken.rest)


async def test_of_a_large_form_the_beginning_is_held_and_the_rest_is_left_where_it_is() -> None:
    body = form(field("model", "m"), file(LARGE))
    given = GivenBody(*(body[begin : begin + 10_000] for begin in range(0, len(body), 10_000)), length=len(body))
    taken = await received(given)
    assert isinstance(taken, Form)
    assert taken.fields.body == body[:BEGINNING_BYTES]
    assert given.taken == 7
    assert taken.rest is not None
    assert (taken.rest.length, taken.rest.taken) == (len(body) - BEGINNING_BYTES, False)
    assert await taken.rest.piece() == body[BEGINNING_BYTES:70_000]
    assert taken.rest.taken


@pytest.mark.parametrize("known", [True, False])
async def test_of_a_small_form_nothing_is_left(known: bool) -> None:
    body = form(field("model", "m"), file(b"sound"))
    taken = await received(GivenBody(body, length=len(body) if known else None))
    assert isinstance(taken, Form)
    assert taken.rest is None


async def test_a_form_that_ends_with_its_beginning_has_no_rest() -> None:
    small = form(field("model", "m"), file(b""))
    body = form(field("model", "m"), file(b"x" * (BEGINNING_BYTES - len(small))))
    assert len(body) == BEGINNING_BYTES
    known = await received(GivenBody(body, length=len(body)))
    unknown = await received(GivenBody(body))
    assert isinstance(known, Form)
    assert isinstance(unknown, Form)
    assert known.rest is None
    assert unknown.rest is not None
    assert (unknown.rest.length, await unknown.rest.piece()) == (None, b"")


async def test_what_the_gateway_must_know_of_a_form_is_read_and_the_bytes_stay() -> None:
    parts = field("n", "2"), field("model", "alias"), field("stream", "true"), field("user", "ann"), file(LARGE)
    parsed = await envelope_of(*parts)
    assert (parsed.model, parsed.asked_model) == (MODEL, "alias")
    assert (parsed.stream, parsed.user) == (True, "ann")
    assert (parsed.output_cap, parsed.choices, parsed.input_size) == (None, 1, InputSize())
    assert parsed.members.body + await rest_of(parsed) == form(*parts)


async def test_a_field_behind_a_large_file_is_passed_on_unread() -> None:
    parsed = await envelope_of(field("model", "m"), file(LARGE), field("user", "ann"), field("stream", "true"))
    assert (parsed.user, parsed.stream) == ("", False)
    assert b'name="user"\r\n\r\nann' in await rest_of(parsed)


async def test_a_field_behind_a_small_file_is_read() -> None:
    parsed = await envelope_of(file(b"sound"), field("model", "m"), field("user", "ann"))
    assert (parsed.user, parsed.rest) == ("ann", None)


@pytest.mark.parametrize(
    ("parts", "param", "said"),
    [
        ([file(LARGE), field("model", "m")], "model", "before the files"),
        ([field("model", "m" * 70_000)], "model", "before the files"),
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
    parsed = parse_request(b'{"model": "m", "user": "ann"}', TRANSCRIPTIONS, CALLER, catalogue_of(MODEL))
    assert (parsed.model, parsed.user, parsed.rest) == (MODEL, "ann", None)
    with pytest.raises(FieldInvalid):
        parse_request(b"{}", TRANSCRIPTIONS, CALLER, catalogue_of(MODEL))
