"""Explains a request record to people and to programs.

`explained` gives plain sentences for the engineer on call: what happened, why, with which figures, what it cost,
and what to do now. `record_object` gives the same facts as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.core.errors import Blame
from gateway.core.limit_status import in_unit, whose_limit
from gateway.core.limits import MICRO, Limit, Meter, Per
from gateway.core.pricing import FEMTO_PER_PICO, PICO_PER_USD, WHOLE_FACTOR, PriceLine
from gateway.core.request_record import RecordedError, RecordedLimit, RequestRecord
from gateway.core.time_format import duration_text, rfc3339
from gateway.core.usage import Usage, UsageSource

_FEMTO_PER_USD = FEMTO_PER_PICO * PICO_PER_USD

_RESPONSIBLE = {
    Blame.CALLER: "The caller is responsible: nothing is wrong with the gateway.",
    Blame.POLICY: "A limit did what it is configured to do: nothing is broken.",
    Blame.UPSTREAM: "The upstream is responsible: look at 'gateway upstreams'.",
    Blame.GATEWAY: "The gateway or its store is responsible: look at its log and at /readyz.",
}

_WHAT_HAPPENED = {
    "missing_api_key": "It came without a key.",
    "invalid_api_key": "Its key or token is not valid here.",
    "expired_api_key": "Its key or token has expired.",
    "model_not_found": "It asked for a model that it cannot use. Its log line names it.",
    "unknown_url": "It asked for a path that the gateway does not have: the client's base URL is probably wrong.",
    "method_not_allowed": "It used a method that the path does not take.",
    "invalid_json": "Its body is not valid JSON.",
    "invalid_form": "Its body is not a valid form.",
    "invalid_value": "A field of its body is missing or has a value that is not allowed.",
    "invalid_request": "It is not valid HTTP.",
    "request_too_large": "Its body is larger than max_body.",
    "unsupported_encoding": "Its body has a content coding that the gateway does not decode.",
    "client_gone": "The client closed the connection before it had the whole answer.",
    "passed_on": "The upstream answered with an error, which the client got unchanged.",
    "error_event": "The upstream reported an error inside its answer, which the client got unchanged.",
    "upstream_refused": "The upstream refused after the client's stream had begun.",
    "internal_error": "The gateway itself failed: this is a defect. Its log has the place, under this request id.",
}
"""Where the gateway's own message is not kept, since it may quote the request or the upstream."""

_WHY_REFUSED = {
    "model_unknown": "It asked for a model that does not exist here. Its log line names it.",
    "model_forbidden": "Its key may not use the model that it asked for, which its log line names: see 'models' of its"
    " key and team.",
    "model_not_served": "No upstream of the model that it asked for has the API that it used: see 'endpoints' of the"
    " model's upstreams.",
    "unknown": "There is no such key, or it was revoked.",
    "disabled": "Its key is disabled.",
    "expired": "Its key has expired.",
    "network": "Its key may not be used from the address that it came from.",
    "several": "It came with several keys, and they differ.",
    "malformed": "What it sent as a key is neither 'Bearer KEY' nor a token that can be read.",
    "token": "It signed in to a page with a token: only a key is taken there.",
    "token_expired": "Its token has expired.",
    "token_size": "Its token is too long.",
    "token_header": "Its token has a header that is not accepted.",
    "token_issuer": "Its token is of an issuer that 'jwt' does not have.",
    "token_algorithm": "Its token is signed with an algorithm that 'jwt' does not accept.",
    "token_key": "Its token is signed with a key that its issuer does not publish.",
    "token_signature": "The signature of its token is not valid.",
    "token_audience": "Its token is meant for another service: see 'audience' of 'jwt' and the token's claim 'aud'.",
    "token_not_valid_yet": "Its token is not valid yet, or the clocks of its issuer and of the gateway differ.",
    "token_claim": "Its token lacks a claim, or one of them is not valid.",
    "token_user": "Its token does not say whose it is: see 'user' of 'jwt'.",
    "token_team": "Its token is valid, but belongs to no team: see 'teams' and 'groups' of 'jwt'.",
    "token_models": "Its token has a list of models that cannot be read: see 'models' of 'jwt'.",
}
"""By `refused_because`."""

_OF_A_KEY = frozenset({"unknown", "disabled", "expired", "network"})
"""Where 'gateway keys show' has more about what was sent."""


def explained(record: RequestRecord) -> list[str]:
    """What happened, one or two sentences each: the outcome first."""
    return [
        *_outcome(record),
        _who(record),
        *_limits(record),
        *_attempts(record),
        _cost(record),
        _times(record),
        _versions(record),
    ]


def _outcome(record: RequestRecord) -> Iterator[str]:
    error = record.error
    if error is None:
        yield f"The request was answered with status {record.status}."
        return
    verb = "refused" if error.blame in (Blame.CALLER, Blame.POLICY) and error.code != "client_gone" else "not completed"
    yield f"The request was {verb}: status {record.status}, {error.code}."
    yield _reason(error)
    if error.blame in _RESPONSIBLE:
        yield _RESPONSIBLE[Blame(error.blame)]


def _reason(error: RecordedError) -> str:
    if error.refused_because in _WHY_REFUSED:
        key = f" Its id is {error.refused_key}." if error.refused_because in _OF_A_KEY and error.refused_key else ""
        return _WHY_REFUSED[error.refused_because] + key
    what = error.message or _WHAT_HAPPENED.get(error.code, "docs/errors.md says what this code means.")
    return what + (f" The field is {error.param}." if error.param else "")


def _who(record: RequestRecord) -> str:
    # Without a model it was refused before its body was understood.
    asked = f" for {record.model}" if record.model else ""
    how = "" if not record.model else ", as a stream" if record.stream else ", as one answer"
    place = record.endpoint or f"{record.method} {record.path}"
    where = f" from {record.client_ip}" if record.client_ip else ""
    user = f", end user {record.user}" if record.user else ""
    who = (
        f"key {record.key_name} ({record.key}) of team {record.team}{user}"
        if record.team
        else "a caller without a key that is known"
    )
    return f"At {_clock(record.at_ms)} UTC {who} asked{where}{asked} ({place}{how})."


def _limits(record: RequestRecord) -> Iterator[str]:
    for limit in record.limits:
        if limit.refused:
            yield f"Refused by {_limit(limit)}." + _when_free(record, limit)
        elif limit.would_refuse:
            yield f"Would have been refused by {_limit(limit)}, if it were not in shadow mode."
        else:
            yield f"Let pass by {_limit(limit)}."


def _limit(seen: RecordedLimit) -> str:
    limit = seen.limit
    per = "" if limit.per is None else " in total" if limit.per is Per.TOTAL else f" per {limit.per.value}"
    needed = "" if seen.needed is None else f", {_amount(limit, seen.needed)} needed"
    figures = f"{_amount(limit, seen.used)} used, {_amount(limit, seen.held)} held, {_amount(limit, seen.left)} left"
    return (
        f"limit {limit.name} of {whose_limit(limit)} ({_amount(limit, limit.amount)} {_unit(limit)}{per}:"
        f" {figures}{needed})"
    )


def _when_free(record: RequestRecord, seen: RecordedLimit) -> str:
    wait_ms = record.error.retry_after_ms if record.error is not None else 0
    if seen.limit.meter is Meter.CONCURRENT and seen.held:
        return " Another one passes as soon as one of those in flight ends."
    if wait_ms:
        return f" It would have passed {duration_text(wait_ms)} later."
    if seen.needed is not None and seen.needed > seen.limit.burst:
        return " It needs more than the limit ever holds: it can never pass."
    return f" The limit is whole again at {_clock(seen.resets_ms)} UTC." if seen.resets_ms else ""


def _attempts(record: RequestRecord) -> Iterator[str]:
    if record.attempts:
        tries = ", then ".join(f"{each.upstream} ({each.outcome})" for each in record.attempts)
        yield f"Upstreams tried: {tries}."
        if record.upstream_request_id:
            yield f"Upstream {record.upstream} calls it {record.upstream_request_id}: give this id to its support."
    elif record.granted is not None and record.upstream:
        yield f"The request was sent to the upstream {record.upstream}, and nothing came back before it ended."
    else:
        yield "No upstream was asked."


def _cost(record: RequestRecord) -> str:
    usage = record.usage
    if usage is None:
        return "It was charged nothing: nothing was delivered."
    source = "as the upstream reported" if usage.source is UsageSource.REPORTED else "estimated by the gateway"
    charged = f"It was charged {usage.input:,} tokens of input and {usage.output:,} of output ({source})"
    if not record.prices:
        return f"{charged}, without a price."
    lines = " + ".join(_price(line) for line in record.prices)
    return f"{charged}: {_dollars(record.cost / MICRO)} USD = {lines}."


def _price(line: PriceLine) -> str:
    quantity = f"{line.quantity / 1000:,g} seconds" if line.unit == "ms" else f"{line.quantity:,} {line.name}"
    if line.unit == "token":
        whose = f" of {line.model}" if line.model else ""
        times = "" if line.factor == WHOLE_FACTOR else f" × {line.factor / WHOLE_FACTOR:g}"
        return f"{quantity}{whose} at {_dollars(line.price * 1_000_000 / PICO_PER_USD)}{times} per million"
    return f"{quantity} at {_dollars(line.price / PICO_PER_USD)}"


def _times(record: RequestRecord) -> str:
    own = max(0.0, record.duration_s - record.upstream_s)
    first = "" if record.first_byte_s is None else f", the first byte after {_seconds(record.first_byte_s)}"
    return (
        f"It took {_seconds(record.duration_s)}: {_seconds(record.upstream_s)} waiting for upstreams,"
        f" {_seconds(own)} in the gateway{first}."
    )


def _versions(record: RequestRecord) -> str:
    config = f"configuration {record.config}" if record.config else "a configuration without a file"
    return f"It was served by {record.process}, inducta-gateway {record.version}, {config}."


def _unit(limit: Limit) -> str:
    names = {Meter.USD: "USD", Meter.CONCURRENT: "requests at a time"}
    return names.get(limit.meter, limit.meter.value.replace("_", " "))


def _amount(limit: Limit, amount: int) -> str:
    return _dollars(amount / MICRO) if limit.meter is Meter.USD else f"{amount:,}"


def _dollars(amount: float) -> str:
    return f"{amount:,.6f}".rstrip("0").rstrip(".")


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _clock(at_ms: int) -> str:
    return rfc3339(at_ms).replace("T", " ").removesuffix("Z")


def record_object(record: RequestRecord) -> dict[str, Any]:
    """As the admin API shows it: amounts as the configuration writes them, times in RFC 3339."""
    error, usage = record.error, record.usage
    return {
        "id": record.request_id,
        "at": rfc3339(record.at_ms),
        "status": record.status,
        "error": None if error is None else _error_object(error),
        "team": record.team or None,
        "key": record.key or None,
        "key_name": record.key_name or None,
        "user": record.user or None,
        "client_ip": record.client_ip or None,
        "user_agent": record.user_agent or None,
        "method": record.method,
        "path": record.path or None,
        "endpoint": record.endpoint or None,
        "model": record.model or None,
        "stream": record.stream,
        "whole": record.whole,
        "limits": [_limit_object(each) for each in record.limits],
        "estimated_input_tokens": record.estimated_input,
        "granted_output_tokens": record.granted,
        "output_cap": record.output_cap,
        "upstream": record.upstream or None,
        "upstream_request_id": record.upstream_request_id or None,
        "attempts": [{"upstream": each.upstream, "outcome": each.outcome} for each in record.attempts],
        "usage": None if usage is None else _usage_object(usage),
        "usd": record.cost / MICRO,
        "prices": [_price_object(line) for line in record.prices],
        "duration_s": record.duration_s,
        "upstream_s": record.upstream_s,
        "time_to_first_byte_s": record.first_byte_s,
        "config": record.config or None,
        "version": record.version,
        "process": record.process,
    }


def _error_object(error: RecordedError) -> dict[str, Any]:
    return {
        "code": error.code,
        "blame": error.blame,
        "message": error.message or None,
        "param": error.param or None,
        "retry_after_ms": error.retry_after_ms or None,
        "refused_key": error.refused_key or None,
        "refused_because": error.refused_because or None,
    }


def _limit_object(seen: RecordedLimit) -> dict[str, Any]:
    limit = seen.limit
    return {
        "name": limit.name,
        "scope": limit.scope.value,
        "subject": limit.subject,
        "meter": limit.meter.value,
        "per": limit.per.value if limit.per else None,
        "mode": limit.mode.value,
        "amount": in_unit(limit, limit.amount),
        "used": in_unit(limit, seen.used),
        "held": in_unit(limit, seen.held),
        "left": in_unit(limit, seen.left),
        "needed": None if seen.needed is None else in_unit(limit, seen.needed),
        "resets_at": rfc3339(seen.resets_ms) if seen.resets_ms else None,
        "verdict": "refused" if seen.refused else "would_refuse" if seen.would_refuse else "passed",
    }


def _usage_object(usage: Usage) -> dict[str, Any]:
    """What was used; what was not is left out, except for input and output."""
    figures = {
        name: figure
        for name, figure in msgspec.structs.asdict(usage).items()
        if figure and name not in ("input", "output", "source", "parts")
    }
    return {"input": usage.input, "output": usage.output, "source": usage.source.value, **figures}


def _price_object(line: PriceLine) -> dict[str, Any]:
    """`usd_per_unit` is that of one token, second or piece; sound is counted in milliseconds. `factor` is the region's,
    `model` the one of the upstream's that used the tokens, where it is not the one that was asked for."""
    return {
        "name": line.name,
        "quantity": line.quantity,
        "unit": line.unit,
        "usd_per_unit": line.price / PICO_PER_USD,
        "usd": line.amount / _FEMTO_PER_USD,
        "factor": line.factor / WHOLE_FACTOR,
        "model": line.model,
    }
