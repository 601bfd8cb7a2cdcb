"""The schemas of the objects in the admin API's answers."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.limits import Meter, Mode, Per, Scope
from gateway.core.losses import LOSSES, LossClass
from gateway.web.openapi import (
    AMOUNT,
    COUNT,
    FLAG,
    TEXT,
    TIME,
    Schema,
    a_list,
    an_object,
    or_null,
)

_KEY = an_object(
    id=TEXT,
    name=TEXT,
    team=TEXT,
    models=a_list(TEXT),
    limits=a_list({"type": "object"}),
    networks=a_list(TEXT),
    metadata={"type": "object", "additionalProperties": TEXT},
    created_at=or_null(TIME),
    expires_at=or_null(TIME),
    last_used_at=or_null(TIME),
    status={"enum": ["active", "expired", "revoked", "disabled"]},
    source={"enum": ["config", "store"]},
)
_GRANT = an_object(
    id=TEXT,
    limit=TEXT,
    scope={"enum": [scope.value for scope in Scope]},
    subject=TEXT,
    team=or_null(TEXT),
    meter={"enum": [meter.value for meter in Meter]},
    per=or_null({"enum": [per.value for per in Per]}),
    amount=AMOUNT,
    created_at=TIME,
    until=TIME,
    why=TEXT,
    granted_by=TEXT,
)
_AUDIT_ENTRY = an_object(
    id=TEXT,
    at=TIME,
    actor=TEXT,
    action=TEXT,
    subject=TEXT,
    before=or_null({"type": "object"}),
    after=or_null({"type": "object"}),
)
_NOTIFICATION = an_object(
    state={"enum": ["waiting", "failing", "sent", "given_up", "parked"]},
    id=or_null(TEXT),
    type=or_null(TEXT),
    channel=or_null(TEXT),
    at=or_null(TIME),
    due_at=or_null(TIME),
    tried_at=or_null(TIME),
    problem=or_null(TEXT),
    message=TEXT,
)
_IN_FLIGHT = an_object(
    id=TEXT,
    state={"enum": ["arriving", "waiting", "answering"]},
    began_at=TIME,
    age_s=AMOUNT,
    team=or_null(TEXT),
    key=or_null(TEXT),
    key_name=or_null(TEXT),
    user=or_null(TEXT),
    client_ip=or_null(TEXT),
    endpoint=or_null(TEXT),
    model=or_null(TEXT),
    stream=FLAG,
    upstream=or_null(TEXT),
    estimated_input_tokens=COUNT,
    output_tokens=COUNT,
    process=TEXT,
)
_RECORDED_LIMIT = an_object(
    name=TEXT,
    scope={"enum": [scope.value for scope in Scope]},
    subject=TEXT,
    meter={"enum": [meter.value for meter in Meter]},
    per=or_null({"enum": [per.value for per in Per]}),
    mode={"enum": [mode.value for mode in Mode]},
    amount=AMOUNT,
    used=AMOUNT,
    held=AMOUNT,
    left=AMOUNT,
    needed=or_null(AMOUNT),
    resets_at=or_null(TIME),
    verdict={"enum": ["passed", "refused", "would_refuse"]},
)
_RECORD = an_object(
    id=TEXT,
    at=TIME,
    status=COUNT,
    error=or_null(
        an_object(
            code=TEXT,
            blame=TEXT,
            message=or_null(TEXT),
            param=or_null(TEXT),
            retry_after_ms=or_null(COUNT),
            refused_key=or_null(TEXT),
            refused_because=or_null(TEXT),
        )
    ),
    team=or_null(TEXT),
    key=or_null(TEXT),
    key_name=or_null(TEXT),
    user=or_null(TEXT),
    client_ip=or_null(TEXT),
    user_agent=or_null(TEXT),
    method=TEXT,
    path=or_null(TEXT),
    endpoint=or_null(TEXT),
    model=or_null(TEXT),
    stream=FLAG,
    whole=FLAG,
    limits=a_list(_RECORDED_LIMIT),
    estimated_input_tokens=COUNT,
    granted_output_tokens=or_null(COUNT),
    output_cap=or_null(COUNT),
    upstream=or_null(TEXT),
    upstream_request_id=or_null(TEXT),
    attempts=a_list(an_object(upstream=TEXT, outcome=TEXT)),
    usage=or_null({"type": "object"}),
    usd=AMOUNT,
    prices=a_list(
        an_object(name=TEXT, quantity=COUNT, unit=TEXT, usd_per_unit=AMOUNT, usd=AMOUNT, factor=AMOUNT, model=TEXT)
    ),
    duration_s=AMOUNT,
    upstream_s=AMOUNT,
    time_to_first_byte_s=or_null(AMOUNT),
    config=or_null(TEXT),
    version=TEXT,
    process=TEXT,
    explanation=a_list(TEXT),
)
_REASONS = {"type": "object", "additionalProperties": COUNT}
_CIRCUIT = an_object(
    model=TEXT,
    state={"enum": ["closed", "open", "half_open", "recovering"]},
    key=or_null(TEXT),
    share=AMOUNT,
    wait_s=AMOUNT,
    next_try_at=or_null(TIME),
    opened_at=or_null(TIME),
    why=_REASONS,
    cooling=a_list(an_object(team=TEXT, until=TIME)),
)
_UPSTREAM = an_object(
    name=TEXT,
    up=FLAG,
    failed_checks=_REASONS,
    in_flight=COUNT,
    models=a_list(TEXT),
    circuits=a_list(_CIRCUIT),
)
_LOSS = an_object(
    **{
        "kind": {"enum": list(LOSSES)},
        "class": {"enum": [each.value for each in LossClass]},
        "what": TEXT,
        "meaning": TEXT,
        "last_day": COUNT,
        "total": COUNT,
        "last_at": or_null(TIME),
        "times": a_list(an_object(at=TIME, number=COUNT)),
    }
)
_TERMS = a_list({"type": "object"})
_TEAM = an_object(
    name=TEXT,
    keys=a_list(TEXT),
    models=a_list(TEXT),
    owner=TEXT,
    cost_center=TEXT,
    key_limits=_TERMS,
    user_limits=_TERMS,
)
_ROUTE = an_object(upstream=TEXT, model=TEXT, weight=COUNT, priority=COUNT, price=or_null({"type": "object"}))
_ROUTED_MODEL = an_object(
    name=TEXT,
    aliases=a_list(TEXT),
    context_window=or_null(COUNT),
    max_output_tokens=or_null(COUNT),
    affinity=TEXT,
    routes=a_list(_ROUTE),
    limits=_TERMS,
)
_DURATIONS = an_object(p50_s=or_null(AMOUNT), p95_s=or_null(AMOUNT), p99_s=or_null(AMOUNT), counts=a_list(COUNT))
_TRAFFIC_SAMPLE = an_object(
    at=TIME,
    seconds=AMOUNT,
    requests=COUNT,
    failed=an_object(caller=COUNT, policy=COUNT, upstream=COUNT, gateway=COUNT),
    in_flight=COUNT,
    input_tokens=COUNT,
    output_tokens=COUNT,
    usd=AMOUNT,
    duration=_DURATIONS,
    first_token=_DURATIONS,
    attempts={"type": "object", "additionalProperties": {"type": "object", "additionalProperties": COUNT}},
)
_USAGE = an_object(
    requests=COUNT,
    input_tokens=COUNT,
    cached_input_tokens=COUNT,
    cache_write_tokens=COUNT,
    cache_write_1h_tokens=COUNT,
    output_tokens=COUNT,
    reasoning_tokens=COUNT,
    estimated_tokens=COUNT,
    audio_input_tokens=COUNT,
    image_input_tokens=COUNT,
    audio_output_tokens=COUNT,
    image_output_tokens=COUNT,
    images=COUNT,
    searches=COUNT,
    audio_ms=COUNT,
    characters=COUNT,
    estimated_audio_ms=COUNT,
    usd=AMOUNT,
)

ADMIN_SCHEMAS: Mapping[str, Schema] = {
    "AuditEntry": _AUDIT_ENTRY,
    "DeliveredNotification": _NOTIFICATION,
    "Grant": _GRANT,
    "Key": _KEY,
    "Loss": _LOSS,
    "RoutedModel": _ROUTED_MODEL,
    "Team": _TEAM,
    "TrafficSample": _TRAFFIC_SAMPLE,
    "RequestInFlight": _IN_FLIGHT,
    "RequestRecord": _RECORD,
    "Upstream": _UPSTREAM,
    "Usage": _USAGE,
}
