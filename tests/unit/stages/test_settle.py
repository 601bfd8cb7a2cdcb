from __future__ import annotations

from zoneinfo import ZoneInfo

import msgspec
import pytest

from gateway.core.endpoints import CHAT, ENDPOINTS
from gateway.core.errors import (
    ClientGone,
    GatewayError,
    NoTarget,
    ShuttingDown,
    StoreUnavailable,
    UpstreamBroke,
    UpstreamRefused,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from gateway.core.estimate import OUTPUT_AT_FIRST, TOKENS_PER_SECOND_AT_FIRST, Estimator
from gateway.core.exchange import Exchange
from gateway.core.limits import Meter, Per
from gateway.core.plain_tally import PlainTally
from gateway.core.pricing import Price, PriceTerms
from gateway.core.refusals import Fault
from gateway.core.request_record import KeptRecord, RequestRecord
from gateway.core.reservation import CHARGE_MAX, Hold, Holds, LimitStatuses, Reservation
from gateway.core.snapshot import Model
from gateway.core.stream_tally import StreamTally
from gateway.core.usage import Usage, UsageSource
from gateway.stages.settle import settle, settlement, usage_of
from gateway.store.contract import SettlementRest
from tests.unit.fakes import NOW_MS, Ledgers, Unrecorded, body_of, exchange_of, limit, target

UTC = ZoneInfo("UTC")
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":45}}\n\n'
ERROR = b'data: {"error":{"message":"out of memory"}}\n\n'
ENTERED = 7


def estimated(output: int) -> Usage:
    return Usage(ENTERED, output, source=UsageSource.ESTIMATED)


def seen(*pieces: bytes, error: GatewayError | None = None, status: int = 200) -> Exchange:
    """An exchange whose stream has brought these pieces when it ended."""
    exchange, _ = exchange_of(body_of(stream=True))
    tally = exchange.tally = StreamTally(CHAT, merge=True)
    for piece in pieces:
        tally.feed(piece)
    exchange.status, exchange.error, exchange.whole = status, error, error is None
    return exchange


def plain(body: bytes, *, error: GatewayError | None = None, status: int = 200) -> Exchange:
    exchange, _ = exchange_of()
    tally = exchange.tally = PlainTally(CHAT, fault=Fault.UNKNOWN if status >= 400 else None)
    tally.feed(body)
    exchange.error, exchange.whole = error, error is None
    exchange.status = status if error is None else error.status
    return exchange


def unanswered(error: GatewayError, *, forwarded: bool = True) -> Exchange:
    exchange, _ = exchange_of()
    exchange.status, exchange.error = error.status, error
    if not forwarded:
        exchange.target = None
    return exchange


def used(exchange: Exchange) -> Usage | None:
    assert exchange.parsed is not None
    return usage_of(exchange, exchange.parsed, Estimator())


WORDS = [CHUNK % word for word in (b"Once", b" upon", b" a", b" time", b"")]


@pytest.mark.parametrize("name", ["generated_text", "response", "output"])
def test_an_answer_in_another_apis_shape_is_charged_for_its_text(name: str) -> None:
    body = b'{"id":"x","%b":"%b"}' % (name.encode(), b"word " * 100)
    assert used(plain(body)) == estimated(125)
    assert used(plain(b'{"id":"x","choices":[],"%b":"%b"}' % (name.encode(), b"word " * 100))) == estimated(0)


def test_what_the_upstream_reports_is_what_was_used() -> None:
    assert used(seen(*WORDS, USAGE)) == Usage(12, 45)
    assert used(plain(b'{"usage":{"prompt_tokens":12,"completion_tokens":45}}')) == Usage(12, 45)


def test_an_explicit_zero_is_zero() -> None:
    zero = USAGE.replace(b"12", b"0").replace(b"45", b"0")
    assert used(seen(*WORDS, zero)) == Usage(0, 0)
    assert used(plain(b'{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}')) == Usage(0, 0)


@pytest.mark.parametrize("entered", [12, 0])
def test_what_follows_the_last_report_of_a_whole_stream_is_in_it(entered: int) -> None:
    usage = USAGE.replace(b"12", b"%d" % entered)
    assert used(seen(WORDS[0], usage, *WORDS[1:])) == Usage(entered, 45)


@pytest.mark.parametrize("entered", [12, 0])
def test_zeros_in_chunks_before_the_last_do_not_make_a_stream_free_that_ends_early(entered: int) -> None:
    usage = b'"usage":{"prompt_tokens":%d,"completion_tokens":0}}\n\n' % entered
    words = [word.replace(b"}\n\n", b"," + usage) for word in WORDS]
    assert used(seen(*words[:3], error=ClientGone("It left."))) == msgspec.structs.replace(
        estimated(3), input=entered or ENTERED
    )
    assert used(seen(words[-1], error=UpstreamBroke("It broke."))) == Usage(entered, 0)
    assert used(seen(*words)) == Usage(entered, 0)
    assert used(seen(*words, USAGE)) == Usage(12, 45)


def test_a_whole_stream_without_usage_is_estimated() -> None:
    assert used(seen(*WORDS)) == estimated(4)


def test_a_whole_answer_without_usage_is_estimated_from_its_bytes() -> None:
    assert used(plain(b"x" * 4_000)) == estimated(1_000)
    assert used(plain(b"{}")) == estimated(0)


@pytest.mark.parametrize("k", range(1, len(WORDS)))
@pytest.mark.parametrize(
    "error", [ClientGone("It left."), UpstreamBroke("It broke."), UpstreamTimedOut("Silent."), ShuttingDown("Down.")]
)
def test_after_k_events_at_least_what_was_delivered_is_charged(k: int, error: GatewayError) -> None:
    usage = used(seen(*WORDS[:k], WORDS[k][:30], error=error))
    assert usage == estimated(k)


def test_an_event_of_many_words_is_many_tokens() -> None:
    usage = used(seen(CHUNK % b"", CHUNK % (b"word " * 400), error=ClientGone("It left.")))
    assert usage == estimated(400)


def test_half_a_long_event_is_charged() -> None:
    half = (CHUNK % (b"x" * 200_000))[:-1_000]
    usage = used(seen(half, error=UpstreamBroke("It broke.")))
    assert usage is not None
    assert usage.output > 30_000


def test_usage_in_every_chunk_counts_as_far_as_it_came() -> None:
    counted = CHUNK.replace(b"}\n", b',"usage":{"prompt_tokens":3,"completion_tokens":2}}\n') % b"a"
    assert used(seen(counted, error=ClientGone("It left."))) == Usage(3, 2)


@pytest.mark.parametrize("error", [ClientGone("left"), UpstreamBroke("broke"), ShuttingDown("over")])
def test_what_a_stream_delivered_behind_its_last_report_is_charged_where_it_ended_early(error: GatewayError) -> None:
    first = CHUNK.replace(b"}\n\n", b',"usage":{"prompt_tokens":12,"completion_tokens":1}}\n\n') % b"word"
    rest = [CHUNK % b"a %d" % number for number in range(50)]
    exchange = seen(first, *rest, error=error)
    assert used(exchange) == Usage(12, 51, source=UsageSource.ESTIMATED)
    exchange = seen(first, *rest, error=None)
    assert used(exchange) == Usage(12, 1)


@pytest.mark.parametrize("report", ['{"completion_tokens":45}', '{"prompt_tokens":null,"completion_tokens":45}'])
def test_an_answer_that_reports_its_output_alone_pays_for_its_prompt(report: str) -> None:
    assert used(plain(b'{"choices":[{"message":{"content":"a"}}],"usage":%b}' % report.encode())) == estimated(45)
    stream = seen(CHUNK % b"word", b'data: {"choices":[],"usage":%b}\n\n' % report.encode())
    assert used(stream) == estimated(45)


def test_a_client_that_leaves_before_the_first_byte_pays_for_its_prompt() -> None:
    gone = ClientGone("It left.")
    assert used(unanswered(gone)) == estimated(0)
    assert used(seen(error=gone)) == estimated(0)
    assert used(seen(b": processing\n\n", error=gone)) == estimated(0)


def test_a_page_that_came_too_late_to_be_given_to_the_client_is_free() -> None:
    for error, usage in ((None, estimated(1_000)), (UpstreamRefused("It did not stream."), None)):
        exchange = plain(b"x" * 4_000)
        assert isinstance(exchange.tally, PlainTally)
        exchange.tally.close()
        exchange.error = error
        assert used(exchange) == usage


def test_a_client_that_leaves_a_plain_answer_pays_for_what_came() -> None:
    assert used(plain(b"x" * 4_000, error=ClientGone("It left."))) == estimated(1_000)


def test_a_client_that_leaves_before_its_plain_answer_pays_for_what_was_made_meanwhile() -> None:
    exchange = unanswered(ClientGone("It left."))
    exchange.upstream_seconds = 4.0
    assert exchange.parsed is not None
    exchange.reservation = Reservation("exchange-1", NOW_MS, 1_000, False, Holds(), LimitStatuses())
    made = int(4 * TOKENS_PER_SECOND_AT_FIRST)
    assert used(exchange) == estimated(made)
    exchange.upstream_seconds = 1_000.0
    assert used(exchange) == estimated(1_000)
    exchange.parsed = msgspec.structs.replace(exchange.parsed, output_cap=50)
    assert used(exchange) == estimated(50)
    exchange.parsed = msgspec.structs.replace(exchange.parsed, stream=True)
    assert used(exchange) == estimated(0)


def test_an_answer_that_a_strict_parser_refuses_is_charged() -> None:
    body = b'{"choices":[{"message":{"content":"caf\\ud83d"},"logprobs":[-Infinity]}],%b"x":1}'
    reported = b'"usage":{"prompt_tokens":12,"completion_tokens":45},'
    assert used(plain(body % reported)) == Usage(12, 45)
    unreported = used(plain(body % b""))
    assert unreported is not None
    assert (unreported.source, unreported.output) == (UsageSource.ESTIMATED, 1)


def test_a_client_that_leaves_before_anything_was_forwarded_pays_nothing() -> None:
    assert used(unanswered(ClientGone("It left."), forwarded=False)) is None


@pytest.mark.parametrize(
    "error",
    [
        UpstreamUnreachable("It refused."),
        UpstreamTimedOut("It fell silent."),
        NoTarget("Nobody."),
        ShuttingDown("Down."),
        StoreUnavailable("Out."),
    ],
)
def test_a_request_without_an_answer_is_free(error: GatewayError) -> None:
    assert used(unanswered(error)) is None


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 499, 500, 503, 529])
def test_an_upstreams_error_is_free_even_if_it_reports_usage(status: int) -> None:
    error = b'{"error":{"message":"%b"},"usage":{"prompt_tokens":5,"completion_tokens":5}}' % (b"x" * 9_000)
    assert used(plain(error, status=status)) is None
    assert used(seen(ERROR, status=status)) is None
    left = plain(error, status=status)
    left.error, left.status = ClientGone("It left."), 499
    assert used(left) is None


@pytest.mark.parametrize("before", [(), (b": processing\n\n",)])
@pytest.mark.parametrize("error", [None, UpstreamBroke("It broke.")])
def test_an_error_event_before_any_content_is_free(before: tuple[bytes, ...], error: GatewayError | None) -> None:
    assert used(seen(*before, ERROR, error=error)) is None


def test_an_error_event_after_content_does_not_make_that_free() -> None:
    assert used(seen(*WORDS, ERROR)) == estimated(4)
    assert used(seen(*WORDS, ERROR, error=UpstreamBroke("It broke."))) == estimated(4)


@pytest.mark.parametrize("error", [UpstreamBroke("It broke."), UpstreamTimedOut("Silent."), ShuttingDown("Down.")])
def test_a_stream_that_fails_before_any_content_is_free(error: GatewayError) -> None:
    assert used(seen(error=error)) is None
    assert used(seen(b": processing\n\n", WORDS[0][:20], error=error)) is None


def test_a_whole_stream_of_nothing_pays_for_its_prompt() -> None:
    assert used(seen(b"data: [DONE]\n\n")) == estimated(0)


def test_a_plain_answer_that_broke_before_the_client_had_any_is_free() -> None:
    assert used(plain(b"x" * 4_000, error=UpstreamBroke("It broke."))) is None


def test_an_endpoint_without_output_has_none_to_estimate() -> None:
    exchange, parsed = exchange_of(body_of(input="x"), endpoint=ENDPOINTS["/v1/embeddings"])
    tally = exchange.tally = PlainTally(parsed.endpoint)
    tally.feed(b'{"data":[%b]}' % (b"0," * 10_000))
    exchange.status, exchange.whole = 200, True
    assert usage_of(exchange, parsed, Estimator()) == estimated(0)


HOLDS = Holds.of(
    [
        Hold(limit(meter, per), 999, 5)
        for meter, per in [
            (Meter.REQUESTS, Per.MINUTE),
            (Meter.CONCURRENT, None),
            (Meter.TOKENS, Per.MINUTE),
            (Meter.INPUT_TOKENS, Per.DAY),
            (Meter.OUTPUT_TOKENS, Per.DAY),
            (Meter.USD, Per.MONTH),
        ]
    ]
)
COST = 29
"""Micro-dollars: 1.8 for the input and 27 for the output, rounded."""


def held(exchange: Exchange, at_ms: int = NOW_MS) -> Reservation:
    reservation = exchange.reservation = Reservation("exchange-1", at_ms, 10, False, HOLDS, LimitStatuses())
    return reservation


async def settle_now(exchange: Exchange, store: Ledgers, recorder: Unrecorded) -> None:
    ended: list[SettlementRest | None] = []
    settle(exchange, UTC, store, recorder, ended.append)
    (rest,) = ended
    if rest is not None:
        await rest


async def test_each_limit_is_settled_to_what_was_used_of_it() -> None:
    exchange, store = seen(*WORDS, USAGE), Ledgers()
    held(exchange)
    await settle_now(exchange, store, Unrecorded())
    (settled,) = store.settled
    assert settled.holds == HOLDS
    assert {hold.limit.meter for hold in HOLDS} == set(Meter)
    assert list(settled.actual) == [0, 0, 57, 12, 45, COST]
    assert (exchange.usage, exchange.cost) == (Usage(12, 45), COST)
    assert settled.entry is not None
    assert (settled.id, settled.entry.usage, settled.entry.cost) == ("exchange-1", Usage(12, 45), COST)
    assert (settled.entry.team, settled.entry.key, settled.entry.model) == ("search", "0123456789ab", "m")


async def test_the_record_of_a_request_goes_with_its_settlement_and_knows_what_was_used() -> None:
    exchange, store = seen(*WORDS, USAGE), Ledgers()
    held(exchange)
    known: list[Usage | None] = []
    kept = KeptRecord(RequestRecord("exchange-1", "req-1", NOW_MS, 200, 1.0), 1, 1)

    class Recorder(Unrecorded):
        def of(self, x: Exchange) -> KeptRecord:
            known.append(x.usage)
            return kept

    recorder = Recorder()
    await settle_now(exchange, store, recorder)
    assert (store.settled[0].record, known, recorder.unsettled) == (kept, [Usage(12, 45)], [])


@pytest.mark.parametrize("user", ["", "ann"])
async def test_the_bill_says_where_and_for_whom_a_request_was_served(user: str) -> None:
    exchange, store = seen(*WORDS, USAGE), Ledgers()
    held(exchange)
    assert exchange.parsed is not None
    assert exchange.caller is not None
    exchange.parsed = msgspec.structs.replace(exchange.parsed, user=user)
    exchange.caller = msgspec.structs.replace(exchange.caller, cost_center="4711")
    exchange.target = exchange.parsed.model.targets[0]
    await settle_now(exchange, store, Unrecorded())
    entry = store.settled[0].entry
    assert entry is not None
    assert (entry.upstream, entry.user, entry.cost_center) == (exchange.target.upstream.name, user, "4711")


async def test_a_free_request_gives_everything_back_and_has_no_entry() -> None:
    exchange, store = unanswered(UpstreamUnreachable("It refused.")), Ledgers()
    held(exchange)
    await settle_now(exchange, store, Unrecorded())
    (settled,) = store.settled
    assert list(settled.actual) == [0, 0, 0, 0, 0, 0]
    assert (settled.entry, exchange.usage, exchange.cost) == (None, None, 0)


@pytest.mark.parametrize(
    ("zone", "at_ms", "day"),
    [
        ("UTC", 1_793_923_199_999, "2026-11-05"),
        ("UTC", 1_793_923_200_000, "2026-11-06"),
        ("Pacific/Kiritimati", 1_793_880_000_000, "2026-11-06"),
        ("America/New_York", 1_793_923_200_000, "2026-11-05"),
    ],
)
def test_the_day_is_that_of_the_admission_in_the_configured_zone(zone: str, at_ms: int, day: str) -> None:
    exchange = seen(*WORDS, USAGE)
    exchange.usage = Usage(1, 1)
    assert exchange.parsed is not None
    entry = settlement(exchange, exchange.parsed, held(exchange, at_ms), ZoneInfo(zone)).entry
    assert entry is not None
    assert entry.day == day


async def test_a_model_without_a_price_costs_nothing() -> None:
    exchange = seen(*WORDS, USAGE)
    exchange.target = target()
    await settle_now(exchange, Ledgers(), Unrecorded())
    assert (exchange.usage, exchange.cost) == (Usage(12, 45), 0)


@pytest.mark.parametrize(("served_by", "cost"), [(0, 12 * 2 + 45 * 10), (1, 12 * 3 + 45 * 7)])
async def test_the_route_that_served_has_its_own_price(served_by: int, cost: int) -> None:
    prices = [Price(2_000_000, 10_000_000), Price(3_000_000, 7_000_000)]
    exchange = seen(*WORDS, USAGE)
    exchange.target = [target(name, price=price) for name, price in zip("ab", prices, strict=True)][served_by]
    await settle_now(exchange, Ledgers(), Unrecorded())
    assert exchange.cost == cost


async def test_what_an_upstream_reports_costs_no_more_than_a_store_can_count() -> None:
    exchange = seen(*WORDS, USAGE.replace(b"45", b"999999999999"))
    exchange.target = target(price=Price(0, 10**14))
    await settle_now(exchange, Ledgers(), Unrecorded())
    assert exchange.cost == CHARGE_MAX


async def taught(exchange: Exchange) -> int:
    """What is expected of the model's output after sixteen exchanges like this one."""
    estimator = exchange.estimator = Estimator()
    for _ in range(16):
        await settle_now(exchange, Ledgers(), Unrecorded())
    return estimator.output_tokens()


async def test_a_whole_answer_with_reported_usage_teaches() -> None:
    assert await taught(seen(*WORDS, USAGE)) == 45


async def test_of_several_choices_each_teaches_its_share() -> None:
    exchange = seen(*WORDS, USAGE)
    assert exchange.parsed is not None
    exchange.parsed = msgspec.structs.replace(exchange.parsed, choices=9)
    assert await taught(exchange) == 5


async def test_estimates_and_halves_teach_nothing() -> None:
    assert await taught(seen(*WORDS)) == OUTPUT_AT_FIRST
    assert await taught(seen(*WORDS, USAGE, error=ClientGone("It left."))) == OUTPUT_AT_FIRST


async def test_a_store_that_is_out_is_told_and_the_usage_is_known() -> None:
    exchange = seen(*WORDS, USAGE)
    with pytest.raises(StoreUnavailable):
        await settle_now(exchange, Ledgers(outage=StoreUnavailable("Out.")), Unrecorded())
    assert exchange.usage == Usage(12, 45)


MESSAGE_START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}\n\n'
)
ADVISED = b'{"type":"advisor_message","model":"opus","input_tokens":900,"output_tokens":200}'
MESSAGE_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word"}}\n\n'
)


def test_a_cut_stream_whose_usage_comes_in_parts_pays_for_what_was_delivered() -> None:
    messages = ENDPOINTS["/v1/messages"]
    exchange, parsed = exchange_of(body_of(max_tokens=500), endpoint=messages)
    tally = exchange.tally = StreamTally(messages, merge=False)
    exchange.status, exchange.error = 200, ClientGone("It left.")
    tally.feed(MESSAGE_START + MESSAGE_DELTA * 200)
    usage = usage_of(exchange, parsed, Estimator())
    assert usage is not None
    assert (usage.input, usage.source) == (9, UsageSource.ESTIMATED)
    assert 200 <= usage.output <= 202


OPUS = Usage(900, 200, model="opus")


@pytest.mark.parametrize(
    ("used", "first", "others"),
    [
        (b'"input_tokens":9,"output_tokens":10', Usage(9, 10), (OPUS,)),
        (b'"input_tokens":0,"output_tokens":0', Usage(0, 0), (OPUS, OPUS)),
    ],
    ids=["a turn and its advisor", "advisors alone"],
)
def test_what_was_delivered_behind_a_report_is_of_the_model_that_was_asked_for(
    used: bytes, first: Usage, others: tuple[Usage, ...]
) -> None:
    messages = ENDPOINTS["/v1/messages"]
    exchange, parsed = exchange_of(body_of(max_tokens=500), endpoint=messages)
    tally = exchange.tally = StreamTally(messages, merge=False)
    exchange.status, exchange.error = 200, ClientGone("It left.")
    advised = b",".join([ADVISED] * len(others))
    turn = b"" if len(others) > 1 else b'{"type":"message",%b},' % used
    tally.feed(b'data: {"type":"message_delta","usage":{%b,"iterations":[%b%b]}}\n\n' % (used, turn, advised))
    tally.feed(MESSAGE_DELTA * 20)
    usage = usage_of(exchange, parsed, Estimator())
    assert usage is not None
    more = usage.output - first.output - 200 * len(others)
    assert more >= 20
    assert set(usage.parts) == {Usage(first.input, first.output + more), *others}
    assert (usage.input, usage.source) == (first.input + 900 * len(others), UsageSource.ESTIMATED)


@pytest.mark.parametrize("entered", [0, 9])
def test_zeros_at_the_beginning_do_not_make_a_stream_free_that_its_client_leaves_before_any_text(entered: int) -> None:
    messages = ENDPOINTS["/v1/messages"]
    exchange, parsed = exchange_of(body_of(max_tokens=500), endpoint=messages)
    parsed = msgspec.structs.replace(parsed, stream=True)
    tally = exchange.tally = StreamTally(messages, merge=False)
    exchange.status, exchange.error = 200, ClientGone("It left.")
    begun = MESSAGE_START.replace(
        b'"input_tokens":9,"output_tokens":1', b'"input_tokens":%d,"output_tokens":0' % entered
    )
    tally.feed(begun)
    usage = usage_of(exchange, parsed, Estimator())
    assert usage is not None
    assert usage.input == (entered or exchange.estimated_input) > 0


@pytest.mark.parametrize(
    ("shown", "images"), [(b"", 2), (b'{"b64_json":"x"}', 1), (b'{"url":"x"},{"url":"y"},{"url":"z"}', 3)]
)
def test_images_are_those_that_the_answer_shows_or_else_those_that_were_asked_for(shown: bytes, images: int) -> None:
    endpoint = ENDPOINTS["/v1/images/generations"]
    exchange, parsed = exchange_of(body_of(prompt="A cat", n=2), endpoint=endpoint)
    exchange.status, exchange.whole = 200, True
    tally = exchange.tally = PlainTally(endpoint)
    tally.feed(b'{"created":1,"data":[%b]}' % shown)
    usage = usage_of(exchange, parsed, Estimator())
    assert usage is not None
    assert usage.images == images


PRIORITY = Price.of(
    PriceTerms(
        {"input": 2_000_000, "output": 4_000_000},
        tiers={"priority": PriceTerms({"input": 20_000_000, "output": 40_000_000})},
    )
)
WORD_OF_CHAT = b'data: {%b"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
WORD_OF_A_RESPONSE = b'data: {%b"type":"response.output_text.delta","delta":"word"}\n\n'


@pytest.mark.parametrize(
    ("path", "word", "asked", "charged"),
    [
        ("/v1/responses", WORD_OF_A_RESPONSE % b"", "priority", "priority"),
        ("/v1/responses", WORD_OF_A_RESPONSE % b"", "Priority", "priority"),
        ("/v1/responses", WORD_OF_A_RESPONSE % b"", "flex", ""),
        ("/v1/responses", WORD_OF_A_RESPONSE % b"", None, ""),
        ("/v1/chat/completions", WORD_OF_CHAT % b"", "priority", "priority"),
        ("/v1/chat/completions", WORD_OF_CHAT % b'"service_tier":"default",', "priority", "default"),
        ("/v1/responses", b"", "priority", "priority"),
    ],
)
async def test_an_answer_that_ends_before_it_names_its_tier_costs_what_the_tier_that_was_asked_for_does(
    path: str, word: bytes, asked: str | None, charged: str
) -> None:
    endpoint = ENDPOINTS[path]
    model = Model("m", (target(price=PRIORITY),))
    body = body_of(stream=True, input="Go.", service_tier=asked)
    exchange, _ = exchange_of(body, endpoint=endpoint, model=model)
    if word:
        exchange.tally = StreamTally(endpoint, merge=False)
        exchange.tally.feed(word * 3)
    exchange.status, exchange.error = 200, ClientGone("It left.")
    held(exchange)
    await settle_now(exchange, Ledgers(), Unrecorded())
    assert exchange.usage is not None
    assert exchange.usage.service_tier == charged
    assert exchange.cost == (10 if charged == "priority" else 1) * (7 * 2 + exchange.usage.output * 4)


CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","output":[]}}\n\n'
BEGUN = b'data: {"type":"response.in_progress","response":{"id":"resp_1","output":[]}}\n\n'
FAILED = b'data: {"type":"response.failed","response":{"id":"resp_1","error":{"code":"server_error"},"usage":null}}\n\n'
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
STARTED = b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","content":[]}}\n\n'
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
FILTERED = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
NO_TEXT = b'data: {"choices":[{"index":0,"text":"","finish_reason":null}]}\n\n'
OPENINGS = [
    ("/v1/responses", CREATED + BEGUN, FAILED),
    ("/v1/messages", STARTED + PING, OVERLOADED),
    ("/v1/chat/completions", FILTERED + ROLE, ERROR),
    ("/v1/completions", NO_TEXT, ERROR),
]


def streamed(path: str, *pieces: bytes, error: GatewayError | None = None) -> Exchange:
    endpoint = ENDPOINTS[path]
    exchange, parsed = exchange_of(body_of(stream=True, input="x", prompt="x", max_tokens=9), endpoint=endpoint)
    exchange.parsed = msgspec.structs.replace(parsed, stream=True)
    tally = exchange.tally = StreamTally(endpoint, merge=False)
    for piece in pieces:
        tally.feed(piece)
    exchange.status, exchange.error, exchange.whole = 200, error, error is None
    return exchange


@pytest.mark.parametrize(("path", "opening", "failure"), OPENINGS)
def test_a_stream_that_fails_behind_its_opening_is_free_and_one_that_its_client_leaves_is_not(
    path: str, opening: bytes, failure: bytes
) -> None:
    assert used(streamed(path, opening, failure)) is None
    assert used(streamed(path, opening, failure, error=UpstreamBroke("It broke."))) is None
    for error in (ClientGone("It left."), UpstreamTimedOut("Silent.")):
        assert used(streamed(path, opening, error=error)) == estimated(0)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/v1/responses", b'{"type":"response.audio.delta","delta":"UklGRg=="}'),
        ("/v1/responses", b'{"type":"response.output_item.added","item":{"type":"reasoning"}}'),
        ("/v1/messages", b'{"type":"content_block_start","content_block":{"type":"redacted_thinking","data":"x"}}'),
        ("/v1/chat/completions", b'{"choices":[{"index":0,"delta":{"audio":{"data":"UklGRg=="}}}]}'),
        ("/v1/chat/completions", b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'),
    ],
)
def test_a_part_of_an_answer_that_has_no_text_is_not_free(path: str, part: bytes) -> None:
    opening = next(opening for of, opening, _ in OPENINGS if of == path)
    failure = next(failure for of, _, failure in OPENINGS if of == path)
    assert used(streamed(path, opening, b"data: " + part + b"\n\n", failure)) == estimated(0)
