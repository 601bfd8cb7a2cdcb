from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.sse import BOM, EventSplitter, data_of, event_of, with_data
from tests.unit.core.recordings import needs_recordings, recordings, vectors

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
lines = st.sampled_from(
    [
        b"data: x",
        b"data:y",
        b"data",
        b"data:",
        b"data:  z",
        b": comment",
        b":",
        b"event: e",
        b"id",
        b"datax: 1",
        b" data",
    ]
)
noise = st.lists(st.tuples(lines | st.just(b""), line_ends), max_size=12).map(
    lambda drawn: b"".join(text + end for text, end in drawn)
)


def reference(stream: bytes) -> list[bytes]:
    """The data of each event, word for word as WHATWG HTML 9.2.6 tells it, over the whole stream at once."""
    found, buffer = list[bytes](), list[bytes]()
    body = stream.removeprefix(BOM)
    for line in re.split(rb"\r\n|\r|\n", body)[:-1]:
        name, _, value = line.partition(b":")
        if not line and buffer:
            found.append(b"\n".join(buffer))
            buffer = []
        elif name == b"data":
            buffer.append(value.removeprefix(b" "))
    return found


def split(stream: bytes, cuts: list[int]) -> tuple[list[bytes], bytes]:
    splitter, events = EventSplitter(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += splitter.feed(stream[begin:end])
    held = splitter.held
    rest = splitter.release()
    assert (len(rest), splitter.held) == (held, 0)
    # Only the end of the stream tells that no LF follows a CR LF CR.
    return ([*events, rest], b"") if rest.endswith(b"\r\n\r") else (events, rest)


def data_in(events: list[bytes]) -> list[bytes]:
    return [data for event in events if (data := data_of(event)) is not None]


@needs_recordings
@pytest.mark.parametrize(("stream", "expected"), vectors())
def test_a_vector_gives_what_a_parser_must_give(stream: bytes, expected: list[str] | None) -> None:
    if expected is not None:
        assert reference(stream) == [text.encode() for text in expected]
    for cuts in ([], list(range(len(stream)))):
        events, rest = split(stream, cuts)
        assert data_in(events) == reference(stream)
        assert b"".join(events) + rest == stream


@needs_recordings
@pytest.mark.parametrize(("stream", "usage"), recordings("chat", "legacy", "messages", "responses"))
def test_a_recording_splits_into_its_events(stream: bytes, usage: object) -> None:
    events, rest = split(stream, [])
    assert data_in(events) == reference(stream)
    assert b"".join(events) + rest == stream


@given(noise, st.data())
def test_any_cutting_gives_the_same_events_and_all_bytes(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    events, rest = split(stream, cuts)
    assert data_in(events) == reference(stream)
    assert b"".join(events) + rest == stream


@given(st.lists(noise, max_size=3), st.data())
def test_bytewise_is_like_whole(pieces: list[bytes], data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from([b"", BOM, BOM + BOM])) + b"".join(pieces)
    assert data_in(split(stream, list(range(len(stream))))[0]) == reference(stream) == data_in(split(stream, [])[0])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_comes_out_with_the_byte_that_ends_it(end: bytes) -> None:
    splitter = EventSplitter()
    event = b"data: 1" + end + end
    given = [splitter.feed(event[at : at + 1]) for at in range(len(event))]
    assert [bool(events) for events in given].index(True) == len(event) - 1


def test_line_ends_before_an_event_belong_to_it() -> None:
    assert EventSplitter().feed(b"\n\r\n\rdata: 1\n\n\n\n: 2\n\n") == [b"\n\r\n\rdata: 1\n\n", b"\n\n: 2\n\n"]


def test_a_byte_order_mark_counts_at_the_beginning_alone() -> None:
    stream = BOM + b"data: 1\n\n" + BOM + b"data: 2\n\n"
    assert data_in(split(stream, [])[0]) == [b"1"]
    assert data_in(split(stream, [1, 2])[0]) == [b"1"]


def test_a_flood_of_line_ends_costs_no_more_than_other_bytes() -> None:
    splitter = EventSplitter()
    for _ in range(40):
        assert splitter.feed(b"\n" * 65_536) == []
    assert splitter.held == 40 * 65_536
    assert len(splitter.feed(b"data: 1\n\n")) == 1


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a\n\n", b" a"),
        (b"data\n\n", b""),
        (b"data: a\ndata\ndata: b\n\n", b"a\n\nb"),
        (b"event: x\r\ndata: a\r\n\r\n", b"a"),
        (b": data: a\n\n", None),
        (b"event: x\n\n", None),
        (b"datum: a\n\n", None),
        (b" data: a\n\n", None),
        (b"", None),
        (b"\n\n", None),
        (b"data: {}", b"{}"),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


@pytest.mark.parametrize(
    ("event", "changed"),
    [
        (b"data: a\n\n", b"data: NEW\n\n"),
        (b"data:a\r\n\r\n", b"data:NEW\r\n\r\n"),
        (b"\nid: 1\ndata: a\nevent: e\n\n", b"\nid: 1\ndata: NEW\nevent: e\n\n"),
        (b"data: a\rdata: b\r: c\r\r", b"data: NEW\r: c\r\r"),
        (b"data: a", b"data: NEW"),
        (b": only a comment\n\n", b": only a comment\n\n"),
    ],
)
def test_other_data_leaves_the_rest_of_its_event(event: bytes, changed: bytes) -> None:
    assert with_data(event, b"NEW") == changed


@given(noise, st.lists(st.sampled_from([b"", b"{", b'"x": 1', b"}"]), min_size=1).map(b"\n".join))
def test_the_data_put_in_is_the_data_read(event: bytes, data: bytes) -> None:
    if data_of(event) is not None:
        assert data_of(with_data(event, data)) == data


def test_data_of_several_lines_fits_into_an_event_without_an_end() -> None:
    assert with_data(b"data: a", b"{\n}") == b"data: {\ndata: }"


def test_a_new_event_has_its_kind() -> None:
    assert event_of(b"{}") == b"data: {}\n\n"
    assert event_of(b"{}", b"error") == b"event: error\ndata: {}\n\n"
