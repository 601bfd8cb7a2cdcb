"""Makes the records that explain requests later: which requests have one, and what is in it.

The record of an admitted request is written with its settlement: `of` gives it to the settle stage. A request that was
refused before admission has no settlement, and there can be thousands of these in a second. So `keep_unsettled` takes a
sample of them, a fixed number for each team and error code, and `take` gives it to the task that writes it to the
store.

Never in a record: content, a key, an upstream's secret. An error's message is kept only if its class is one whose
messages the gateway writes from its own configuration and figures.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import (
    CallerError,
    ClientGone,
    GatewayError,
    KeyExpired,
    KeyUnknown,
    ModelUnknown,
    UpstreamRefused,
)
from gateway.core.exchange import Exchange
from gateway.core.header_rules import UPSTREAM_ID_HEADERS, first_of
from gateway.core.limits import Limit
from gateway.core.pricing import PriceLine
from gateway.core.request_record import KeptRecord, RecordedAttempt, RecordedError, RecordedLimit, RequestRecord
from gateway.core.reservation import LimitStatus, Refusal
from gateway.telemetry.log import SHOWN_CHARACTERS, shortened

SAMPLED_ALIKE = 20
"""The sample between two writings: so many requests that were refused before admission, for each team and error
code."""

WAITING_MAX = 500
"""The most that wait in all; while the store is out, the newest."""

_VERSIONS = 8
"""The number of configurations that are remembered for the requests that began under them."""

_PARAM = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")


class RecordPolicy(msgspec.Struct, frozen=True):
    """Which requests have a record ("none", "failed" or "all"), for how long it is kept, and how many of one team."""

    requests: str = "none"
    keep_ms: int = 0
    most: int = 0


class _ConfigVersion(msgspec.Struct, frozen=True):
    config: str
    since: float


class RequestRecorder:
    """Implements `stages.settle.SettlementRecorder`. `process` says where it runs, for people."""

    def __init__(self, clock: Clock, version: str, process: str) -> None:
        self._clock = clock
        self._version = version
        self._process = process
        self._policy = RecordPolicy()
        self._configs: deque[_ConfigVersion] = deque(maxlen=_VERSIONS)
        self._waiting: deque[KeptRecord] = deque(maxlen=WAITING_MAX)
        self._sampled: dict[tuple[str, str], int] = {}
        self.dropped = 0
        """Records that could not be kept: too many waited, or the store refused them."""

    def follow(self, policy: RecordPolicy, config: str) -> None:
        """A configuration with this hash is in force from now on."""
        self._policy = policy
        self._configs.append(_ConfigVersion(config, self._clock.monotonic()))

    def of(self, exchange: Exchange) -> KeptRecord | None:
        """The record of a request that has ended, if it is to have one."""
        policy = self._policy
        if policy.requests == "none" or (policy.requests == "failed" and exchange.failure() is None):
            return None
        return KeptRecord(self._record(exchange), policy.keep_ms, policy.most)

    def keep_unsettled(self, exchange: Exchange) -> None:
        """The same for a request that was never admitted, if it failed and there are not too many of its kind."""
        error, policy, sampled = exchange.error, self._policy, self._sampled
        if error is None or policy.requests == "none":
            return
        kind = (exchange.caller.team if exchange.caller is not None else "", error.code)
        kept = sampled.get(kind, 0)
        if kept < SAMPLED_ALIKE:
            sampled[kind] = kept + 1
            self.dropped += len(self._waiting) == WAITING_MAX
            self._waiting.append(KeptRecord(self._record(exchange), policy.keep_ms, policy.most))

    def take(self) -> list[KeptRecord]:
        """The records that wait to be written. Begins the next sample."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self._sampled.clear()
        return waiting

    def put_back(self, records: Sequence[KeptRecord]) -> None:
        """Keep records that could not be written; only the newest wait."""
        room = WAITING_MAX - len(self._waiting)
        self.dropped += max(0, len(records) - room)
        if room:
            self._waiting.extendleft(reversed(records[-room:]))

    def drop(self, records: Sequence[KeptRecord]) -> None:
        """They can never be written."""
        self.dropped += len(records)

    def _record(self, exchange: Exchange) -> RequestRecord:
        request, caller, parsed = exchange.request, exchange.caller, exchange.parsed
        reservation, target = exchange.reservation, exchange.target
        endpoint, error = request.endpoint.name, _error_of(exchange)
        return RequestRecord(
            id=exchange.id,
            request_id=request.request_id,
            at_ms=self._clock.now_ms() - round((self._clock.monotonic() - request.at) * 1000),
            status=exchange.status,
            duration_s=round(exchange.ended - request.at, 6),
            upstream_s=round(exchange.upstream_seconds, 6),
            first_byte_s=None if exchange.first_byte_at is None else round(exchange.first_byte_at - request.at, 6),
            method=shortened(request.method),
            path="" if endpoint else shortened(request.path),
            endpoint=endpoint,
            team=caller.team if caller is not None else "",
            key=caller.key_id if caller is not None else "",
            key_name=caller.key_name if caller is not None else "",
            user=parsed.user[:SHOWN_CHARACTERS] if parsed is not None else "",
            client_ip=request.client_ip,
            user_agent=shortened(request.headers.get("user-agent", "")),
            model=parsed.model.name if parsed is not None else "",
            stream=parsed is not None and parsed.stream,
            whole=exchange.whole,
            estimated_input=exchange.estimated_input,
            granted=reservation.granted if reservation is not None else None,
            output_cap=exchange.quota_output_cap(),
            upstream=target.upstream.name if target is not None else "",
            upstream_request_id=_upstream_id(exchange),
            error=error,
            limits=tuple(_limits_of(exchange)),
            attempts=tuple([RecordedAttempt(*attempt) for attempt in exchange.attempts]),
            usage=exchange.usage,
            cost=exchange.cost,
            prices=_prices_of(exchange),
            config=self._config_at(request.at),
            version=self._version,
            process=self._process,
        )

    def _config_at(self, began: float) -> str:
        """The newest configuration that was in force then; for a request older than all known ones, the oldest."""
        found = next((each for each in reversed(self._configs) if each.since <= began), None)
        return (found or self._configs[0]).config if self._configs else ""


def _error_of(exchange: Exchange) -> RecordedError | None:
    failure, error = exchange.failure(), exchange.error
    if failure is None:
        return None
    if error is None:
        return RecordedError(failure.code, failure.blame)
    param = error.param if error.param and _PARAM.fullmatch(error.param) else ""
    message = error.message if _is_gateways_own(error) else ""
    return RecordedError(
        failure.code,
        failure.blame,
        message,
        param,
        error.retry_after_ms or 0,
        exchange.refused_key,
        refused_because=error.why if isinstance(error, (KeyUnknown, KeyExpired, ModelUnknown)) else "",
    )


def _is_gateways_own(error: GatewayError) -> bool:
    """Whether the message has nothing in it that a client or an upstream wrote."""
    return not isinstance(error, (CallerError, ClientGone, UpstreamRefused))


def _limits_of(exchange: Exchange) -> Iterator[RecordedLimit]:
    if exchange.refusal is not None:
        yield from _limits_of_refusal(exchange.refusal)
    elif exchange.reservation is not None:
        statuses = exchange.reservation.limit_statuses
        # A limit that grants raise is another object there, and to hash an identity takes longer than an object's.
        name = _identity if statuses.are_raised else id
        holds = exchange.reservation.holds
        held = dict(zip(map(name, holds.limits), holds.amounts, strict=True))
        shadows = set(map(name, exchange.reservation.would_refuse))
        for status in statuses:
            named = name(status.limit)
            yield _recorded(status, needed=held.get(named), would_refuse=named in shadows)


def _identity(limit: Limit) -> object:
    return limit.identity


def _limits_of_refusal(refusal: Refusal) -> Iterator[RecordedLimit]:
    refusing = refusal.limit_status
    shadows = {limit.identity for limit in refusal.would_refuse}
    yield _recorded(refusing, needed=refusal.requested, refused=True)
    for status in refusal.limit_statuses:
        if status.limit.identity != refusing.limit.identity:
            yield _recorded(status, would_refuse=status.limit.identity in shadows)


def _recorded(
    status: LimitStatus, *, needed: int | None = None, refused: bool = False, would_refuse: bool = False
) -> RecordedLimit:
    limit: Limit = status.limit
    return RecordedLimit(
        limit,
        status.used,
        status.held,
        status.left,
        status.resets_ms,
        needed,
        refused=refused,
        would_refuse=would_refuse,
    )


def _prices_of(exchange: Exchange) -> tuple[PriceLine, ...]:
    target, parsed = exchange.target, exchange.parsed
    if exchange.usage is None or target is None or target.price is None or parsed is None or parsed.endpoint.is_free:
        return ()
    return target.price.lines(exchange.usage, parsed.prices_beside(target, exchange.usage))


def _upstream_id(exchange: Exchange) -> str:
    return shortened(first_of(UPSTREAM_ID_HEADERS, exchange.response.headers)) if exchange.response is not None else ""
