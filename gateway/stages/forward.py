"""Forward: sends the request to the targets in their order, until one answers; never to another once the client has a
byte.

The first bytes of an answer tell what it is (`core/body_kind.py`). A stream is passed on as soon as it begins, and so
is a body that is not JSON (speech, images, files). JSON and errors are collected first, up to WHOLE_MAX: if the
upstream breaks meanwhile, the next target is asked, and the body of an error says whose fault it is
(`core/refusals.py`), which decides what follows:

- the caller's: it would be refused everywhere, and a refusal for moderation must not be retried elsewhere. It is passed
  on unchanged.
- the gateway's credentials: UpstreamAuthFailed. Later requests go to other targets, once the circuit has opened.
- the provider's: the next target is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from gateway.core.body_kind import BodyKind
from gateway.core.circuit import ANYONE
from gateway.core.clock import Clock
from gateway.core.collected_response import CollectedResponse
from gateway.core.endpoints import GEMINI_PREFIX, LLAMA_CAP, Endpoint
from gateway.core.errors import (
    NoTarget,
    UpstreamAuthFailed,
    UpstreamBroke,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimedOut,
    UpstreamUnreachable,
    UrlUnknown,
)
from gateway.core.exchange import Exchange
from gateway.core.header_rules import TO_UPSTREAM, HeaderLines
from gateway.core.health import Attempt, Outcome, outcome_of_answer, outcome_of_error
from gateway.core.json_object import Path
from gateway.core.json_spans import read_json_spans
from gateway.core.other_models import TOOLS, with_models
from gateway.core.plain_tally import PlainTally
from gateway.core.query_rules import passed_query
from gateway.core.refusals import Fault
from gateway.core.request import ParsedRequest
from gateway.core.response import ResponseWriter, UpstreamResponse
from gateway.core.retry import read_retry_after
from gateway.core.routing import RoutingState
from gateway.core.snapshot import Caller, Target
from gateway.core.upstream_json import error_message, fault_of_body, is_error_of
from gateway.upstream.contract import UpstreamClient, UpstreamRequest

TARGETS_MAX = 3
"""How many targets are tried."""

WHOLE_MAX = 128 * 1024
"""Bytes of an answer that are collected, to be sent as one; of a longer one the rest is relayed as it comes."""

LATE_MAX = 256 * 1024
"""The same where a stream was asked for: a keep-alive may begin it, and then only a whole answer can be given."""

ERROR_BODY_S = 2.0
"""For so long the body of an error is waited for. After that its status decides, and what comes is relayed."""


# Slow to reach through their classes in Python 3.11.
_EVENTS, _JSON, _OTHER = BodyKind
_PROVIDER, _CREDENTIALS = Fault.PROVIDER, Fault.CREDENTIALS
_SUCCEEDED, _NEUTRAL = Outcome.SUCCEEDED, Outcome.NEUTRAL

_WORTH_ANOTHER_TARGET = (UpstreamUnreachable, UpstreamBusy, UpstreamTimedOut, UpstreamBroke)

_OWN_HEADERS = ("content-type", "x-request-id")

_USAGE_OPTIONS = "stream_options"
"""The member that asks for the usage of a stream."""

_UNSET = (b"null",)
_UNSET_OF_GEMINI = (*_UNSET, b"0")
"""The values of a cap that is none: of protocol buffers, zero is the default."""


class UpstreamServices(msgspec.Struct, frozen=True):
    """What leads to the upstreams: their client, and what is known of the targets."""

    client: UpstreamClient
    routing: RoutingState
    clock: Clock


async def forward(
    exchange: Exchange,
    parsed: ParsedRequest,
    targets: Sequence[Target],
    services: UpstreamServices,
    writer: ResponseWriter,
) -> CollectedResponse:
    """The first answer worth relaying. Raises UpstreamUnreachable, UpstreamBusy, UpstreamTimedOut, UpstreamBroke,
    UpstreamAuthFailed, NoTarget.

    The last failure is what the client sees: an error of ours where the upstream gave no answer, the
    upstream's own answer where it gave one. Once the client has a byte, if only a keep-alive, or its body was
    passed on without being kept, no other target is tried; nor where too many requests are tried again already.
    """
    headers, caller, now = _headers(exchange, parsed), exchange.caller or ANYONE, services.clock.monotonic
    began = now()
    retries = services.routing.retries(parsed.binding.model, began)
    retries.requests += 1
    # The first was routed just now; whether the others may still be asked is seen when it is their turn.
    place: int | None = 0 if targets else None
    while place is not None:
        target = targets[place]
        outgoing = _outgoing(exchange, parsed, target, headers, caller, began)
        exchange.target = target
        exchange.attempt = attempt = services.routing.health.begin(target, began, caller)
        try:
            response = _begun(exchange, parsed, target, await services.client.send(target.upstream, outgoing), now())
            if not (response.is_whole and response.kind is _JSON) and not _is_collected(response, parsed):
                await _wait_collected(exchange, parsed, response, now)
            if response.status >= 400 or target.upstream.redactor is not None:
                _read_collected(exchange, response)
        except BaseException as error:
            _note_failure(exchange, attempt, error, began, now())
            is_worth_another = isinstance(error, _WORTH_ANOTHER_TARGET)
            place = _next_healthy(targets, place, caller, services) if is_worth_another else None
            if place is None or not _can_repeat(parsed, writer) or not retries.take(now()):
                raise
        else:
            exchange.note_attempt(target.upstream.name, str(response.status))
            if 200 <= response.status < 300:
                return response
            if response.status >= 400:
                _note_error(attempt, response, services.clock)
            place = _next_healthy(targets, place, caller, services) if response.fault is _PROVIDER else None
            if place is None or not _can_repeat(parsed, writer) or not retries.take(now()):
                return _presentable(response, parsed.endpoint, target)
            response.abandon()
            exchange.redacted, exchange.first_byte_at = 0, None
        began = now()
    raise NoTarget(f"No upstream of the model {parsed.model.name!r} can take a request now.", retry_after_ms=1000)


def _next_healthy(targets: Sequence[Target], tried: int, caller: Caller, services: UpstreamServices) -> int | None:
    """The place of the next that may be asked, behind the one that was `tried`: since they were routed, its last probe
    may have been taken, or it may have failed."""
    health, now = services.routing.health, services.clock.monotonic()
    left = range(tried + 1, min(len(targets), TARGETS_MAX))
    return next((place for place in left if health.share(targets[place], now, caller) > 0), None)


def _outgoing(
    exchange: Exchange, parsed: ParsedRequest, target: Target, headers: HeaderLines, caller: Caller, began: float
) -> UpstreamRequest:
    """What this target is sent; `headers` are those for every target."""
    upstream, request, endpoint = target.upstream, exchange.request, parsed.endpoint
    if upstream.pass_headers:
        headers = HeaderLines.of([*headers.lines(), *_more_headers(exchange, target)])
    if exchange.trace is not None:
        given = exchange.trace.begin_attempt(target, began)
        headers = HeaderLines((*headers.names, "traceparent"), (*headers.values, given))
    return UpstreamRequest(
        endpoint.upstream_path(target.model, request.parameters),
        headers,
        outgoing_body(exchange, parsed, target),
        endpoint.method,
        target.model,
        caller.team,
        parsed.rest,
        passed_query(request.query, endpoint, upstream, endpoint.names_read) if request.query else "",
        upstream.base_path(endpoint.name) if upstream.base_paths else None,
        endpoint.dialect is upstream.other_dialect,
        exchange.note_attempt,
    )


def _begun(
    exchange: Exchange, parsed: ParsedRequest, target: Target, begun: UpstreamResponse, now: float
) -> CollectedResponse:
    """An answer that has begun, and what of it has come."""
    exchange.upstream_seconds += begun.first_byte_at - begun.sent_at
    exchange.first_byte_at = now
    attempt = exchange.attempt
    if attempt is not None and begun.status < 400:
        attempt.answered(now)
    return CollectedResponse(begun, LATE_MAX if parsed.stream else WHOLE_MAX, target.upstream.redactor)


def _note_failure(exchange: Exchange, attempt: Attempt, error: BaseException, began: float, now: float) -> None:
    """The attempt has ended without an answer that can be relayed."""
    if exchange.first_byte_at is None:
        exchange.upstream_seconds += now - began
    if isinstance(error, UpstreamError) and exchange.target is not None:
        exchange.first_byte_at = None
        exchange.note_attempt(exchange.target.upstream.name, error.reason)
        attempt.ended(outcome_of_error(error), now, reason=error.reason)
    else:
        attempt.ended(_NEUTRAL, now)


def _note_error(attempt: Attempt, response: CollectedResponse, clock: Clock) -> None:
    """The attempt was answered by an error."""
    outcome = outcome_of_answer(response.status, response.fault)
    if outcome is _SUCCEEDED:
        attempt.answered(clock.monotonic())
        return
    retry_after_s = read_retry_after(response.headers, clock.now_ms())
    reason = UpstreamAuthFailed.code if response.fault is _CREDENTIALS else str(response.status)
    attempt.ended(outcome, clock.monotonic(), retry_after_s, reason=reason)


async def _wait_collected(
    exchange: Exchange, parsed: ParsedRequest, collected: CollectedResponse, now: Callable[[], float]
) -> None:
    """Wait until the answer is collected as far as it goes, or is an error whose body takes too long: its status has to
    do. The time that this takes is the upstream's. Raises what `finished` raises."""
    began = now()
    try:
        async with asyncio.timeout(None if collected.status < 400 else ERROR_BODY_S):
            while not _is_collected(collected, parsed):
                await collected.woken()
    except TimeoutError:
        return
    except BaseException as error:
        collected.abandon()
        if isinstance(error, asyncio.CancelledError) and collected.status < 400:
            # A client that leaves pays for what has come.
            exchange.tally = PlainTally(parsed.endpoint, is_opaque=collected.is_opaque())
            exchange.tally.feed(collected.body)
        raise
    finally:
        exchange.upstream_seconds += now() - began


def _read_collected(exchange: Exchange, collected: CollectedResponse) -> None:
    """See what is in an answer: the upstream's credential, and whose fault its failure is."""
    status = collected.status
    if collected.is_whole or status >= 400:
        collected.redact_body()
    exchange.redacted = collected.redacted
    if status >= 400:
        collected.fault = fault_of_body(status, collected.body)


def _is_collected(collected: CollectedResponse, parsed: ParsedRequest) -> bool:
    """Whether it is known what the answer is; and of JSON and errors, whether all of it has come, or too much. Then it
    `is_whole` where all has come. Raises what `end` raises, unless the answer is passed on as a stream."""
    kind, is_over = collected.kind, collected.is_over
    if kind is None:
        if not is_over:
            return False
        collected.end()
        kind = collected.kind
    if collected.status < 400:
        collected.is_stream = kind is not _JSON and _is_stream(collected, parsed)
        if collected.is_stream or (not is_over and (kind is _OTHER or parsed.is_array)):
            collected.is_whole = is_over and not collected.is_too_long
            return True
    if is_over:
        collected.end()
        collected.is_whole = not collected.is_too_long
        return True
    return collected.is_too_long


def _is_stream(response: CollectedResponse, parsed: ParsedRequest) -> bool:
    """Whether an answer that is not JSON is an event stream: by what it is, where the request asks for one, whatever
    its content type says. Where its first bytes do not show what it is, its content type does."""
    if response.is_opaque():
        return False
    return response.is_called_stream() or (parsed.stream and response.kind is _EVENTS)


def _can_repeat(parsed: ParsedRequest, writer: ResponseWriter) -> bool:
    """Whether another target can still be asked: the client has nothing yet, and the gateway the whole request."""
    return not writer.started and not (parsed.rest is not None and parsed.rest.taken)


def outgoing_body(exchange: Exchange, parsed: ParsedRequest, target: Target) -> bytes:
    """The body for this target: the client's bytes, except for what must change."""
    changes: dict[Path, bytes] = {}
    members, names = parsed.members, parsed.members.names()
    if target.model != parsed.asked_model and parsed.endpoint.about is None:
        changes |= _model_changes(parsed, target)
    if parsed.stream and _must_ask_usage(parsed, target):
        changes[_USAGE_OPTIONS,] = _asking_usage(members.value(_USAGE_OPTIONS))
    if parsed.consulted:
        changes |= _consulted_changes(parsed, target)
    granted = exchange.quota_output_cap()
    cap = parsed.output_cap if granted is None else granted
    # Without a quota's, what was asked for is the largest of the caps, unless one is llama.cpp's own.
    if cap is not None and (granted is not None or (parsed.asked_cap or 0) > cap or LLAMA_CAP[0] in names):
        changes |= _cap_changes(cap, parsed, target, is_granted=granted is not None)
    body = members.changed_at(changes) if changes else members.body
    if _USAGE_OPTIONS in names and _must_not_ask_usage(parsed, target):
        return read_json_spans(body).without(_USAGE_OPTIONS)
    return body


def _model_changes(parsed: ParsedRequest, target: Target) -> dict[Path, bytes]:
    members = parsed.members
    if not parsed.endpoint.names_model:
        return {("model",): members.written(target.model)}
    # The path is what names the model. A body that names it once more was seen to agree.
    named = members.written(GEMINI_PREFIX + target.model)
    return {path: named for path in parsed.endpoint.model_paths if members.has_at(path)}


def _consulted_changes(parsed: ParsedRequest, target: Target) -> dict[Path, bytes]:
    """The tools, where the target's upstream calls a model otherwise that they ask."""
    there = [(each, each.model.at(target.upstream)) for each in parsed.consulted]
    names = {each.tool: route.model for each, route in there if route is not None and route.model != each.name}
    return {(TOOLS,): with_models(parsed.members.readable_value(TOOLS) or b"[]", names)} if names else {}


def _cap_changes(cap: int, parsed: ParsedRequest, target: Target, *, is_granted: bool) -> dict[Path, bytes]:
    """The caps that are over what the model allows or a quota grants; where a quota grants less than the request may
    produce and that has no cap that each server knows, one more."""
    paths, members = parsed.endpoint.cap_paths, parsed.members
    if not paths:
        return {}
    unset = _UNSET_OF_GEMINI if parsed.endpoint.names_model else _UNSET
    given = {path: int(text) for path in paths if (text := members.value_at(path) or b"null") not in unset}
    changes = {path: b"%d" % cap for path, asked in given.items() if not 0 <= asked <= cap}
    if is_granted and given.keys() <= {LLAMA_CAP}:
        changes[_added_cap(parsed, target)] = b"%d" % cap
    return changes


def _added_cap(parsed: ParsedRequest, target: Target) -> Path:
    """Where the cap of a request is written that has none."""
    usual: Path = (target.upstream.output_cap,)
    paths = [path for path in parsed.endpoint.cap_paths if path != LLAMA_CAP]
    # A second spelling of an object that is there would be a second object.
    begun = next((path for path in paths if path[0] in parsed.members.names()), paths[0])
    return usual if usual in paths else begun


def _must_ask_usage(parsed: ParsedRequest, target: Target) -> bool:
    """Of a stream."""
    return parsed.endpoint.asks_with_stream_options and target.upstream.stream_options and not parsed.asks_usage


def _must_not_ask_usage(parsed: ParsedRequest, target: Target) -> bool:
    """Whether the upstream would refuse the request for the member, which libraries add by themselves."""
    return parsed.endpoint.asks_with_stream_options and not target.upstream.stream_options


def _asking_usage(options: bytes | None) -> bytes:
    if options in (None, b"null"):
        return b'{"include_usage":true}'
    return read_json_spans(options).changed({"include_usage": b"true"})


def _headers(exchange: Exchange, parsed: ParsedRequest) -> HeaderLines:
    """What every target gets; `content-type` and `x-request-id` are the gateway's to say."""
    request = exchange.request
    passed = request.head.to_upstream.of(request.headers)
    if exchange.trace is not None:
        replaced = exchange.trace.replaced_headers
        passed = HeaderLines.of([line for line in passed.lines() if line[0] not in replaced])
    if not parsed.content_type:
        return HeaderLines((*passed.names, "x-request-id"), (*passed.values, request.request_id))
    own = (parsed.content_type, request.request_id)
    return HeaderLines(passed.names + _OWN_HEADERS, passed.values + own)


def _more_headers(exchange: Exchange, target: Target) -> list[tuple[str, str]]:
    """What this upstream's operator lets through besides."""
    names = target.upstream.pass_headers
    given = [(name.lower(), value) for name, value in exchange.request.headers.items()]
    return [line for line in given if line[0] in names and not TO_UPSTREAM.admits(line[0])]


def _presentable(response: CollectedResponse, endpoint: Endpoint, target: Target) -> CollectedResponse:
    """Of an answer that is no success. Raises UpstreamAuthFailed, UpstreamUnreachable, UrlUnknown in place of what no
    client of this API can read."""
    name = target.upstream.name
    if response.fault is _CREDENTIALS:
        response.abandon()
        raise UpstreamAuthFailed(
            f"The upstream {name!r} rejects the gateway's credentials ({response.status})."
            " Operators: check its api_key."
        )
    if response.status < 400:
        response.abandon()
        raise _redirected(name, response.status)
    if response.status == 404 and endpoint.is_often_missing and not is_error_of(endpoint.dialect, response.body):
        reason = error_message(response.body)
        response.abandon()
        raise UrlUnknown(f"The upstream {name!r} answers {endpoint.name!r} with 404: {reason}")
    return response


def _redirected(name: str, status: int) -> UpstreamError:
    return UpstreamUnreachable(
        f"The upstream {name!r} answered with status {status}, which the gateway does not follow."
        " Operators: check its base_url."
    )
