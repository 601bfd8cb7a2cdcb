"""Settings to the catalogue that requests see: upstreams, models, callers and the limits that bind them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.limits import Limit, Mode, Scope, WhenSpent
from gateway.core.pricing import Price
from gateway.core.snapshot import Caller, ConfigSnapshot, Model, Target, Timeouts, Upstream
from gateway.settings.models import (
    KeySettings,
    Limits,
    LimitSettings,
    ModelSettings,
    PriceSettings,
    Settings,
    TimeoutSettings,
    UpstreamSettings,
)

KEY_ID_DIGITS = 12
"""A key's id is the beginning of its SHA-256."""

_PICO = 1_000_000
"""USD per million tokens, times this, is pico-dollars a token."""


class _Subject(NamedTuple):
    """Whom a limit binds."""

    scope: Scope
    name: str = ""
    team: str = ""


def snapshot(settings: Settings, loaded_at: int = 0) -> ConfigSnapshot:
    """`loaded_at` is in seconds since 1970."""
    upstreams = {name: _upstream(name, upstream) for name, upstream in settings.upstreams.items()}
    models: dict[str, Model] = {}
    for name, written in settings.models.items():
        model = _model(name, written, upstreams, loaded_at)
        models.update(dict.fromkeys((name, *model.aliases), model))
    callers: dict[str, Caller] = {}
    for name in settings.teams:
        callers.update(_callers(settings, name))
    return ConfigSnapshot(callers=callers, models=models)


def _upstream(name: str, written: UpstreamSettings) -> Upstream:
    credential = () if written.credential is None else (written.credential,)
    return Upstream(
        name=name,
        base_url=written.base_url,
        headers=(*credential, *((header.lower(), value) for header, value in written.headers.items())),
        timeouts=_timeouts(written.timeouts),
        max_connections=written.max_connections,
        stream_options=written.stream_options,
        output_cap=written.output_cap,
        check_path=written.health.asked if written.health else "",
        check_every_s=written.health.every.total_seconds() if written.health else 0.0,
        reads_on=written.on_disconnect == "drain",
    )


def _timeouts(written: TimeoutSettings) -> Timeouts:
    return Timeouts(
        connect=written.connect.total_seconds(),
        first_byte=written.first_byte.total_seconds(),
        idle=written.idle.total_seconds(),
        total=written.total.total_seconds(),
    )


def _model(name: str, written: ModelSettings, upstreams: dict[str, Upstream], loaded_at: int) -> Model:
    return Model(
        name=name,
        targets=tuple(
            Target(upstreams[route.upstream], route.model or name, route.weight, route.priority)
            for route in written.routes
        ),
        aliases=written.aliases,
        context_window=written.context_window,
        max_output_tokens=written.max_output_tokens,
        affinity=written.affinity,
        price=None if written.price is None else _price(written.price),
        limits=_limits(written.limits, _Subject(Scope.MODEL, name)),
        created=loaded_at,
    )


def _price(written: PriceSettings) -> Price:
    cached = written.input if written.cached_input is None else written.cached_input
    return Price(input=_pico(written.input), output=_pico(written.output), cached_input=_pico(cached))


def _pico(dollars_per_million: Decimal) -> int:
    """Exact: a price has at most six decimals."""
    return int(dollars_per_million * _PICO)


def _callers(settings: Settings, team: str) -> Iterator[tuple[str, Caller]]:
    """The team's keys that can be used, by their SHA-256."""
    written = settings.teams[team]
    everybodys = _limits(settings.limits, _Subject(Scope.ORGANISATION))
    shared = Caller(
        key_id="",
        key_name="",
        team=team,
        models=() if written.models is None else (written.models,),
        limits=(*everybodys, *_limits(written.limits, _Subject(Scope.TEAM, team, team))),
        user_limits=_limits(written.user_limits, _Subject(Scope.USER, "", team)),
        cost_center=written.cost_center,
    )
    for key in written.keys:
        if key.digest:
            yield key.digest, _caller(shared, key, settings.timezone)


def _caller(shared: Caller, key: KeySettings, timezone: ZoneInfo) -> Caller:
    """One key, with what it has in common with the other keys of its team."""
    key_id = key.digest[:KEY_ID_DIGITS]
    expires = key.expires_at(timezone)
    return msgspec.structs.replace(
        shared,
        key_id=key_id,
        key_name=key.name,
        models=shared.models if key.models is None else (*shared.models, key.models),
        limits=(*shared.limits, *_limits(key.limits, _Subject(Scope.KEY, key_id, shared.team))),
        expires_ms=None if expires is None else round(expires.timestamp() * 1000),
        disabled=key.disabled,
    )


def _limits(written: Limits, subject: _Subject) -> tuple[Limit, ...]:
    return tuple(_limit(limit, subject) for limit in written)


def _limit(written: LimitSettings, subject: _Subject) -> Limit:
    return Limit(
        name=written.title,
        scope=subject.scope,
        subject=subject.name,
        meter=written.meter,
        per=written.window,
        amount=written.amount,
        burst=written.bucket,
        team=subject.team,
        models=written.models or (),
        mode=Mode(written.mode),
        when_spent=WhenSpent(written.when_spent),
    )
