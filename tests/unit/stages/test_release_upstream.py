from __future__ import annotations

import asyncio

import pytest

from gateway.core.endpoints import CHAT
from gateway.core.errors import ClientGone, GatewayError, UpstreamBroke, UpstreamRefused
from gateway.core.exchange import Exchange
from gateway.core.health import Outcome
from gateway.core.plain_tally import PlainTally
from gateway.core.refusals import Fault
from gateway.core.stream_tally import StreamTally
from gateway.core.usage import Usage
from gateway.stages.release_upstream import READ_ON_AT_ONCE, READ_ON_BYTES, UpstreamReleaser, outcome_of
from tests.unit.fakes import ScriptedAnswer, StandingClock, exchange_of, stream, target

CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'


def left(answer: ScriptedAnswer, *, reads_on: bool = True, error: GatewayError | None = None) -> Exchange:
    """An exchange whose client left in the midst of this answer."""
    exchange, _ = exchange_of()
    exchange.response, exchange.target = answer, target(reads_on=reads_on)
    exchange.tally = StreamTally(CHAT, merge=True)
    exchange.error = error or ClientGone("It left.")
    return exchange


async def test_a_client_that_leaves_ends_the_upstreams_work_at_once() -> None:
    answer = stream(CHUNK, hangs=True)
    await UpstreamReleaser(StandingClock()).release(left(answer, reads_on=False))
    assert answer.abandoned


async def test_where_it_is_wished_the_stream_is_read_on_to_its_usage() -> None:
    answer = stream(CHUNK, USAGE)
    exchange = left(answer)
    await UpstreamReleaser(StandingClock()).release(exchange)
    assert exchange.tally is not None
    assert (exchange.tally.usage, answer.abandoned) == (Usage(3, 2), False)


async def test_an_answer_that_was_paused_for_its_client_flows_again() -> None:
    answer = stream(CHUNK, USAGE)
    answer.pause()
    exchange = left(answer)
    await UpstreamReleaser(StandingClock()).release(exchange)
    assert exchange.tally is not None
    assert exchange.tally.usage == Usage(3, 2)


@pytest.mark.parametrize("error", [UpstreamBroke("It broke.")])
async def test_only_a_client_that_left_is_read_on_for(error: GatewayError) -> None:
    answer = stream(CHUNK, hangs=True)
    await UpstreamReleaser(StandingClock()).release(left(answer, error=error))
    assert answer.abandoned


async def test_a_plain_answer_is_read_on_too() -> None:
    exchange = left(ScriptedAnswer(b'{"usage":{"prompt_tokens":3,', b'"completion_tokens":2}}'))
    exchange.tally = PlainTally(CHAT)
    await UpstreamReleaser(StandingClock()).release(exchange)
    assert exchange.tally.usage == Usage(3, 2)


async def test_an_upstream_that_breaks_while_it_is_read_on_is_left() -> None:
    answer = stream(CHUNK, failure=UpstreamBroke("It broke."))
    exchange = left(answer)
    await UpstreamReleaser(StandingClock()).release(exchange)
    assert isinstance(exchange.tally, StreamTally)
    assert exchange.tally.events == 1


async def test_reading_on_has_an_end_in_bytes() -> None:
    answer = stream(*[CHUNK * 1_000] * (READ_ON_BYTES // len(CHUNK) // 1_000 + 2), hangs=True)
    await UpstreamReleaser(StandingClock()).release(left(answer))
    assert answer.abandoned


async def test_reading_on_is_for_so_many_at_once() -> None:
    releaser = UpstreamReleaser(StandingClock())
    running = [asyncio.create_task(releaser.release(left(stream(hangs=True)))) for _ in range(READ_ON_AT_ONCE)]
    await asyncio.sleep(0)
    one_more = stream(CHUNK, hangs=True)
    await releaser.release(left(one_more))
    assert one_more.abandoned
    releaser.abort()
    await asyncio.gather(*running)


async def test_a_drain_ends_what_is_read_on() -> None:
    releaser, answer = UpstreamReleaser(StandingClock()), stream(CHUNK, hangs=True)
    running = asyncio.create_task(releaser.release(left(answer)))
    await asyncio.sleep(0)
    releaser.abort()
    await running
    assert answer.abandoned


async def test_an_answer_that_the_client_has_whole_is_read_to_its_end() -> None:
    answer = stream(CHUNK)
    exchange = left(answer)
    exchange.whole = True
    await UpstreamReleaser(StandingClock()).release(exchange)
    assert (answer.is_over, answer.abandoned) == (True, False)


async def test_without_an_answer_there_is_nothing_to_part_from() -> None:
    exchange, _ = exchange_of()
    await UpstreamReleaser(StandingClock()).release(exchange)
    assert exchange.response is None


@pytest.mark.parametrize(
    ("status", "fault", "outcome"),
    [
        (200, None, Outcome.SUCCEEDED),
        (400, Fault.CALLER, Outcome.SUCCEEDED),
        (429, Fault.PROVIDER, Outcome.BUSY),
        (500, Fault.PROVIDER, Outcome.ERROR),
        (500, Fault.CALLER, Outcome.SUCCEEDED),
    ],
)
def test_an_answer_that_came_after_a_keep_alive_is_judged_by_its_own_status(
    status: int, fault: Fault | None, outcome: Outcome
) -> None:
    exchange = left(ScriptedAnswer(b"{}", status=status), error=UpstreamRefused("It came too late."))
    exchange.status, exchange.tally = 200, PlainTally(CHAT)
    exchange.tally.fault = fault
    assert outcome_of(exchange) is outcome


POLICY = b'data: {"type":"error","code":"content_policy_violation","message":"flagged"}\n\n'
FAILED = b'data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"x"}}}\n\n'
INSPECTED = b'data: {"error":{"code":"data_inspection_failed","message":"x"}}\n\n'


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (POLICY, Outcome.SUCCEEDED),
        (INSPECTED, Outcome.SUCCEEDED),
        (FAILED, Outcome.ERROR),
        (FAILED.replace(b"server_error", b"invalid_prompt"), Outcome.SUCCEEDED),
        (b'data: {"error":{"message":"it broke"}}\n\n', Outcome.ERROR),
        (b'data: {"error":null,"choices":[]}\n\n', Outcome.SUCCEEDED),
    ],
)
def test_an_event_inside_a_stream_says_whose_fault_its_failure_is(event: bytes, outcome: Outcome) -> None:
    exchange = left(stream())
    exchange.error, exchange.status = None, 200
    assert isinstance(exchange.tally, StreamTally)
    exchange.tally.feed(CHUNK + event)
    exchange.tally.close()
    assert outcome_of(exchange) is outcome
