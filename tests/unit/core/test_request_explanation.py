from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from gateway.core.errors import Blame
from gateway.core.limits import Meter, Mode, Per
from gateway.core.pricing import Price
from gateway.core.request_explanation import explained, record_object
from gateway.core.request_record import RecordedAttempt, RecordedError, RecordedLimit, RequestRecord
from gateway.core.usage import Usage, UsageSource
from tests.unit.fakes import NOW_MS, limit

ANSWERED = RequestRecord(
    id="own",
    request_id="req-1",
    at_ms=NOW_MS,
    status=200,
    duration_s=2.5,
    upstream_s=2.498,
    first_byte_s=0.25,
    method="POST",
    endpoint="/v1/chat/completions",
    team="search",
    key="0123456789ab",
    key_name="search-prod",
    client_ip="10.1.2.3",
    model="m",
    stream=True,
    whole=True,
    granted=100,
    upstream="up",
    attempts=(RecordedAttempt("up", "200"),),
    version="1.2.3",
    process="host:1",
    config="abc",
)


def but(**changes: object) -> RequestRecord:
    return msgspec.structs.replace(ANSWERED, **changes)


def test_an_answer_is_told_from_its_status_to_its_versions() -> None:
    assert explained(ANSWERED) == [
        "The request was answered with status 200.",
        (
            "At 2026-11-05 12:00:00.000 UTC key search-prod (0123456789ab) of team search asked from 10.1.2.3 for m"
            " (/v1/chat/completions, as a stream)."
        ),
        "Upstreams tried: up (200).",
        "It was charged nothing: nothing was delivered.",
        "It took 2.5 s: 2.5 s waiting for upstreams, 2.0 ms in the gateway, the first byte after 250.0 ms.",
        "It was served by host:1, inducta-gateway 1.2.3, configuration abc.",
    ]


def test_a_cost_is_told_line_by_line() -> None:
    usage = Usage(input=1_200, output=300, cached_input=200, source=UsageSource.ESTIMATED)
    price = Price(input=2_000_000, output=8_000_000, cached_input=500_000, request=1_000_000_000)
    record = but(usage=usage, cost=price.cost(usage), prices=price.lines(usage))
    (told,) = [sentence for sentence in explained(record) if sentence.startswith("It was charged")]
    assert told == (
        "It was charged 1,200 tokens of input and 300 of output (estimated by the gateway): 0.0055 USD ="
        " 1,000 input at 2 per million + 300 output at 8 per million + 200 cached_input at 0.5 per million"
        " + 1 request at 0.001."
    )
    assert "without a price" in " ".join(explained(but(usage=usage)))


def test_the_limit_that_refused_is_told_before_those_that_did_not() -> None:
    month = limit(Meter.USD, Per.MONTH, 50_000_000)
    shadow = msgspec.structs.replace(limit(Meter.TOKENS, Per.TOTAL, 10), mode=Mode.SHADOW)
    record = but(
        status=429,
        granted=None,
        upstream="",
        attempts=(),
        error=RecordedError("insufficient_quota", Blame.POLICY, "The limit does not let it pass.", "", 3_600_000),
        limits=(
            RecordedLimit(month, 49_990_000, 0, 10_000, NOW_MS, needed=20_000, refused=True),
            RecordedLimit(shadow, 10, 0, 0, would_refuse=True),
            RecordedLimit(limit(amount=600), 3, 1, 596, needed=1),
        ),
    )
    assert explained(record)[:3] == [
        "The request was refused: status 429, insufficient_quota.",
        "The limit does not let it pass.",
        "A limit did what it is configured to do: nothing is broken.",
    ]
    assert explained(record)[4:8] == [
        (
            "Refused by limit usd-month of team 'search'"
            " (50 USD per month: 49.99 used, 0 held, 0.01 left, 0.02 needed). It would have passed 1h0m0s later."
        ),
        (
            "Would have been refused by limit tokens-total of team 'search'"
            " (10 tokens in total: 10 used, 0 held, 0 left), if it were not in shadow mode."
        ),
        (
            "Let pass by limit requests-minute of team 'search'"
            " (600 requests per minute: 3 used, 1 held, 596 left, 1 needed)."
        ),
        "No upstream was asked.",
    ]


@pytest.mark.parametrize(
    ("code", "blame", "says"),
    [
        ("invalid_value", Blame.CALLER, "A field of its body is missing or has a value that is not allowed."),
        ("passed_on", Blame.UPSTREAM, "The upstream answered with an error, which the client got unchanged."),
        ("internal_error", Blame.GATEWAY, "The gateway itself failed: this is a defect."),
    ],
)
def test_an_error_whose_message_is_not_kept_is_told_by_its_code(code: str, blame: Blame, says: str) -> None:
    told = " ".join(explained(but(error=RecordedError(code, blame))))
    assert says in told
    assert "responsible" in told


@pytest.mark.parametrize(
    ("code", "because", "says"),
    [
        ("invalid_api_key", "disabled", "Its key is disabled. Its id is 0123456789ab."),
        ("expired_api_key", "expired", "Its key has expired. Its id is 0123456789ab."),
        ("expired_api_key", "token_expired", "Its token has expired."),
        ("model_not_found", "model_unknown", "It asked for a model that does not exist here. Its log line names it."),
    ],
)
def test_what_is_refused_is_told_with_why_and_a_key_with_its_id(code: str, because: str, says: str) -> None:
    error = RecordedError(code, Blame.CALLER, refused_key="0123456789ab", refused_because=because)
    assert explained(but(status=401, error=error))[1] == says


def test_a_limit_of_requests_at_a_time_is_told_without_a_time_that_nobody_knows() -> None:
    error = RecordedError("rate_limit_exceeded", Blame.POLICY, retry_after_ms=1_000)
    busy = RecordedLimit(limit(Meter.CONCURRENT, None, 1), 0, 1, 0, needed=1, refused=True)
    (told,) = [each for each in explained(but(status=429, error=error, limits=(busy,))) if each.startswith("Refused")]
    assert told.endswith("1 needed). Another one passes as soon as one of those in flight ends.")


def test_the_id_that_an_upstream_gave_is_told_for_its_support() -> None:
    record = but(upstream="spare", attempts=(RecordedAttempt("spare", "429"),), upstream_request_id="req-9")
    assert "Upstream spare calls it req-9: give this id to its support." in explained(record)
    assert "support" not in " ".join(explained(but(upstream_request_id="")))


def test_every_word_for_a_key_token_or_model_that_is_refused_has_a_sentence_of_its_own() -> None:
    places = [place for part in ("core", "identity", "stages", "web") for place in Path("gateway", part).glob("*.py")]
    words = {word for place in places for word in re.findall(r'why="([a-z_]+)"', place.read_text())}
    words |= {"unknown", "disabled", "expired", "network", "model_unknown", "model_forbidden"}
    errors = [RecordedError("invalid_api_key", Blame.CALLER, refused_because=word) for word in words]
    told = {explained(but(status=401, error=error))[1] for error in errors}
    assert len(told) == len(words)
    assert explained(but(error=RecordedError("invalid_api_key", Blame.CALLER)))[1] not in told


def test_a_client_that_left_is_not_called_refused() -> None:
    told = explained(but(status=499, error=RecordedError("client_gone", Blame.CALLER)))
    assert told[0] == "The request was not completed: status 499, client_gone."


def test_a_stranger_and_a_path_that_is_not_known_are_named_as_such() -> None:
    record = but(team="", key="", key_name="", model="", endpoint="", path="/v1/v1/messages", stream=False)
    assert explained(record)[1] == (
        "At 2026-11-05 12:00:00.000 UTC a caller without a key that is known asked from 10.1.2.3"
        " (POST /v1/v1/messages)."
    )


def test_another_model_and_a_region_are_named_with_their_price() -> None:
    advised = Usage(800, 0, region="us", model="opus")
    usage = Usage(810, 0, region="us", parts=(Usage(10, 0, region="us"), advised))
    price = Price(input=3_000_000, output=0, regions={"us": 1_100})
    lines = price.lines(usage, {"opus": Price(input=5_000_000, output=0)})
    record = but(usage=usage, cost=price.cost(usage, {}), prices=lines)
    (sentence,) = [line for line in explained(record) if line.startswith("It was charged")]
    assert sentence.endswith("= 10 input at 3 × 1.1 per million + 800 input of opus at 5 per million.")
    shown = record_object(record)
    assert [(line["factor"], line["model"]) for line in shown["prices"]] == [(1.1, ""), (1, "opus")]
    assert "parts" not in shown["usage"]


def test_the_object_has_amounts_as_the_configuration_writes_them() -> None:
    month = limit(Meter.USD, Per.MONTH, 50_000_000)
    usage = Usage(input=10, output=5, cached_input=4)
    price = Price(input=2_000_000, output=8_000_000)
    record = but(
        limits=(RecordedLimit(month, 49_990_000, 0, 10_000, NOW_MS, needed=20_000, refused=True),),
        usage=usage,
        cost=60,
        prices=price.lines(usage),
    )
    shown = record_object(record)
    (seen,) = shown["limits"]
    assert (seen["amount"], seen["used"], seen["left"], seen["needed"]) == (50, 49.99, 0.01, 0.02)
    assert (seen["verdict"], seen["resets_at"]) == ("refused", "2026-11-05T12:00:00.000Z")
    assert shown["usage"] == {"input": 10, "output": 5, "source": "reported", "cached_input": 4}
    assert (shown["usd"], [line["usd_per_unit"] for line in shown["prices"]]) == (
        0.00006,
        [0.000002, 0.000008, 0.000002],
    )
    assert (shown["id"], shown["user"], shown["error"]) == ("req-1", None, None)
