"""The messages by which gateway processes ask one another about the requests that run in them.

A process asks all others (`store/contract.py`, `ProcessCalls`). The question and the replies are plain data. The same
question asks about losses (`losses.py`), which have replies of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from gateway.core.exchange import Exchange
from gateway.core.request import IncomingRequest
from gateway.core.stream_tally import StreamTally
from gateway.core.time_format import rfc3339

Reply = TypeVar("Reply")

LISTED_MAX = 500
"""Requests in one reply: the oldest. To describe so many takes two milliseconds."""


class RequestInFlight(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request that has not ended. `state` is "arriving" before admission, "waiting" for the first byte of an
    upstream, then "answering"."""

    request_id: str
    began_ms: int
    age_s: float
    state: str
    endpoint: str = ""
    team: str = ""
    key: str = ""
    key_name: str = ""
    user: str = ""
    client_ip: str = ""
    model: str = ""
    stream: bool = False
    upstream: str = ""
    estimated_input: int = 0
    output: int = 0
    """Tokens that the client was given so far, estimated; of a plain answer none before its end."""


class ProcessQuestion(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which requests run: of a team, with a request id, or all. Where `cancel_for` names who wants it, those with this
    request id are ended, and the reply has those that were. With `about` "losses": what the process has lost, as a
    ProcessLosses."""

    team: str = ""
    request_id: str = ""
    cancel_for: str = ""
    about: str = ""


class ProcessReply(msgspec.Struct, frozen=True):
    """`id` is of the process alone; containers may share the host name and process id of `process`. `total` is how many
    requests there are, whether or not all are listed."""

    id: str
    process: str
    total: int
    requests: list[RequestInFlight]


def request_in_flight(exchange: Exchange, now_ms: int, now: float) -> RequestInFlight:
    """An exchange as it is at this moment, by both clocks."""
    request, caller, parsed = exchange.request, exchange.caller, exchange.parsed
    age_s = now - request.at
    return RequestInFlight(
        request_id=request.request_id,
        began_ms=now_ms - round(age_s * 1000),
        age_s=round(age_s, 3),
        state=_state(exchange),
        endpoint=request.endpoint.name,
        team=caller.team if caller is not None else "",
        key=caller.key_id if caller is not None else "",
        key_name=caller.key_name if caller is not None else "",
        user=parsed.user if parsed is not None else "",
        client_ip=request.client_ip,
        model=parsed.model.name if parsed is not None else "",
        stream=parsed is not None and parsed.stream,
        upstream=exchange.target.upstream.name if exchange.target is not None else "",
        estimated_input=exchange.estimated_input,
        output=exchange.tally.delivered if isinstance(exchange.tally, StreamTally) else 0,
    )


def in_flight_object(process: str, seen: RequestInFlight) -> dict[str, Any]:
    """As the admin API shows it."""
    return {
        "id": seen.request_id,
        "state": seen.state,
        "began_at": rfc3339(seen.began_ms),
        "age_s": seen.age_s,
        "team": seen.team or None,
        "key": seen.key or None,
        "key_name": seen.key_name or None,
        "user": seen.user or None,
        "client_ip": seen.client_ip or None,
        "endpoint": seen.endpoint or None,
        "model": seen.model or None,
        "stream": seen.stream,
        "upstream": seen.upstream or None,
        "estimated_input_tokens": seen.estimated_input,
        "output_tokens": seen.output,
        "process": process,
    }


def understood(replies: Iterable[bytes], decoder: msgspec.msgpack.Decoder[Reply]) -> list[Reply]:
    """The replies to a question without those of gateways of another version, which may not know it or may answer in
    another form."""
    found: list[Reply] = []
    for reply in replies:
        with suppress(msgspec.DecodeError):
            found.append(decoder.decode(reply))
    return found


def asks_about(question: ProcessQuestion, request: IncomingRequest, team: str) -> bool:
    """Whether a question is about a request of this team."""
    return question.team in ("", team) and question.request_id in ("", request.request_id)


def oldest(requests: Iterable[Exchange]) -> list[Exchange]:
    """Those that are listed, where there are too many."""
    return sorted(requests, key=lambda each: each.request.at)[:LISTED_MAX]


def _state(exchange: Exchange) -> str:
    if exchange.reservation is None:
        return "arriving"
    return "waiting" if exchange.first_byte_at is None else "answering"
