"""Forward: send the request to the first target that answers; the next only before the first byte."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import msgspec

from gateway.core.answer import Answer
from gateway.core.clock import Clock
from gateway.core.envelope import Envelope
from gateway.core.errors import NoTarget, UpstreamAuthFailed, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.core.exchange import Exchange
from gateway.core.health import Outcome, outcome_of_error, outcome_of_status
from gateway.core.members import read_members
from gateway.core.retry_after import read_retry_after
from gateway.core.sink import Sink
from gateway.core.target import Target
from gateway.core.traffic import Traffic
from gateway.upstream.contract import Outgoing, Wire

MORE_TARGETS = 2
"""How many further targets are tried after the first."""

PASSED_ON = (
    "content-type",
    "accept",
    "openai-beta",
    "anthropic-version",
    "anthropic-beta",
    "traceparent",
    "tracestate",
    "user-agent",
)
"""Headers of the client that reach the upstream; `x-request-id` is the gateway's."""


class Way(msgspec.Struct, frozen=True):
    """What leads to the upstreams: the wire, and what is known of the targets."""

    wire: Wire
    traffic: Traffic
    clock: Clock


async def forward(exchange: Exchange, envelope: Envelope, targets: list[Target], way: Way, sink: Sink) -> Answer:
    """The first answer worth relaying. Raises UpstreamUnreachable, UpstreamTimedOut, UpstreamAuthFailed, NoTarget.

    The last failure is what the client sees: an error of ours where the upstream gave no answer, the
    upstream's own answer where it gave one. Once the client has a byte, if only a keep-alive, or its body was
    passed on unkept, no other target is tried; nor where too many requests are tried again already.
    """
    headers = _headers(exchange)
    retries = way.traffic.retries(envelope.model, way.clock.monotonic())
    retries.request(way.clock.monotonic())
    left = iter(targets[: 1 + MORE_TARGETS])
    following = _next_well(left, way)
    while following is not None:
        target = following
        body = outgoing_body(exchange, envelope, target)
        outgoing = Outgoing(envelope.endpoint.upstream_path, headers, body, rest=envelope.rest)
        try:
            answer = await _attempt(exchange, target, outgoing, way)
        except (UpstreamUnreachable, UpstreamTimedOut):
            following = _next_well(left, way)
            if following is None or not _can_repeat(envelope, sink) or not retries.take():
                raise
            continue
        following = _next_well(left, way) if _is_failure(answer.status) else None
        if following is None or not _can_repeat(envelope, sink) or not retries.take():
            return _presentable(answer, target)
        answer.abandon()
    raise NoTarget(f"No upstream of the model {envelope.model.name!r} is well just now.", retry_after_ms=1000)


def _next_well(left: Iterator[Target], way: Way) -> Target | None:
    """The next that may be asked: since it was picked, its last probe may have been taken, or it may have failed."""
    now = way.clock.monotonic()
    return next((target for target in left if way.traffic.health.share(target, now) > 0), None)


async def _attempt(exchange: Exchange, target: Target, outgoing: Outgoing, way: Way) -> Answer:
    """One try, of which the target's health is told. The one that is relayed ends with its exchange."""
    exchange.target = target
    now = way.clock.monotonic
    attempt = exchange.attempt = way.traffic.health.begin(target, now())
    try:
        answer = await _ask(exchange, target, outgoing, way.wire)
    except UpstreamError as error:
        attempt.ended(outcome_of_error(error), now())
        raise
    except BaseException:
        attempt.ended(Outcome.UNTOLD, now())
        raise
    outcome = outcome_of_status(answer.status)
    if outcome is Outcome.WELL:
        attempt.answered(now())
    else:
        attempt.ended(outcome, now(), read_retry_after(answer.headers, way.clock.now_ms()))
    return answer


def _can_repeat(envelope: Envelope, sink: Sink) -> bool:
    """Whether another target can still be asked: the client has nothing yet, and the gateway the whole request."""
    return not sink.begun and not (envelope.rest is not None and envelope.rest.taken)


async def _ask(exchange: Exchange, target: Target, outgoing: Outgoing, wire: Wire) -> Answer:
    """One try, noted in the exchange with the time that was spent waiting, whatever comes of it."""
    began = monotonic()
    try:
        answer = await wire.send(target.upstream, outgoing)
    except BaseException as error:
        exchange.upstream_seconds += monotonic() - began
        if isinstance(error, UpstreamError):
            exchange.attempts.append((target.upstream.name, error.outcome or error.code))
        raise
    exchange.upstream_seconds += answer.first_byte_at - answer.sent_at
    exchange.attempts.append((target.upstream.name, str(answer.status)))
    return answer


def outgoing_body(exchange: Exchange, envelope: Envelope, target: Target) -> bytes:
    """The body for this target: the client's bytes, but for what must change."""
    changes: dict[str, bytes] = {}
    if target.model != envelope.asked_model:
        changes["model"] = envelope.members.written(target.model)
    if _must_ask_usage(envelope, target):
        changes["stream_options"] = _asking_usage(envelope.members.value("stream_options"))
    changes |= _cap_changes(exchange, envelope, target)
    return envelope.members.changed(changes) if changes else envelope.members.body


def _cap_changes(exchange: Exchange, envelope: Envelope, target: Target) -> dict[str, bytes]:
    """The caps that are over what the model or the reservation allows; where a quota is nearly spent
    and the request has no cap, one more."""
    reservation = exchange.reservation
    capped = reservation is not None and reservation.capped
    cap = reservation.granted // envelope.choices if reservation is not None and capped else envelope.output_cap
    if cap is None:
        return {}
    names = envelope.endpoint.cap_members
    given = {name: text for name in names if (text := envelope.members.value(name)) not in (None, b"null")}
    if capped and not given:
        usual = target.upstream.output_cap
        return {usual if usual in names else names[0]: b"%d" % cap}
    return {name: b"%d" % cap for name, text in given.items() if int(text) > cap}


def _must_ask_usage(envelope: Envelope, target: Target) -> bool:
    asks = envelope.stream and envelope.endpoint.asks_with_stream_options and target.upstream.stream_options
    return asks and not envelope.asks_usage


def _asking_usage(options: bytes | None) -> bytes:
    if options in (None, b"null"):
        return b'{"include_usage":true}'
    return read_members(options).changed({"include_usage": b"true"})


def _headers(exchange: Exchange) -> tuple[tuple[str, str], ...]:
    given = exchange.arrival.headers
    passed = [(name, value) for name in PASSED_ON if (value := given.get(name)) is not None]
    if not exchange.arrival.endpoint.takes_form and not given.get("content-type", "").startswith("application/json"):
        # It was read as JSON, whatever it was called: curl's -d, for one, calls everything a form.
        passed = [(name, value) for name, value in passed if name != "content-type"]
        passed.append(("content-type", "application/json"))
    return (*passed, ("x-request-id", exchange.arrival.request_id))


def _is_failure(status: int) -> bool:
    """Whether another target may do better: the upstream is overloaded or broken, not the request."""
    return status == 429 or status >= 500


def _presentable(answer: Answer, target: Target) -> Answer:
    name = target.upstream.name
    if answer.status in (401, 403):
        answer.abandon()
        raise UpstreamAuthFailed(
            f"The upstream {name!r} rejects the gateway's credentials ({answer.status}). Operators: check its api_key."
        )
    if answer.status < 200 or 300 <= answer.status < 400:
        answer.abandon()
        raise _redirected(name, answer.status)
    return answer


def _redirected(name: str, status: int) -> UpstreamError:
    return UpstreamUnreachable(
        f"The upstream {name!r} answered with status {status}, which the gateway does not follow."
        " Operators: check its base_url."
    )
