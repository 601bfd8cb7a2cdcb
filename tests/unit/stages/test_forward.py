from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from multidict import CIMultiDict

from gateway.core.circuit import FAILURES_IN_A_ROW
from gateway.core.consultations import Consultation
from gateway.core.endpoints import COMPLETIONS, ENDPOINTS
from gateway.core.errors import (
    GatewayError,
    NoTarget,
    UpstreamAuthFailed,
    UpstreamBroke,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from gateway.core.health import Outcome
from gateway.core.json_spans import read_json_spans
from gateway.core.redaction import Redactor
from gateway.core.snapshot import Model, Target
from gateway.stages.forward import WHOLE_MAX, forward, outgoing_body
from tests.unit.fakes import (
    Client,
    ScriptedAnswer,
    ScriptedClient,
    body_of,
    exchange_of,
    stream,
    target,
    upstream_services,
    with_headers,
)

Come = ScriptedAnswer | Exception
TARGETS = [target("a"), target("b"), target("c"), target("d")]


def answer(status: int) -> ScriptedAnswer:
    return ScriptedAnswer(b"{}", status=status)


def refused() -> UpstreamUnreachable:
    return UpstreamUnreachable("It refused the connection.")


def silent() -> UpstreamTimedOut:
    return UpstreamTimedOut("It said nothing.")


class Try:
    """One request, sent to targets that answer by a script."""

    def __init__(self, *script: Come, targets: list[Target] | None = None, begun: bool = False, **members: Any) -> None:
        self.script, self.targets = script, TARGETS if targets is None else targets
        self.upstream, self.client = ScriptedClient(*script), Client()
        self.client.started = begun
        self.services = upstream_services(self.upstream)
        self.exchange, self.parsed = exchange_of(body_of(**members))

    async def send(self) -> Any:
        return await forward(self.exchange, self.parsed, self.targets, self.services, self.client)

    async def fail(self, kind: type[GatewayError]) -> GatewayError:
        with pytest.raises(kind) as failed:
            await self.send()
        return failed.value

    def break_down(self, *targets: Target) -> None:
        """Let requests of others open the circuits of these."""
        now = self.services.clock.monotonic()
        for each in targets:
            for _ in range(FAILURES_IN_A_ROW):
                self.services.routing.health.begin(each, now).ended(Outcome.FAILED, now)

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.upstream.sent]


async def test_the_first_target_that_answers_is_the_one() -> None:
    made = Try(answer(200))
    assert (await made.send()).status == 200
    assert (made.asked, made.exchange.attempts) == (["a"], (("a", "200"),))
    assert made.exchange.target is TARGETS[0]


async def test_what_the_client_sends_again_by_itself_is_an_attempt_of_the_target() -> None:
    made = Try(refused(), answer(200))
    await made.send()
    for _, request in made.upstream.sent:
        request.note_attempt("a", "stale_connection")
    assert made.exchange.attempts[2:] == (("a", "stale_connection"),) * 2


@pytest.mark.parametrize("failure", [refused, silent])
async def test_a_target_without_an_answer_gives_way_to_the_next(failure: Any) -> None:
    made = Try(failure(), answer(200))
    assert (await made.send()).status == 200
    assert made.exchange.attempts == (("a", failure().code), ("b", "200"))
    assert made.exchange.target is TARGETS[1]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_an_overloaded_or_broken_target_gives_way_to_the_next(status: int) -> None:
    made = Try(answer(status), answer(200))
    assert (await made.send()).status == 200
    assert made.exchange.attempts == (("a", str(status)), ("b", "200"))


@pytest.mark.parametrize("failure", [429, 503])
async def test_a_failure_is_told_where_the_others_are_not_well_any_more(failure: int) -> None:
    made = Try(answer(failure), targets=TARGETS[:3])
    made.break_down(*TARGETS[1:3])
    assert (await made.send()).status == failure
    assert (made.asked, made.exchange.target) == (["a"], TARGETS[0])


async def test_a_target_that_is_not_healthy_any_more_is_passed_over() -> None:
    made = Try(refused(), refused(), targets=TARGETS[:4])
    made.break_down(TARGETS[1])
    with pytest.raises(UpstreamUnreachable):
        await made.send()  # The fourth is not among the three that may be tried.
    assert made.asked == ["a", "c"]


async def test_the_first_target_is_asked_as_it_was_routed() -> None:
    """It may be the trickle to an open circuit, which health alone would not let through."""
    made = Try(answer(200), targets=TARGETS[:1])
    made.break_down(*TARGETS[:1])
    assert (await made.send()).status == 200


async def test_no_target_is_asked_where_there_is_none() -> None:
    made = Try(targets=[])
    assert (await made.fail(NoTarget)).retry_after_ms == 1000
    assert (made.asked, made.exchange.attempts) == ([], ())


@pytest.mark.parametrize("status", [400, 404, 408, 413, 422, 451])
async def test_a_bad_request_is_bad_everywhere(status: int) -> None:
    made = Try(answer(status), answer(200))
    assert (await made.send()).status == status
    assert made.asked == ["a"]


async def test_three_targets_are_tried_at_most() -> None:
    made = Try(refused(), silent(), answer(503), answer(200))
    assert (await made.send()).status == 503
    assert made.asked == ["a", "b", "c"]
    assert made.exchange.attempts == (("a", "upstream_unreachable"), ("b", "upstream_timeout"), ("c", "503"))


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([answer(500), refused()], UpstreamUnreachable),
        ([answer(500), silent()], UpstreamTimedOut),
        ([silent(), refused()], UpstreamUnreachable),
        ([refused(), silent(), refused()], UpstreamUnreachable),
    ],
    ids=["500 refused", "500 silent", "silent refused", "three"],
)
async def test_the_last_failure_is_what_the_client_sees(script: list[Come], kind: type[GatewayError]) -> None:
    made = Try(*script, targets=TARGETS[: len(script)])
    assert await made.fail(kind) is script[-1]
    assert len(made.asked) == len(script)


async def test_the_last_answer_is_relayed_even_if_it_is_an_error() -> None:
    made = Try(refused(), answer(429), targets=TARGETS[:2])
    assert (await made.send()).status == 429


async def test_once_the_client_has_a_byte_no_other_target_is_tried() -> None:
    made = Try(refused(), answer(200), begun=True)
    await made.fail(UpstreamUnreachable)
    assert made.asked == ["a"]
    made = Try(answer(503), answer(200), begun=True)
    assert (await made.send()).status == 503


@pytest.mark.parametrize("status", [401, 403])
async def test_an_upstream_that_rejects_the_gateways_key_is_the_gateways_trouble(status: int) -> None:
    made = Try(answer(status), answer(200))
    error = await made.fail(UpstreamAuthFailed)
    assert (error.status, "'a'" in error.message, str(status) in error.message) == (502, True, True)
    assert (error.should_retry, made.asked) == (False, ["a"])


def failing(status: int, body: str, **how: Any) -> ScriptedAnswer:
    return ScriptedAnswer(body.encode(), status=status, **how)


WRONG_KEY_AT_GOOGLE = '{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}'
WRONG_KEY_AT_XAI = '{"code":"Client specified an invalid argument","error":"Incorrect API key provided: sk***x."}'
FLAGGED_AT_OPENROUTER = '{"error":{"code":403,"message":"flagged","metadata":{"reasons":["violence"]}}}'
FLAGGED_AT_XAI = '{"code":"x","error":"Content violates usage guidelines. Team: 1"}'
FLAGGED_AT_AZURE = '{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}'


@pytest.mark.parametrize("body", [WRONG_KEY_AT_GOOGLE, f"[{WRONG_KEY_AT_GOOGLE}]", WRONG_KEY_AT_XAI])
async def test_a_wrong_key_is_the_gateways_trouble_whatever_the_status(body: str) -> None:
    made = Try(failing(400, body), answer(200))
    error = await made.fail(UpstreamAuthFailed)
    assert (error.status, error.should_retry, made.asked) == (502, False, ["a"])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, FLAGGED_AT_OPENROUTER),
        (403, FLAGGED_AT_XAI),
        (400, FLAGGED_AT_AZURE),
        (500, FLAGGED_AT_AZURE),
        (429, FLAGGED_AT_AZURE),
        (413, '{"error":{"code":"rate_limit_exceeded"}}'),
        (400, '{"error":{"code":"moderation_blocked"}}' + " " * 2 * WHOLE_MAX),
    ],
)
async def test_a_moderation_is_not_shopped_around_and_never_counts(status: int, body: str) -> None:
    for _ in range(2 * FAILURES_IN_A_ROW):
        made = Try(failing(status, body), answer(200))
        assert (await made.send()).status == status
        assert made.asked == ["a"]
        assert made.services.routing.health.share(TARGETS[0], made.services.clock.monotonic()) == 1.0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, '{"type":"error","error":{"type":"x","message":"Your credit balance is too low to access"}}'),
        (402, '{"detail":"no money"}'),
        (412, '{"error":{"code":"PRECONDITION_FAILED"}}'),
        (498, '{"error":{"code":"capacity_exceeded"}}'),
        (502, "<html>"),
        (500, ""),
    ],
)
async def test_what_the_provider_caused_gives_way_to_the_next(status: int, body: str) -> None:
    made = Try(failing(status, body), answer(200))
    assert (await made.send()).status == 200
    assert made.asked == ["a", "b"]


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stages.forward.ERROR_BODY_S", 0.01)


@pytest.mark.usefixtures("no_patience")
async def test_the_body_of_an_error_that_does_not_come_is_not_waited_for() -> None:
    made = Try(failing(403, '{"error":{"mess', hangs=True))
    await made.fail(UpstreamAuthFailed)
    made = Try(failing(503, "", hangs=True), answer(200))
    assert (await made.send()).status == 200
    assert isinstance(made.script[0], ScriptedAnswer)
    assert made.script[0].abandoned
    made = Try(failing(400, '{"error":{"code":"content_filter"},', hangs=True))
    assert (await made.send()).status == 400


@pytest.mark.parametrize("failure", [UpstreamBroke("It broke."), UpstreamTimedOut("It stopped.")])
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_a_plain_answer_that_breaks_gives_way_to_the_next(status: int, failure: GatewayError) -> None:
    made = Try(ScriptedAnswer(b'{"cho', status=status, failure=failure), answer(200))
    assert (await made.send()).status == 200
    assert made.exchange.attempts == (("a", failure.code), ("b", "200"))
    made = Try(ScriptedAnswer(b'{"cho', status=status, failure=failure), answer(200), begun=True)
    assert await made.fail(type(failure)) is failure
    made = Try(ScriptedAnswer(b'{"cho', status=status, failure=failure), targets=TARGETS[:1])
    assert await made.fail(type(failure)) is failure
    assert made.exchange.first_byte_at is None


async def test_an_answer_that_was_given_up_is_not_the_first_byte_of_a_failure() -> None:
    made = Try(answer(500), refused(), targets=TARGETS[:2])
    await made.fail(UpstreamUnreachable)
    assert made.exchange.first_byte_at is None


async def test_a_plain_answer_that_breaks_is_tried_again_within_the_retry_budget() -> None:
    made = Try(ScriptedAnswer(b"{", failure=UpstreamBroke("It broke.")), answer(200))
    now = made.services.clock.monotonic()
    retries = made.services.routing.retries(made.parsed.model, now)
    while retries.take(now):
        continue
    await made.fail(UpstreamBroke)
    assert made.asked == ["a"]


async def test_a_long_answer_and_a_stream_that_break_later_are_not_tried_again() -> None:
    for begun in (ScriptedAnswer(b"x" * (WHOLE_MAX + 1), hangs=True), stream(b"data: {", hangs=True)):
        made = Try(begun, answer(200))
        assert (await made.send()).status == 200
        assert made.asked == ["a"]


async def test_a_client_that_leaves_before_a_plain_answer_is_whole_pays_for_what_came() -> None:
    made = Try(ScriptedAnswer(b'{"a":"' + b"x" * 2_000, hangs=True))
    sending = asyncio.create_task(made.send())
    while not made.exchange.first_byte_at:
        await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert made.exchange.tally is not None
    assert made.exchange.tally.delivered > 100
    assert isinstance(made.script[0], ScriptedAnswer)
    assert made.script[0].abandoned


@pytest.mark.parametrize(
    ("begun", "called", "is_stream"),
    [
        (b'data: {"a":1}', "text/plain", True),
        (b": comment", "", True),
        (b"<html>", "text/event-stream", True),
        (b'{"a":1}', "text/event-stream", False),
        (b"ID3 sound", "audio/mpeg", False),
    ],
)
async def test_what_counts_as_a_stream_is_passed_on_at_once_and_json_is_collected(
    begun: bytes, called: str, is_stream: bool
) -> None:
    given = ScriptedAnswer(begun, headers={"content-type": called}, hangs=True)
    made = Try(given, stream=True)
    sending = asyncio.create_task(made.send())
    for _ in range(10):
        await asyncio.sleep(0)
    assert sending.done() is not begun.startswith(b"{")
    given.say()
    response = await sending
    assert (response.is_stream, response.is_whole) == (is_stream, begun.startswith(b"{"))


@pytest.mark.parametrize("status", [101, 300, 301, 302, 304, 307, 308])
async def test_a_redirection_is_not_followed(status: int) -> None:
    made = Try(answer(status))
    error = await made.fail(UpstreamUnreachable)
    assert (error.status, str(status) in error.message) == (502, True)


async def test_time_spent_waiting_is_the_upstreams() -> None:
    made = Try(answer(200))
    await made.send()
    assert made.exchange.upstream_seconds == 0.5
    made = Try(refused(), targets=TARGETS[:1])
    clock = made.services.clock
    asyncio.get_running_loop().call_soon(setattr, clock, "ms", clock.now_ms() + 1_500)
    await made.fail(UpstreamUnreachable)
    assert made.exchange.upstream_seconds == 1.5


async def test_what_an_answer_said_that_was_given_up_is_not_said_of_the_next() -> None:
    secret = "sk-an-upstreams-own-key"
    echoing = target("a", redactor=Redactor.of([secret]))
    made = Try(failing(500, f'{{"error":"you sent {secret}"}}'), answer(200), targets=[echoing, target("b")])
    await made.send()
    assert (made.asked, made.exchange.redacted) == (["a", "b"], 0)


async def test_a_defect_of_the_wire_is_not_taken_for_a_failed_upstream() -> None:
    made = Try(RuntimeError("defect"), answer(200))
    with pytest.raises(RuntimeError):
        await made.send()
    assert (made.asked, made.exchange.attempts) == (["a"], ())


async def test_headers_reach_the_upstream_by_a_list() -> None:
    passed = {
        "content-type": "application/json",
        "accept": "*/*",
        "openai-beta": "x",
        "anthropic-version": "1",
        "anthropic-beta": "2",
        "traceparent": "00-1-2-01",
        "tracestate": "a=b",
        "user-agent": "curl",
    }
    kept_back = {
        "authorization": "Bearer secret",
        "x-api-key": "secret",
        "api-key": "secret",
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "host": "here",
        "accept-encoding": "gzip",
        "connection": "x-request-id",
        "x-request-id": "not the one that counts",
        "x-my-header": "mine",
    }
    made = Try(answer(200))
    made.exchange.request = with_headers(made.exchange.request, passed | kept_back)
    await made.send()
    outgoing = made.upstream.sent[0][1]
    assert dict(outgoing.headers.lines()) == passed | {"x-request-id": "req-1"}
    assert len(outgoing.headers.lines()) == len(passed) + 1
    assert (outgoing.method, outgoing.path) == ("POST", "/chat/completions")


async def test_an_upstream_gets_the_further_headers_that_its_operator_lets_through() -> None:
    open_minded, other = target("a", pass_headers=frozenset({"x-my-header", "accept"})), target("b")
    made = Try(answer(503), answer(200), targets=[open_minded, other])
    lines = [("X-My-Header", "1"), ("Accept", "*/*"), ("x-my-header", "2"), ("X-Other", "3")]
    made.exchange.request = with_headers(made.exchange.request, CIMultiDict(lines))
    await made.send()
    first, second = (request.headers.lines() for _, request in made.upstream.sent)
    assert [line for line in first if line not in second] == [("x-my-header", "1"), ("x-my-header", "2")]
    assert [name for name, _ in second] == ["accept", "content-type", "x-request-id"]


def sent(body: bytes, *, granted: int | None = None, model: Model | None = None, **upstream: Any) -> bytes:
    """The body as the target gets it; `granted` is what a nearly spent quota has left."""
    to = target(model="m", **upstream)
    exchange, parsed = exchange_of(body, model=model or Model("m", (to,), aliases=("alias",)))
    assert exchange.reservation is not None
    if granted is not None:
        exchange.reservation = msgspec.structs.replace(exchange.reservation, granted=granted, capped=True)
    return outgoing_body(exchange, parsed, to)


SPACED = b'{ "messages" :[ {"role":"user"} ] ,\n "model"\t:"%b" , "x": 1e2%b}'


def test_nothing_is_changed_where_nothing_must_be() -> None:
    body = SPACED % (b"m", b"")
    assert sent(body) is body


def test_an_alias_becomes_the_name_that_the_target_knows() -> None:
    assert sent(SPACED % (b"alias", b"")) == SPACED % (b"m", b"")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b', "stream": true', b', "stream": true,"stream_options":{"include_usage":true}'),
        (
            b', "stream": true, "stream_options": null',
            b', "stream": true, "stream_options": {"include_usage":true}',
        ),
        (
            b', "stream_options": { "include_usage" : false }, "stream": true',
            b', "stream_options": { "include_usage" : true }, "stream": true',
        ),
        (
            b', "stream": true, "stream_options": {"chunk": 5 , "include_usage":null}',
            b', "stream": true, "stream_options": {"chunk": 5 , "include_usage":true}',
        ),
        (
            b', "stream": true, "stream_options": {"chunk": [5, 6] }',
            b', "stream": true, "stream_options": {"chunk": [5, 6] ,"include_usage":true}',
        ),
        (b', "stream": true, "stream_options": {}', b', "stream": true, "stream_options": {"include_usage":true}'),
    ],
)
def test_usage_is_asked_for_whatever_the_client_said(given: bytes, expected: bytes) -> None:
    changed = sent(SPACED % (b"m", given))
    assert changed == SPACED % (b"m", expected)
    assert json.loads(changed)["stream_options"]["include_usage"] is True


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b', "stream": false, "stream_options": {"include_usage": false}',
        b', "stream": true, "stream_options": { "include_usage" : true, "chunk": 5 }',
    ],
)
def test_usage_is_not_asked_for_twice_or_of_a_plain_answer(given: bytes) -> None:
    body = SPACED % (b"m", given)
    assert sent(body) is body


def test_an_upstream_that_does_not_know_the_option_is_not_asked() -> None:
    body = SPACED % (b"m", b', "stream": true')
    assert sent(body, stream_options=False) is body


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b', "stream": true, "stream_options": {"include_usage": true}', b', "stream": true'),
        (b' , "stream_options" : { "include_usage" : false }\t, "stream": true', b'\t, "stream": true'),
        (b', "stream_options": null', b""),
        (
            b', "stream": false, "stream_options": {"x": [{"}": ","}]}, "y": "\\ud83d"',
            b', "stream": false, "y": "\\ud83d"',
        ),
    ],
)
@pytest.mark.parametrize("model", [b"m", b"alias"])
def test_the_option_does_not_reach_an_upstream_that_does_not_know_it(
    given: bytes, expected: bytes, model: bytes
) -> None:
    assert sent(SPACED % (model, given), stream_options=False) == SPACED % (b"m", expected)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"stream_options":{},"model":"m","messages":[{"role":"user"}]}',
            b'{"model":"m","messages":[{"role":"user"}]}',
        ),
        (
            b'{ "stream_options" : {} ,\n "model": "m", "messages": [{"role": "user"}]}',
            b'{\n "model": "m", "messages": [{"role": "user"}]}',
        ),
    ],
)
def test_the_option_is_taken_out_of_the_beginning_of_a_body_too(body: bytes, expected: bytes) -> None:
    changed = sent(body, stream_options=False)
    assert changed.replace(b" ", b"") == expected.replace(b" ", b"")
    json.loads(changed)


@pytest.mark.parametrize(
    ("members", "granted", "expected"),
    [
        ({"max_tokens": 5_000}, None, {"max_tokens": 1_000}),
        ({"max_tokens": 1_000}, None, {"max_tokens": 1_000}),
        ({"max_tokens": 1_001}, None, {"max_tokens": 1_000}),
        ({}, None, {}),
        ({"max_completion_tokens": 9_999}, None, {"max_completion_tokens": 1_000}),
        (
            {"max_tokens": 10, "max_completion_tokens": 9_999},
            None,
            {"max_tokens": 10, "max_completion_tokens": 1_000},
        ),
        ({"max_tokens": 500}, 70, {"max_tokens": 70}),
        ({"max_tokens": 50, "max_completion_tokens": 500}, 70, {"max_tokens": 50, "max_completion_tokens": 70}),
        ({}, 70, {"max_tokens": 70}),
        ({"max_tokens": None}, 70, {"max_tokens": 70}),
        ({"max_tokens": 500, "n": 3}, 70, {"max_tokens": 23, "n": 3}),
        ({"max_completion_tokens": None, "max_tokens": 9_999}, None, {"max_tokens": 1_000}),
        ({"max_tokens": 1, "n_predict": 9_999}, None, {"max_tokens": 1, "n_predict": 1_000}),
        ({"max_tokens": 1, "n_predict": 500}, 70, {"max_tokens": 1, "n_predict": 70}),
        ({"max_tokens": 1, "n_predict": -1}, 70, {"max_tokens": 1, "n_predict": 70}),
        ({"max_tokens": 5_000, "n_predict": -1}, None, {"max_tokens": 1_000, "n_predict": 1_000}),
        ({"n_predict": -1}, None, {"n_predict": 1_000}),
        ({"n_predict": 500}, None, {"n_predict": 500}),
        ({"n_predict": 1}, 70, {"n_predict": 1, "max_tokens": 70}),
        ({"n_predict": 500}, 70, {"n_predict": 70, "max_tokens": 70}),
    ],
)
def test_the_output_is_capped_where_it_is_over(
    members: dict[str, Any], granted: int | None, expected: dict[str, int]
) -> None:
    model = Model("m", (target(),), max_output_tokens=1_000)
    told = json.loads(sent(body_of(**members), granted=granted, model=model))
    named = {"max_tokens", "max_completion_tokens", "n_predict", "n"}
    assert {name: value for name, value in told.items() if name in named and value is not None} == expected


def test_a_cap_is_named_as_the_upstream_names_it() -> None:
    assert json.loads(sent(body_of(), granted=70, output_cap="max_completion_tokens"))["max_completion_tokens"] == 70


@pytest.mark.parametrize("given", [b"", b',"n_predict":null', b',"n_predict":9'])
@pytest.mark.parametrize("usual", ["max_tokens", "max_completion_tokens"])
def test_a_completion_is_capped_by_the_one_member_that_every_server_of_it_knows(usual: str, given: bytes) -> None:
    """The Completions API has no `max_completion_tokens`, and `n_predict` is llama.cpp's alone."""
    to = target(model="m", output_cap=usual)
    body = b'{"model":"m","prompt":"Hello"%b}' % given
    exchange, parsed = exchange_of(body, model=Model("m", (to,)), endpoint=COMPLETIONS)
    assert exchange.reservation is not None
    exchange.reservation = msgspec.structs.replace(exchange.reservation, granted=70, capped=True)
    assert json.loads(outgoing_body(exchange, parsed, to)) == {**json.loads(body), "max_tokens": 70}


@pytest.mark.parametrize(("there", "changed"), [("claude-opus", True), ("opus", False)])
def test_a_model_that_a_tool_asks_has_the_name_that_the_upstream_knows(there: str, changed: bool) -> None:
    body = body_of(tools=[{"name": "f"}, {"type": "advisor_20260301", "model": "opus"}])
    exchange, parsed = exchange_of()
    advisor = Consultation(1, "opus", Model("opus", (target(model=there),)))
    parsed = msgspec.structs.replace(parsed, members=read_json_spans(body), consulted=(advisor,))
    sent = outgoing_body(exchange, parsed, target())
    assert json.loads(sent)["tools"] == [{"name": "f"}, {"type": "advisor_20260301", "model": there}]
    assert (sent != body) is changed


def test_a_body_is_made_for_each_target() -> None:
    exchange, parsed = exchange_of()
    given = ["m", "other/m", 'q"']
    names = [json.loads(outgoing_body(exchange, parsed, target(model=name)))["model"] for name in given]
    assert names == given


@pytest.mark.parametrize("path", list(ENDPOINTS))
def test_every_endpoint_is_forwarded_to_its_own_path(path: str) -> None:
    endpoint = ENDPOINTS[path]
    assert endpoint.version + endpoint.upstream_path("a model/x") == path.replace("{model}", "a%20model/x")
