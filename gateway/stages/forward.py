"""Forward: send the request to the first target that answers; the next only before the first byte."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import monotonic

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import NoTarget, UpstreamAuthFailed, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.core.exchange import Exchange
from gateway.core.health import Outcome, outcome_of_error, outcome_of_status
from gateway.core.json_spans import read_json_spans
from gateway.core.request import ParsedRequest
from gateway.core.response import ResponseWriter, UpstreamResponse
from gateway.core.retry import read_retry_after
from gateway.core.routing import RoutingState
from gateway.core.snapshot import Target
from gateway.upstream.contract import UpstreamClient, UpstreamRequest

MORE_TARGETS = 2
"""How many further targets are tried after the first."""

PASSED_ON = (
    "accept",
    "openai-beta",
    "anthropic-version",
    "anthropic-beta",
    "traceparent",
    "tracestate",
    "user-agent",
)
"""Headers of the client that reach the upstream; `x-request-id` is the gateway's."""


class UpstreamServices(msgspec.Struct, frozen=True):
    """What leads to the upstreams: their client, and what is known of the targets."""

    client: UpstreamClient
    routing: RoutingState
    clock: Clock


async def forward(
    exchange: Exchange, parsed: ParsedRequest, targets: list[Target], services: UpstreamServices, writer: ResponseWriter
) -> UpstreamResponse:
    """The first answer worth relaying. Raises UpstreamUnreachable, UpstreamTimedOut, UpstreamAuthFailed, NoTarget.

    The last failure is what the client sees: an error of ours where the upstream gave no answer, the
    upstream's own answer where it gave one. Once the client has a byte, if only a keep-alive, or its body was
    passed on without being kept, no other target is tried; nor where too many requests are tried again already.
    """
    headers, clock = _headers(exchange, parsed), services.clock
    retries = services.routing.retries(parsed.model, clock.monotonic())
    retries.request(clock.monotonic())
    left = iter(targets[: 1 + MORE_TARGETS])
    # The first was routed just now; whether the others may still be asked is seen when it is their turn.
    following: Target | None = next(left, None)
    while following is not None:
        target = following
        body = outgoing_body(exchange, parsed, target)
        outgoing = UpstreamRequest(
            parsed.endpoint.upstream_path,
            headers,
            body,
            model=target.model,
            rest=parsed.rest,
            note_attempt=partial(_note_attempt, exchange, target),
        )
        try:
            response = await _attempt(exchange, target, outgoing, services)
        except (UpstreamUnreachable, UpstreamTimedOut):
            following = _next_healthy(left, services)
            if following is None or not _can_repeat(parsed, writer) or not retries.take():
                raise
            continue
        following = _next_healthy(left, services) if _is_failure(response.status) else None
        if following is None or not _can_repeat(parsed, writer) or not retries.take():
            return _presentable(response, target)
        response.abandon()
    raise NoTarget(f"No upstream of the model {parsed.model.name!r} can take a request now.", retry_after_ms=1000)


def _next_healthy(left: Iterator[Target], services: UpstreamServices) -> Target | None:
    """The next that may be asked: since they were routed, its last probe may have been taken, or it may have failed."""
    now = services.clock.monotonic()
    return next((target for target in left if services.routing.health.share(target, now) > 0), None)


async def _attempt(
    exchange: Exchange, target: Target, outgoing: UpstreamRequest, services: UpstreamServices
) -> UpstreamResponse:
    """One try, which counts for the target's health. The one that is relayed ends with its exchange."""
    exchange.target = target
    now = services.clock.monotonic
    attempt = exchange.attempt = services.routing.health.begin(target, now())
    try:
        response = await _ask(exchange, target, outgoing, services.client)
    except UpstreamError as error:
        attempt.ended(outcome_of_error(error), now())
        raise
    except BaseException:
        attempt.ended(Outcome.NEUTRAL, now())
        raise
    outcome = outcome_of_status(response.status)
    if outcome is Outcome.SUCCEEDED:
        attempt.answered(now())
    else:
        attempt.ended(outcome, now(), read_retry_after(response.headers, services.clock.now_ms()))
    return response


def _can_repeat(parsed: ParsedRequest, writer: ResponseWriter) -> bool:
    """Whether another target can still be asked: the client has nothing yet, and the gateway the whole request."""
    return not writer.started and not (parsed.rest is not None and parsed.rest.taken)


async def _ask(
    exchange: Exchange, target: Target, outgoing: UpstreamRequest, client: UpstreamClient
) -> UpstreamResponse:
    """One try, noted in the exchange with the time that was spent waiting, whatever comes of it."""
    began = monotonic()
    try:
        response = await client.send(target.upstream, outgoing)
    except BaseException as error:
        exchange.upstream_seconds += monotonic() - began
        if isinstance(error, UpstreamError):
            _note_attempt(exchange, target, error.outcome or error.code)
        raise
    exchange.upstream_seconds += response.first_byte_at - response.sent_at
    _note_attempt(exchange, target, str(response.status))
    return response


def _note_attempt(exchange: Exchange, target: Target, outcome: str) -> None:
    exchange.attempts.append((target.upstream.name, outcome))


def outgoing_body(exchange: Exchange, parsed: ParsedRequest, target: Target) -> bytes:
    """The body for this target: the client's bytes, but for what must change."""
    changes: dict[str, bytes] = {}
    if target.model != parsed.asked_model:
        changes["model"] = parsed.members.written(target.model)
    if _must_ask_usage(parsed, target):
        changes["stream_options"] = _asking_usage(parsed.members.value("stream_options"))
    changes |= _cap_changes(exchange, parsed, target)
    return parsed.members.changed(changes) if changes else parsed.members.body


def _cap_changes(exchange: Exchange, parsed: ParsedRequest, target: Target) -> dict[str, bytes]:
    """The caps that are over what the model or the reservation allows; where a quota is nearly spent
    and the request has no cap, one more."""
    reservation = exchange.reservation
    capped = reservation is not None and reservation.capped
    cap = reservation.granted // parsed.choices if reservation is not None and capped else parsed.output_cap
    if cap is None:
        return {}
    names = parsed.endpoint.cap_members
    given = {name: text for name in names if (text := parsed.members.value(name)) not in (None, b"null")}
    if capped and not given:
        usual = target.upstream.output_cap
        return {usual if usual in names else names[0]: b"%d" % cap}
    return {name: b"%d" % cap for name, text in given.items() if int(text) > cap}


def _must_ask_usage(parsed: ParsedRequest, target: Target) -> bool:
    asks = parsed.stream and parsed.endpoint.asks_with_stream_options and target.upstream.stream_options
    return asks and not parsed.asks_usage


def _asking_usage(options: bytes | None) -> bytes:
    if options in (None, b"null"):
        return b'{"include_usage":true}'
    return read_json_spans(options).changed({"include_usage": b"true"})


def _headers(exchange: Exchange, parsed: ParsedRequest) -> tuple[tuple[str, str], ...]:
    given = exchange.request.headers
    passed = [(name, value) for name in PASSED_ON if (value := given.get(name)) is not None]
    return (*passed, ("content-type", parsed.content_type), ("x-request-id", exchange.request.request_id))


def _is_failure(status: int) -> bool:
    """Whether another target may do better: the upstream is overloaded or broken, not the request."""
    return status == 429 or status >= 500


def _presentable(response: UpstreamResponse, target: Target) -> UpstreamResponse:
    name = target.upstream.name
    if response.status in (401, 403):
        response.abandon()
        raise UpstreamAuthFailed(
            f"The upstream {name!r} rejects the gateway's credentials ({response.status})."
            " Operators: check its api_key."
        )
    if response.status < 200 or 300 <= response.status < 400:
        response.abandon()
        raise _redirected(name, response.status)
    return response


def _redirected(name: str, status: int) -> UpstreamError:
    return UpstreamUnreachable(
        f"The upstream {name!r} answered with status {status}, which the gateway does not follow."
        " Operators: check its base_url."
    )
