"""Forward: send the request to the first target that answers; the next only before the first byte."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.core.answer import Answer
from gateway.core.envelope import Envelope
from gateway.core.errors import UpstreamAuthFailed, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.core.exchange import Exchange
from gateway.core.members import read_members
from gateway.core.sink import Sink
from gateway.core.target import Target
from gateway.upstream.contract import Outgoing, Wire

MORE_TARGETS = 2
"""How many further targets are tried after the first (contract, section 4)."""

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


async def forward(exchange: Exchange, envelope: Envelope, targets: list[Target], wire: Wire, sink: Sink) -> Answer:
    """The first answer worth relaying. Raises UpstreamUnreachable, UpstreamTimedOut, UpstreamAuthFailed.

    The last failure is what the client sees: an error of ours where the upstream gave no answer, the
    upstream's own answer where it gave one. Once the client has a byte, if only a keep-alive, no other
    target is tried.
    """
    headers = _headers(exchange)
    last = len(targets[: 1 + MORE_TARGETS]) - 1
    for position, target in enumerate(targets[: last + 1]):
        exchange.target = target
        outgoing = Outgoing(envelope.endpoint.upstream_path, headers, outgoing_body(exchange, envelope, target))
        try:
            answer = await _ask(exchange, target, outgoing, wire)
        except (UpstreamUnreachable, UpstreamTimedOut):
            if position == last or sink.begun:
                raise
            continue
        if position == last or sink.begun or not _is_failure(answer.status):
            return _presentable(answer, target)
        answer.abandon()
    raise AssertionError("the loop returns or raises at its last target")


async def _ask(exchange: Exchange, target: Target, outgoing: Outgoing, wire: Wire) -> Answer:
    """One try, noted in the exchange with the time that was spent waiting, whatever comes of it."""
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        answer = await wire.send(target.upstream, outgoing)
    except BaseException as error:
        exchange.upstream_seconds += clock() - began
        if isinstance(error, UpstreamError):
            exchange.attempts.append((target.upstream.name, error.code))
        raise
    exchange.upstream_seconds += answer.first_byte_at - answer.sent_at
    exchange.attempts.append((target.upstream.name, str(answer.status)))
    return answer


def outgoing_body(exchange: Exchange, envelope: Envelope, target: Target) -> bytes:
    """The body for this target: the client's bytes, but for what must change."""
    changes: dict[str, bytes] = {}
    if target.model != envelope.asked_model:
        changes["model"] = msgspec.json.encode(target.model)
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
