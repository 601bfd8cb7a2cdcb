from __future__ import annotations

from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import FormUnreadable
from gateway.core.form import FIELDS_MAX, HEAD_MAX, MOST_PARTS, FormRewriter, FormSpans, form_type, is_form
from tests.forms import BOUNDARY, FORM_TYPE, field, file, form, parts_of

WANTED = frozenset({"model", "user"})
WRITTEN = "0" * 64
NOISE = st.binary(max_size=60) | st.sampled_from([b"--", b"\r\n--", f"x--{BOUNDARY}\r\n".encode(), b"\r\n\r\n"])


def read(body: bytes, *pieces: int, content_type: str = FORM_TYPE) -> dict[str, bytes]:
    """The values found in a form that comes in pieces, cut at these places."""
    form, _ = rewritten(body, *pieces, content_type=content_type)
    return {name: bytes(form.fields[begin:end]) for name, (begin, end) in form.spans.items()}


def rewritten(body: bytes, *pieces: int, content_type: str = FORM_TYPE) -> tuple[FormRewriter, bytes]:
    """The reader, and what it gave, without the last boundary."""
    form = FormRewriter(content_type, WANTED, WRITTEN)
    bounds = [0, *sorted(min(place, len(body)) for place in pieces), len(body)]
    return form, b"".join([form.feed(body[begin:end]) for begin, end in pairwise(bounds)])


def parts(body: bytes, *pieces: int) -> list[tuple[str, str | None, bytes]]:
    """The parts of the form that is written instead."""
    form, others = rewritten(body, *pieces)
    return parts_of(bytes(form.fields) + others + form.end(), form_type(WRITTEN))


def refusal(body: bytes, content_type: str = FORM_TYPE) -> str:
    with pytest.raises(FormUnreadable) as refused:
        read(body, content_type=content_type)
    return refused.value.message


@given(st.lists(NOISE, min_size=1, max_size=4), st.lists(st.integers(0, 900), max_size=9))
def test_fields_are_found_however_the_form_is_cut(files: list[bytes], cuts: list[int]) -> None:
    body = form(field("model", "m"), *(file(data) for data in files), field("n", "2"), field("user", "zoë"))
    assert read(body, *cuts) == {"model": b"m", "user": "zoë".encode()}


def test_fields_are_found_where_each_byte_comes_alone() -> None:
    body = form(file(b"--\r\n" * 9), field("model", "openai/whisper"), field("user", ""))
    assert read(body, *range(len(body))) == {"model": b"openai/whisper", "user": b""}


@given(
    st.lists(st.tuples(st.sampled_from(["model", "user", "n", "file"]), st.text("ab -\r\n", max_size=9)), max_size=4)
)
@example([("model", "a\r\n")])
def test_what_is_found_is_what_a_parser_of_mail_finds(told: list[tuple[str, str]]) -> None:
    body = form(field("x", "y"), *(field(name, value) for name, value in told))
    names = [name for name, _ in told if name in WANTED]
    if len(names) > len(set(names)):
        refusal(body)
        return
    mail = BytesParser(EmailMessage, policy=HTTP).parsebytes(f"content-type: {FORM_TYPE}\r\n\r\n".encode() + body)
    parts = {part.get_param("name", header="content-disposition"): part for part in mail.iter_parts()}
    assert read(body) == {name: parts[name].get_payload(decode=True) for name in names}


def test_only_a_changed_field_is_another() -> None:
    form_, others = rewritten(form(field("model", "alias"), file(b"\0\xff" * 40), field("prompt", "alias")))
    fields = FormSpans(bytes(form_.fields) + others, form_.spans)
    assert fields.text("model") == "alias"
    changed = fields.changed({"model": fields.written("größe")})
    assert changed == fields.body.replace(b"alias", "größe".encode(), 1)


@given(st.lists(NOISE, min_size=1, max_size=4), st.lists(st.integers(0, 900), max_size=9))
def test_every_part_is_written_again_with_its_content(files: list[bytes], cuts: list[int]) -> None:
    body = form(field("prompt", "p"), *(file(data) for data in files), field("model", "m"))
    assert parts(body, *cuts) == [
        ("model", None, b"m"),
        ("prompt", None, b"p"),
        *(("file", "speech.wav", data) for data in files),
    ]


@pytest.mark.parametrize(
    ("parameters", "filename"),
    [
        (b'filename="a.wav"', "a.wav"),
        (b"filename=a.wav", "a.wav"),
        (b'filename=""', ""),
        (b'filename="C:\\dir\\b.wav"', "b.wav"),
        (b'filename="../../etc/passwd"', "passwd"),
        ('filename="ä;=.wav"'.encode(), "ä;=.wav"),
        (b'filename="a\xff.wav"', "a?.wav"),
        (b'filename="a\tb.wav"', "a%09b.wav"),
        (b"filename*=utf-8''a\xff.wav", "a\ufffd.wav"),
        (b"filename=x; filename*=utf-8''%e2%82%ac%22%0d%0a.wav", "€%22%0D%0A.wav"),
    ],
)
def test_a_files_name_is_written_so_that_every_parser_reads_it_alike(parameters: bytes, filename: str) -> None:
    head = b"content-disposition: form-data; name=file; " + parameters + b"\r\n\r\n"
    assert parts(form(head + b"data")) == [("file", filename, b"data")]


def test_of_a_parts_head_only_name_file_and_type_are_left() -> None:
    head = (
        b'Content-Disposition: form-data; filename="a.webm"; NAME=file\r\nContent-Type: audio/webm;codecs=opus\r\n'
        b"Content-Length: 4\r\nX-Other: y\r\n\r\n"
    )
    _, others = rewritten(form(head + b"data"))
    assert (
        others
        == (
            f'--{WRITTEN}\r\nContent-Disposition: form-data; name="file"; filename="a.webm"\r\n'
            "Content-Type: audio/webm\r\n\r\ndata\r\n"
        ).encode()
    )


@pytest.mark.parametrize("name", ["MODEL", "Model", "model[]", "model[a]", "model.x", "USER", "user[0]", "uSer[]"])
def test_a_name_that_some_parser_takes_for_a_field_that_is_read_is_refused(name: str) -> None:
    assert "can be taken for" in refusal(form(field("model", "m"), field(name, "other")))


@pytest.mark.parametrize("name", ["_charset_", "__proto__", "[model]", ".model", "ſtream", "mode\u006c\u0301", "0"])
def test_a_name_that_means_more_than_a_field_is_refused(name: str) -> None:
    refusal(form(field("model", "m"), field(name, "other")))


@pytest.mark.parametrize(
    "head",
    [
        b"content-disposition: form-data; name=x; name*=utf-8''model",
        b'content-disposition: form-data; x="a;name=model"; name="y"',
        b"content-disposition: form-data; name=x; size=5",
        b"content-disposition: form-data; name=x; filename*=utf-16''a",
        b"content-disposition: form-data; name=x\r\ncontent-transfer-encoding: base64",
        b"content-disposition: form-data; name=x\r\ncontent-type: text/plain; charset=utf-16",
        b"content-disposition: form-data; name=x\r\ncontent-type: multipart/mixed; boundary=y",
        b"content-disposition: form-data; name=x\r\ncontent-type: message/rfc822",
        b"content-disposition: form-data; name=x\r\ncontent-type: nonsense",
    ],
)
def test_a_head_that_says_more_than_the_gateway_writes_is_refused(head: bytes) -> None:
    refusal(form(field("model", "m"), head + b"\r\n\r\nvalue"))


def test_a_form_without_its_end_is_refused_at_its_end() -> None:
    whole = form(field("model", "m"), file(b"data"))
    for body in (whole[:-5], whole[:-30], b""):
        with pytest.raises(FormUnreadable, match="ends before"):
            rewritten(body)[0].end()


def test_parts_and_fields_have_bounds() -> None:
    assert len(parts(form(*[field("x", "y")] * MOST_PARTS))) == MOST_PARTS
    assert "parts" in refusal(form(*[field("x", "y")] * (MOST_PARTS + 1)))
    assert "longer" in refusal(form(field("model", "m" * FIELDS_MAX)))


def test_a_field_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(FormUnreadable):
        FormSpans(b"\xff", {"model": (0, 1)}).text("model")


def test_a_field_whose_end_has_not_come_is_not_found_yet() -> None:
    body = form(field("model", "m"))
    for size in range(len(body) - 3):
        assert read(body[:size]) == {}
    assert read(body[:-2]) == {"model": b"m"}


@pytest.mark.parametrize(
    "second",
    [
        field("model", "other"),
        file(b"other", name="model"),
        field("model", "other").replace(b'"model"', b"model"),
        field("model", "other").replace(b"content-disposition", b"Content-DISPOSITION"),
        field("model", "other").replace(b"form-data;", b"Form-Data ;"),
        field("model", "other").replace(b"name=", b"NAME="),
    ],
)
@pytest.mark.parametrize("between", [b"", b"x" * 100_000])
def test_a_field_that_comes_twice_is_refused_wherever_it_stands(second: bytes, between: bytes) -> None:
    assert "once" in refusal(form(field("model", "m"), file(between), second))


@pytest.mark.parametrize(
    "part",
    [
        file(b"m", name="model"),
        field("model", "m").replace(b'"model"', b"\"model\"; filename*=utf-8''m"),
    ],
)
def test_a_field_that_is_no_plain_text_is_refused(part: bytes) -> None:
    assert "plain text" in refusal(form(part))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"content-type: text/plain",
        b"content-disposition: form-data",
        b"content-disposition: attachment; name=x",
        b'content-disposition: form-data; name="x"; name="model"',
        b'content-disposition: form-data; name="x"\r\ncontent-disposition: form-data; name="model"',
        b'content-disposition: form-data; name="mod\\el"',
        b'content-disposition: form-data; name="model\\"',
        b'content-disposition: form-data; name="x"; filename="a\\";name=model;y="',
        b'content-disposition: form-data; name="%6dodel"',
        b"content-disposition: form-data; name*=utf-8''model",
        b'content-disposition: form-data; name="x";\r\n name="model"',
        b'content-disposition: form-data; name="x"\nx: y',
        b'content-disposition: form-data; name="x"\ry',
        b'content-disposition: form-data; name="x"\0',
        b'content-disposition : form-data; name="x"',
        b'content-disposition: form-data; name=""',
        b'content-disposition: form-data; name="x" name="model"',
        b'content-disposition: form-data; name="x"\r\n' + b"x: " + b"y" * HEAD_MAX,
    ],
)
def test_a_head_that_two_parsers_could_read_differently_is_refused(head: bytes) -> None:
    refusal(form(field("model", "m"), head + b"\r\n\r\nvalue"))


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="x"; filename="C:\\a\\b.wav"',
        b'Content-Disposition: form-data; name="x"; filename="a.wav"; filename*=utf-8\'\'%c3%a4.wav',
        'Content-Disposition: form-data; name="x"; filename="ä;=.wav"'.encode(),
        b"Content-Disposition: form-data;name=x",
        b'Content-Disposition: form-data; name="timestamp_granularities[]"\r\nContent-Type: text/plain; charset=utf-8',
        b'content-disposition: form-data; name="x"\r\ncontent-length: 5\r\ncontent-transfer-encoding: 8bit',
    ],
)
def test_heads_as_client_libraries_write_them_pass(head: bytes) -> None:
    assert read(form(head + b"\r\n\r\nvalue", field("model", "m"))) == {"model": b"m"}


@pytest.mark.parametrize(
    ("place", "instead"),
    [
        (b"\r\n--", b"\n--"),
        (b"\r\n--", b"\r--"),
        (b"\r\n--", b"\n\n--"),
        (BOUNDARY.encode() + b"\r\n", BOUNDARY.encode() + b" \r\n"),
        (BOUNDARY.encode() + b"\r\n", BOUNDARY.encode() + b"\n"),
        (BOUNDARY.encode() + b"\r\n", BOUNDARY.encode() + b"x\r\n"),
    ],
)
def test_a_boundary_that_some_take_for_none_is_refused(place: bytes, instead: bytes) -> None:
    parts = field("model", "m"), file(b"sound"), field("user", "ann")
    begin, _, rest = form(*parts).partition(b"sound")
    refusal(begin + b"sound" + rest.replace(place, instead, 1))


def test_nothing_may_follow_the_last_boundary_but_an_end_without_one() -> None:
    assert read(form(field("model", "m")) + b"and so on\r\n") == {"model": b"m"}
    refusal(form(field("model", "m")) + form(field("user", "ann")))


@pytest.mark.parametrize("begin", [b"\r\n", b"\r\n\r\n"])
def test_a_form_may_begin_with_line_ends_however_it_is_cut(begin: bytes) -> None:
    body = begin + form(field("model", "m"), file(b"sound"))
    for cuts in ((), range(len(body)), (1,), (3,)):
        assert parts(body, *cuts) == [("model", None, b"m"), ("file", "speech.wav", b"sound")]


def test_line_ends_in_front_are_skipped_however_many_there_are() -> None:
    """In one go: a million of them, each moved out of the way by itself, would take minutes."""
    rewriter = FormRewriter("multipart/form-data; boundary=b", frozenset({"model"}), "new")
    rewriter.feed(b"\r\n" * 1_000_000 + b"--b\r\n" + b'content-disposition: form-data; name="model"\r\n\r\nm\r\n--b--')
    assert (rewriter.end(), bytes(rewriter.fields[slice(*rewriter.spans["model"])])) == (b"--new--\r\n", b"m")


@pytest.mark.parametrize("begin", [b"\n", b"\r\nx\r\n", b"a preamble\r\n", b"-"])
def test_a_form_begins_with_its_boundary(begin: bytes) -> None:
    assert "begin" in refusal(begin + form(field("model", "m")))


def test_a_part_without_an_end_of_its_own_line_is_refused() -> None:
    head = b'content-disposition: form-data; name="model"\r\n\r\n'
    body = form(head).replace(b"\r\n\r\n\r\n", b"\r\n\r\n")
    assert "ends before it begins" in refusal(body)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=x; boundary=y",
        "multipart/form-data; boundary=x; Boundary=y",
        "multipart/form-data; boundary=x y",
        'multipart/form-data; boundary="x\\"',
        'multipart/form-data; boundary="x "',
        f"multipart/form-data; boundary={'x' * 71}",
        "multipart/form-data, boundary=x",
        "multipart/form-data; boundary=ä",
        "multipart/form-data; boundary=x; charset=punycode",
        "multipart/form-data; boundary=x; boundary*=utf-8''y",
        "multipart/form-data; boundary=x; start=y",
    ],
)
def test_a_content_type_that_does_not_name_one_boundary_is_refused(content_type: str) -> None:
    assert "boundary" in refusal(form(field("model", "m"), boundary="x"), content_type)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/form-data; boundary="a b:c"', "a b:c"),
        ("Multipart/Form-Data;charset=utf-8;BOUNDARY=----WebKitFormBoundary7MA4", "----WebKitFormBoundary7MA4"),
        (f"multipart/form-data; boundary={'x' * 70} ", "x" * 70),
    ],
)
def test_content_types_as_client_libraries_write_them_pass(content_type: str, boundary: str) -> None:
    assert read(form(field("model", "m"), boundary=boundary), content_type=content_type) == {"model": b"m"}


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [(FORM_TYPE, True), ("MULTIPART/mixed", True), ("application/json", False), ("", False)],
)
def test_a_form_is_known_by_its_content_type(content_type: str, expected: bool) -> None:
    assert is_form(content_type) is expected
