from __future__ import annotations

from itertools import pairwise

import pytest

from gateway.core.endpoints import ENDPOINTS
from gateway.core.plain_tally import KEPT_MAX, PlainTally
from gateway.core.sound_length import SPOKEN_PER_SECOND, TranscriptLength, sent_ms
from gateway.core.stream_tally import StreamTally

TRANSCRIPTIONS = ENDPOINTS["/v1/audio/transcriptions"]
SRT = b"1\r\n00:00:00,000 --> 00:00:04,200\r\nHow many\r\n\r\n2\r\n00:00:04,200 --> 01:02:09,080\r\nmoons?\r\n"
SRT_MS = 3_730_000
VTT = b"WEBVTT\n\n00:00.000 --> 00:04.200\nHow many\n\n00:04.200 --> 02:09.000 align:start\nmoons?\n"


@pytest.mark.parametrize(
    ("text", "length_ms"),
    [
        (SRT, SRT_MS),
        (VTT, 129_000),
        (VTT.replace(b"02:09.000", b"00:02:09.001"), 130_000),
        (b"00:00:01,0 --> 00:00:02,5\nSay", 3_000),
        (b"00:00:01 --> 00:00:02\nSay", 2_000),
        (b"WEBVTT\n\n", 1_000),
        (b"a" * SPOKEN_PER_SECOND * 60 + b"\n", 60_000),
        (b"Say", 1_000),
        ("\u6708".encode() * 10, 3_000),
        (b"\n", 0),
        (b"", 0),
    ],
)
def test_a_text_shows_the_end_of_its_last_cue_or_how_long_it_takes_to_speak(text: bytes, length_ms: int) -> None:
    length = TranscriptLength()
    length.take_text(text)
    assert length.shown_ms == length_ms


@pytest.mark.parametrize("size", [1, 2, 3, 7, 31])
@pytest.mark.parametrize(("text", "length_ms"), [(SRT, SRT_MS), (VTT, 129_000)])
def test_a_cue_is_read_however_the_text_is_cut(text: bytes, length_ms: int, size: int) -> None:
    length = TranscriptLength()
    for begin, end in pairwise([*range(0, len(text), size), len(text)]):
        length.take_text(text[begin:end])
    assert length.shown_ms == length_ms


@pytest.mark.parametrize("times", [1, KEPT_MAX // len(SRT) + 2])
def test_a_long_transcript_shows_its_length_as_a_short_one_does(times: int) -> None:
    tally = PlainTally(TRANSCRIPTIONS)
    for begin in range(0, len(text := SRT * times), 50_000):
        tally.feed(text[begin : begin + 50_000])
    tally.close()
    assert (tally.usage, tally.transcribed_ms) == (None, SRT_MS)


@pytest.mark.parametrize(
    ("body", "length_ms"),
    [
        (b'{"text":"%b"}' % (b"a" * 150), 10_000),
        (b'{"text":"Say","segments":[{"start":0,"end":3.1},{"start":3.1,"end":7.4}]}', 8_000),
        (b'{"text":"Say","words":[{"word":"Say","start":0,"end":"2.25"}]}', 3_000),
        (b'{"text":"Say","segments":[{"end":1e300},{"end":null}]}', 1_000),
        (b'{"text":"Say","segments":[{"end":-1}],"words":{}}', 1_000),
        (b'{"text":""}', 0),
        (b'{"text":null}', 0),
        (b"{}", 0),
    ],
)
def test_an_answer_in_json_shows_where_its_last_piece_ends_or_its_text(body: bytes, length_ms: int) -> None:
    tally = PlainTally(TRANSCRIPTIONS)
    tally.feed(body)
    tally.close()
    assert tally.transcribed_ms == length_ms


def test_long_json_shows_where_its_last_piece_ends() -> None:
    segments = b",".join(b'{"start":%d,"end":%d.5,"text":"moons"}' % (n, n) for n in range(9_000))
    body = b'{"text":"moons","segments":[%b]}' % segments
    assert len(body) > KEPT_MAX
    tally = PlainTally(TRANSCRIPTIONS)
    tally.feed(body)
    tally.close()
    assert tally.transcribed_ms == 9_000_000


@pytest.mark.parametrize(
    ("events", "length_ms"),
    [
        (b'data: {"type":"transcript.text.delta","delta":"%b"}\n\n' % (b"a" * 30), 4_000),
        (b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"a" * 30), 4_000),
        (b'data: {"type":"transcript.text.segment","start":1,"end":2.5,"text":"Say"}\n\n', 3_000),
        (b'data: {"type":"transcript.text.done","text":"%b"}\n\n' % (b"a" * 30), 2_000),
        (b": nothing\n\n", 0),
    ],
)
def test_a_stream_shows_its_text_or_where_its_last_segment_ends(events: bytes, length_ms: int) -> None:
    tally = StreamTally(TRANSCRIPTIONS, merge=False)
    tally.feed(events)
    tally.feed(events)
    tally.close()
    assert tally.transcribed_ms == length_ms


def test_other_answers_show_no_length_of_a_sound() -> None:
    tally = PlainTally(ENDPOINTS["/v1/chat/completions"])
    tally.feed(SRT)
    assert tally.transcribed_ms == 0


def test_the_length_of_what_was_sent_is_never_nothing() -> None:
    assert [sent_ms(size) for size in (0, 1, 16_000, 16_001, 160_000)] == [1_000, 1_000, 1_000, 2_000, 10_000]
