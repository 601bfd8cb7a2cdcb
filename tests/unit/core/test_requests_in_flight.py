from __future__ import annotations

import msgspec

from gateway.core.endpoints import CHAT
from gateway.core.requests_in_flight import (
    LISTED_MAX,
    ProcessQuestion,
    asks_about,
    in_flight_object,
    oldest,
    request_in_flight,
)
from gateway.core.stream_tally import StreamTally
from tests.unit.fakes import NOW_MS
from tests.unit.telemetry.exchanges import answered, unheard

NOW = 103.5
"""Of requests that came at 100."""


def test_a_request_is_arriving_until_it_is_admitted() -> None:
    seen = request_in_flight(unheard(), NOW_MS, NOW)
    assert (seen.state, seen.age_s, seen.began_ms) == ("arriving", 3.5, NOW_MS - 3_500)
    shown = in_flight_object("host:1", seen)
    assert (shown["team"], shown["model"], shown["upstream"], shown["process"]) == (None, None, None, "host:1")


def test_a_request_waits_until_the_first_byte_and_then_is_answered() -> None:
    x = answered()
    x.first_byte_at = None
    assert request_in_flight(x, NOW_MS, NOW).state == "waiting"
    x.first_byte_at = 100.5
    tally = x.tally = StreamTally(CHAT, merge=False)
    before = request_in_flight(x, NOW_MS, NOW)
    tally.feed(b'data: {"choices":[{"index":0,"delta":{"content":"Once"},"finish_reason":null}]}\n\n')
    after = request_in_flight(x, NOW_MS, NOW)
    assert (before.state, before.output, after.output) == ("answering", 0, 1)
    assert (after.team, after.key_name, after.user, after.upstream) == ("search", "search-prod", "ann", "inducta")


def test_a_question_is_about_a_team_or_an_id_or_all() -> None:
    request = unheard("req-1").request
    about = [
        (ProcessQuestion(), True),
        (ProcessQuestion(team="search"), True),
        (ProcessQuestion(team="chat"), False),
        (ProcessQuestion(request_id="req-1"), True),
        (ProcessQuestion(request_id="req-2"), False),
        (ProcessQuestion(team="chat", request_id="req-1"), False),
    ]
    for question, expected in about:
        assert asks_about(question, request, "search") is expected


def test_of_very_many_the_oldest_are_listed() -> None:
    many = [unheard(f"r{number}") for number in range(LISTED_MAX + 5)]
    for number, x in enumerate(many):
        x.request = msgspec.structs.replace(x.request, at=-float(number))
    ids = [x.request.request_id for x in oldest(many)]
    assert (len(ids), ids[0], ids[-1]) == (LISTED_MAX, f"r{LISTED_MAX + 4}", "r5")


def test_what_another_version_of_the_gateway_adds_is_read_over() -> None:
    packed = msgspec.msgpack.encode({"team": "search", "colour": "red"})
    assert msgspec.msgpack.decode(packed, type=ProcessQuestion) == ProcessQuestion(team="search")
