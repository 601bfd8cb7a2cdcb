"""Forward: send the request to the first target that answers; the next only before the first byte."""

from __future__ import annotations

import msgspec

from gateway.core.answer import Answer
from gateway.core.envelope import Envelope
from gateway.core.errors import UpstreamAuthFailed, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.core.exchange import Exchange
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
            answer = await wire.send(target.upstream, outgoing)
        except (UpstreamUnreachable, UpstreamTimedOut) as error:
            exchange.attempts.append((target.upstream.name, error.code))
            if position == last or sink.begun:
                raise
            continue
        exchange.attempts.append((target.upstream.name, str(answer.status)))
        exchange.upstream_seconds += answer.first_byte_at - answer.sent_at
        if position == last or sink.begun or not _is_failure(answer.status):
            return _presentable(answer, target)
        answer.abandon()
    raise AssertionError("the loop returns or raises at its last target")


def outgoing_body(exchange: Exchange, envelope: Envelope, target: Target) -> bytes:
    """The body for this target: the client's bytes, but for what must change."""
    changes: dict[str, bytes] = {}
    if target.model != envelope.asked_model:
        changes["model"] = msgspec.json.encode(target.model)
    if envelope.stream and envelope.endpoint.asks_with_stream_options and target.upstream.stream_options:
        changes["stream_options"] = _asking_usage(envelope.members.value("stream_options"))
    changes |= _cap_changes(exchange, envelope)
    return envelope.members.changed(changes) if changes else envelope.members.body


def _cap_changes(exchange: Exchange, envelope: Envelope) -> dict[str, bytes]:
    cap = envelope.output_cap
    reservation = exchange.reservation
    if reservation is not None and reservation.capped:
        cap = reservation.granted // envelope.choices
    elif cap is None or envelope.asked_cap is None or envelope.asked_cap <= cap:
        return {}
    names = envelope.endpoint.cap_members
    present = [name for name in names if envelope.members.value(name) not in (None, b"null")]
    return dict.fromkeys(present or names[:1], b"%d" % cap)


def _asking_usage(options: bytes | None) -> bytes:
    given = msgspec.json.decode(options, type=dict[str, msgspec.Raw] | None) if options else None
    if not given:
        return b'{"include_usage":true}'
    return msgspec.json.encode({**given, "include_usage": msgspec.Raw(b"true")})


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
