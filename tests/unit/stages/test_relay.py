from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from gateway.core.endpoints import CHAT, COMPLETIONS, ENDPOINTS, Endpoint
from gateway.core.errors import UpstreamBroke, UpstreamRefused, UpstreamTimedOut
from gateway.core.limits import Limit, Meter, Per, WhenSpent
from gateway.core.reservation import Hold, Holds, LimitStatus, LimitStatuses, Reservation
from gateway.core.stream_tally import HELD_MAX, StreamTally
from gateway.core.usage import Usage, UsageSource
from gateway.stages.forward import WHOLE_MAX, forward
from gateway.stages.relay import relay, relay_if_whole
from tests.unit.fakes import (
    CALLER,
    NOW_MS,
    Client,
    ScriptedAnswer,
    ScriptedClient,
    StandingClock,
    body_of,
    exchange_of,
    limit,
    limit_statuses_of,
    stream,
    target,
    upstream_services,
)

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
MERGED = FINISH.replace(b"}]}\n", b'}],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n')
DONE = b"data: [DONE]\n\n"
NUMBERS = Usage(3, 2)


class Relayed:
    """One answer on its way to one client."""

    def __init__(
        self, answer: ScriptedAnswer, client: Client | None = None, *, endpoint: Endpoint = CHAT, **members: Any
    ) -> None:
        self.response, self.client, self.clock = answer, client or Client(), StandingClock()
        self.exchange, self.parsed = exchange_of(body_of(**members), endpoint=endpoint)

    async def run(self) -> Relayed:
        """As `forward` gives it."""
        targets, services = [target()], upstream_services(ScriptedClient(self.response))
        response = await forward(self.exchange, self.parsed, targets, services, self.client)
        self.exchange.response = response
        if not relay_if_whole(self.exchange, self.parsed, response, self.client):
            await relay(self.exchange, self.parsed, response, self.client, self.clock)
        return self

    async def fail(self, kind: type[Exception]) -> Relayed:
        with pytest.raises(kind):
            await self.run()
        return self


async def let_run() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_stream_is_relayed_with_its_usage_in_the_last_chunk() -> None:
    relayed = await Relayed(stream(CHUNK, FINISH, USAGE, DONE), stream=True).run()
    assert relayed.client.body == CHUNK + MERGED + DONE
    assert (relayed.client.ended, relayed.client.status, relayed.exchange.whole) == (True, 200, True)
    assert relayed.exchange.tally is not None
    assert relayed.exchange.tally.usage == NUMBERS


async def test_a_client_that_asked_for_usage_gets_the_same_bytes() -> None:
    pieces = (CHUNK, FINISH, USAGE, DONE)
    relayed = await Relayed(stream(*pieces), stream=True, stream_options={"include_usage": True}).run()
    assert relayed.client.pieces == list(pieces)


@pytest.mark.parametrize("half", [CHUNK[:-1], DONE[:-2], b"data: ", b": bye", b"event: message\n" + CHUNK[:-2]])
async def test_a_stream_may_end_without_its_last_blank_line(half: bytes) -> None:
    relayed = await Relayed(stream(CHUNK, half), stream=True).run()
    assert (relayed.client.body, relayed.client.ended) == (CHUNK + half, True)


@pytest.mark.parametrize("half", [CHUNK[:-5], DONE[:9], b'data: {"choices":[{"index":0,"delta":{"content":"}'])
async def test_a_stream_that_ends_inside_an_event_is_broken(half: bytes) -> None:
    relayed = await Relayed(stream(CHUNK, half), stream=True).fail(UpstreamBroke)
    assert (relayed.client.body, relayed.client.ended, relayed.exchange.whole) == (CHUNK, False, False)
    assert isinstance(relayed.exchange.tally, StreamTally)
    assert relayed.exchange.tally.events == 1


async def test_a_stream_that_ends_inside_a_great_event_is_broken() -> None:
    great = b'data: {"choices":[{"delta":{"content":"' + b"x" * HELD_MAX
    await Relayed(stream(CHUNK, great), stream=True).fail(UpstreamBroke)
    whole = await Relayed(stream(CHUNK, great + b'"}}]}'), stream=True).run()
    assert whole.client.body == CHUNK + great + b'"}}]}'


async def test_every_chunk_goes_out_by_itself() -> None:
    relayed = await Relayed(stream(CHUNK, CHUNK[:9], CHUNK[9:], CHUNK * 2, FINISH, DONE), stream=True).run()
    assert relayed.client.pieces == [CHUNK, CHUNK, CHUNK * 2, FINISH + DONE]


async def test_only_chat_and_completions_are_merged() -> None:
    answer, responses = stream(CHUNK, FINISH, USAGE, DONE), ENDPOINTS["/v1/responses"]
    relayed = await Relayed(answer, endpoint=responses, input="x", stream=True).run()
    assert relayed.client.body == CHUNK + FINISH + USAGE + DONE


@pytest.mark.parametrize("failure", [UpstreamBroke("It broke."), UpstreamTimedOut("It fell silent.")])
async def test_a_stream_that_breaks_leaves_whole_events_and_no_end(failure: Any) -> None:
    relayed = await Relayed(stream(CHUNK, FINISH, USAGE, CHUNK[:20], failure=failure), stream=True).fail(type(failure))
    assert relayed.client.body == CHUNK + MERGED
    assert (relayed.client.ended, relayed.exchange.whole) == (False, False)


async def cancel(relayed: Relayed, *, client_left: bool = False) -> None:
    """Relay what there is, and then end the request."""
    running = asyncio.create_task(relayed.run())
    await let_run()
    relayed.client.gone = client_left
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_stream_that_a_drain_cuts_leaves_whole_events() -> None:
    relayed = Relayed(stream(CHUNK, FINISH, CHUNK[:20], hangs=True), stream=True)
    await cancel(relayed)
    assert relayed.client.body == CHUNK + FINISH


async def test_a_stream_whose_client_left_can_be_read_on() -> None:
    relayed = Relayed(stream(CHUNK, FINISH, USAGE[:20], hangs=True), stream=True)
    await cancel(relayed, client_left=True)
    relayed.response.say(USAGE[20:], DONE)
    assert relayed.exchange.tally is not None
    assert relayed.exchange.tally.usage == NUMBERS


async def test_a_client_that_leaves_after_the_last_event_has_the_whole_answer() -> None:
    """Its writer learns that, too: else it would look for silence ever after."""
    relayed = Relayed(stream(CHUNK, FINISH, USAGE, DONE, hangs=True), stream=True)
    await cancel(relayed, client_left=True)
    assert (relayed.exchange.whole, relayed.client.ended) == (True, True)


async def test_of_the_headers_of_a_stream_only_the_upstreams_id_is_kept() -> None:
    answer = stream(CHUNK, DONE)
    answer.headers = {**answer.headers, "x-request-id": "abc", "x-served-by": "rack 7"}
    relayed = await Relayed(answer, stream=True).run()
    assert relayed.exchange.response is not None
    assert relayed.exchange.response.headers == answer.headers == {"x-request-id": "abc"}
    assert relayed.client.headers["content-type"].startswith("text/event-stream")


async def test_a_slow_client_slows_the_upstream_down() -> None:
    client = Client(slow_after=2 * len(CHUNK))
    relayed = Relayed(stream(CHUNK, hangs=True), client, stream=True)
    running = asyncio.create_task(relayed.run())
    await let_run()
    relayed.response.say(*[CHUNK] * 6, DONE)
    assert (client.pieces, relayed.response.paused) == ([CHUNK] * 2, True)
    while not running.done():
        client.read()
        await let_run()
    assert client.body == CHUNK * 7 + DONE


async def test_a_long_event_of_a_slow_stream_is_not_kept_back() -> None:
    long = CHUNK[:-7] + b"x" * (3 * HELD_MAX) + CHUNK[-7:]
    relayed = await Relayed(stream(*[long[at : at + 10_000] for at in range(0, len(long), 10_000)], hangs=False)).run()
    assert relayed.client.body == long


async def test_nothing_is_to_be_written_between_the_pieces_of_what_is_no_stream_of_events() -> None:
    headers = {"content-type": "text/event-stream", "content-encoding": "unknown"}
    relayed = Relayed(ScriptedAnswer(b"\x01\x02", b"\n\n", headers=headers, hangs=True), stream=True)
    running = asyncio.create_task(relayed.run())
    await let_run()
    assert relayed.client.pieces == [b"\x01\x02", b"\n\n"]
    assert relayed.client.source is not None
    assert not relayed.client.source.is_between_events()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


ANSWER = b'{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


@pytest.mark.parametrize("length", [{}, {"content-length": str(len(ANSWER))}, {"content-length": "nonsense"}])
async def test_a_plain_answer_is_given_whole(length: dict[str, str]) -> None:
    passed = {
        "content-type": "application/json",
        "openai-version": "1",
        "request-id": "req_1",
        "x-should-retry": "true",
    }
    headers = passed | {"set-cookie": "no", "server": "no", "anthropic-ratelimit-tokens-limit": "no"} | length
    relayed = await Relayed(ScriptedAnswer(ANSWER[:30], ANSWER[30:], headers=headers)).run()
    assert (relayed.client.body, relayed.client.ended, relayed.client.pieces) == (ANSWER, True, [])
    assert relayed.client.headers == passed
    assert relayed.exchange.tally is not None
    assert relayed.exchange.tally.usage == NUMBERS


@pytest.mark.parametrize("size", [WHOLE_MAX - 5, WHOLE_MAX, WHOLE_MAX + 1, 10 * WHOLE_MAX])
@pytest.mark.parametrize("announced", [False, True])
async def test_a_plain_answer_of_any_length_arrives_byte_for_byte(size: int, announced: bool) -> None:
    body = ANSWER[:-1] + b" " * (size - len(ANSWER)) + b"}"
    pieces = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]
    headers = {"content-type": "application/json"} | ({"content-length": str(len(body))} if announced else {})
    client = Client(slow_after=50_000)
    relayed = Relayed(ScriptedAnswer(*pieces, headers=headers), client)
    running = asyncio.create_task(relayed.run())
    await let_run()
    if size > WHOLE_MAX:
        assert len(client.body) < 2 * WHOLE_MAX
    while not running.done():
        client.read()
        await let_run()
    await running
    assert (client.body == body, client.ended, relayed.exchange.whole) == (True, True, True)
    assert relayed.exchange.tally is not None
    assert relayed.exchange.tally.usage == NUMBERS


async def test_a_plain_answer_that_breaks_early_is_not_begun() -> None:
    relayed = await Relayed(ScriptedAnswer(ANSWER[:30], failure=UpstreamBroke("It broke."))).fail(UpstreamBroke)
    assert (relayed.client.started, relayed.client.body, relayed.exchange.whole) == (False, b"", False)


async def test_a_long_plain_answer_that_breaks_does_not_end() -> None:
    answer = ScriptedAnswer(b'{"a":"', b"x" * WHOLE_MAX, b"x" * WHOLE_MAX, failure=UpstreamBroke("It broke."))
    relayed = await Relayed(answer).fail(UpstreamBroke)
    assert (relayed.client.started, relayed.client.ended) == (True, False)


async def test_an_upstreams_own_error_is_given_as_it_is() -> None:
    error = b'{"error":{"message":"context too long"},"usage":{"prompt_tokens":9}}'
    answer = ScriptedAnswer(error, status=400, headers={"content-type": "application/json", "retry-after": "7"})
    relayed = await Relayed(answer).run()
    assert (relayed.client.status, relayed.client.body, relayed.exchange.status) == (400, error, 400)
    assert relayed.client.headers["retry-after"] == "7"
    assert relayed.exchange.tally is not None
    assert (relayed.exchange.tally.usage, relayed.exchange.tally.delivered) == (None, 0)


async def test_an_error_after_a_keep_alive_has_begun_the_stream_is_told_in_it() -> None:
    client = Client()
    client.start(200, [("content-type", "text/event-stream")])
    answer = ScriptedAnswer(b'{"error":{"message":"too long"}}', status=400)
    relayed = await Relayed(answer, client, stream=True).fail(UpstreamRefused)
    tally = relayed.exchange.tally
    assert (relayed.exchange.status, tally and tally.usage, tally and tally.failed, client.body) == (
        200,
        None,
        True,
        b"",
    )


PLAIN_CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello",
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 45, "total_tokens": 57},
}


async def late(answer: dict[str, Any], endpoint: Endpoint = CHAT, **members: Any) -> tuple[Relayed, list[Any]]:
    """A plain answer after a keep-alive has begun the client's stream, and the events that the client gets."""
    client = Client()
    client.start(200, [("content-type", "text/event-stream")])
    relayed = Relayed(ScriptedAnswer(json.dumps(answer).encode()), client, endpoint=endpoint, stream=True, **members)
    await relayed.run()
    events = client.body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return relayed, [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


async def test_a_plain_answer_after_a_keep_alive_is_given_as_a_stream_and_charged() -> None:
    relayed, (content, last) = await late(PLAIN_CHAT)
    assert content["object"] == last["object"] == "chat.completion.chunk"
    delta = content["choices"][0]["delta"]
    assert (delta["content"], delta["tool_calls"][0]["index"]) == ("Hello", 0)
    assert content["choices"][0]["finish_reason"] is None
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "tool_calls")
    assert last["usage"] == PLAIN_CHAT["usage"]
    assert (relayed.client.ended, relayed.exchange.whole) == (True, True)
    assert relayed.exchange.tally is not None
    assert relayed.exchange.tally.usage == Usage(12, 45)


async def test_who_asked_for_usage_gets_it_in_a_chunk_of_its_own_then_too() -> None:
    _, (_, last, usage) = await late(PLAIN_CHAT, stream_options={"include_usage": True})
    assert ("usage" in last, usage["choices"], usage["usage"]) == (False, [], PLAIN_CHAT["usage"])


async def test_a_plain_legacy_answer_after_a_keep_alive_keeps_its_shape() -> None:
    answer = {**PLAIN_CHAT, "object": "text_completion", "choices": [{"text": "Hi", "index": 0, "finish_reason": None}]}
    _, (content, last) = await late(answer, COMPLETIONS, prompt="Say it.")
    assert (content["object"], content["choices"][0]["text"]) == ("text_completion", "Hi")
    assert (last["choices"][0]["text"], last["choices"][0]["finish_reason"]) == ("", "stop")


PLAIN_MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 12, "output_tokens": 45},
}
PLAIN_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [{"id": "i", "type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
    "usage": {"input_tokens": 12, "output_tokens": 45},
}


@pytest.mark.parametrize(
    ("endpoint", "answer", "kinds"),
    [
        (
            ENDPOINTS["/v1/messages"],
            PLAIN_MESSAGE,
            ["message_start"]
            + ["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"]
            + ["content_block_start", "content_block_delta", "content_block_stop"] * 2
            + ["message_delta", "message_stop"],
        ),
        (
            ENDPOINTS["/v1/responses"],
            PLAIN_RESPONSE,
            [
                "response.created",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ],
        ),
    ],
)
async def test_a_plain_answer_of_the_other_apis_after_a_keep_alive_is_a_stream_of_their_events(
    endpoint: Endpoint, answer: dict[str, Any], kinds: list[str]
) -> None:
    client = Client()
    client.start(200, [("content-type", "text/event-stream")])
    body = json.dumps(answer).encode()
    members = {"input": "text", "max_tokens": 50}
    relayed = await Relayed(ScriptedAnswer(body), client, endpoint=endpoint, stream=True, **members).run()
    events = [event.partition("\ndata: ") for event in client.body.decode().split("\n\n")[:-1]]
    assert [head.removeprefix("event: ") for head, _, _ in events] == kinds
    assert [json.loads(data)["type"] for _, _, data in events] == kinds
    tally = StreamTally(endpoint, merge=False)
    tally.feed(client.body)
    assert relayed.exchange.tally is not None
    assert tally.usage == relayed.exchange.tally.usage == Usage(12, 45)


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"object":"list"}', b'{"choices":[]}'])
async def test_what_cannot_be_a_stream_after_a_keep_alive_is_an_error_and_charged_as_reported(body: bytes) -> None:
    client = Client()
    client.start(200, [("content-type", "text/event-stream")])
    relayed = await Relayed(ScriptedAnswer(body), client, stream=True).fail(UpstreamRefused)
    assert relayed.exchange.tally is not None
    assert relayed.exchange.whole is False


async def test_how_limits_stand_is_told_in_the_head() -> None:
    relayed = Relayed(stream(CHUNK, DONE), stream=True)
    limit_status = LimitStatus(CALLER.limits[0], 999_401, 0, 599, NOW_MS + 100)
    relayed.exchange.reservation = Reservation("id", NOW_MS, 10, False, Holds(), limit_statuses_of([limit_status]))
    await relayed.run()
    assert relayed.client.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "x-ratelimit-limit-requests": "1000000",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
    }


async def test_time_from_the_first_byte_on_is_the_upstreams() -> None:
    relayed = Relayed(stream(CHUNK, hangs=True), stream=True)
    running = asyncio.create_task(relayed.run())
    await let_run()
    relayed.clock.ms += 2_000
    relayed.response.say(DONE)
    await running
    assert relayed.exchange.first_byte_at == NOW_MS / 1000
    assert relayed.exchange.upstream_seconds == pytest.approx(0.5 + 2.0)  # Half a second to the first byte.


def stopping(granted: int, when_spent: WhenSpent) -> Reservation:
    of: Limit = msgspec.structs.replace(limit(Meter.TOKENS, Per.DAY), when_spent=when_spent)
    return Reservation("id", NOW_MS, granted, True, Holds.of([Hold(of, granted)]), LimitStatuses())


async def test_a_stream_ends_where_a_quota_is_spent_that_says_stop() -> None:
    relayed = Relayed(stream(*[CHUNK] * 10, hangs=True), stream=True)
    relayed.exchange.reservation = stopping(3, WhenSpent.STOP)
    await relayed.run()
    assert relayed.response.abandoned
    assert relayed.client.ended
    assert relayed.client.body.startswith(CHUNK * 3)
    assert relayed.client.body.endswith(DONE)
    last = json.loads(relayed.client.body.removesuffix(DONE).rpartition(b"data: ")[2])
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["usage"]["completion_tokens"] == 3
    assert relayed.exchange.tally is not None
    assert relayed.exchange.tally.usage == Usage(7, 3, source=UsageSource.ESTIMATED)


async def test_a_quota_that_says_finish_lets_the_stream_end() -> None:
    relayed = Relayed(stream(*[CHUNK] * 10, FINISH, USAGE, DONE), stream=True)
    relayed.exchange.reservation = stopping(3, WhenSpent.FINISH)
    await relayed.run()
    assert relayed.client.body == CHUNK * 10 + MERGED + DONE


async def test_a_stream_that_is_to_be_stopped_and_is_no_json_raises_nothing() -> None:
    relayed = Relayed(stream(*[b"data: not json\n\n"] * 10, hangs=True), stream=True)
    relayed.exchange.reservation = stopping(3, WhenSpent.STOP)
    await relayed.run()
    assert relayed.client.body.endswith(DONE)
