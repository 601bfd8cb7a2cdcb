"""Builds what a process that serves has of the settings: the snapshot of its requests (upstreams, models, callers and
the limits that bind them), and what it keeps itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

import msgspec

from gateway.app.loaded_snapshot import LoadedSnapshot
from gateway.app.process_settings import AdminTerms, DrainTerms, ProcessSettings, RecordTerms, StoreTerms
from gateway.app.snapshot_differences import SnapshotChanges, changes_of
from gateway.core.end_users import EndUserRule
from gateway.core.endpoints import ENDPOINT_NAMES, FORWARDED
from gateway.core.header_rules import is_credential
from gateway.core.http_syntax import read_base_url
from gateway.core.issuers import TokenClaims, TokenIssuer
from gateway.core.key_ids import key_id_of
from gateway.core.limits import Limit, Scope
from gateway.core.notifications import NotificationChannel, thresholds
from gateway.core.pricing import WHOLE_FACTOR, Price, PriceTerms, pico_per_written
from gateway.core.proxies import EnvironmentProxies, Proxy, read_proxy
from gateway.core.redaction import Redactor
from gateway.core.snapshot import (
    Caller,
    ConfigSnapshot,
    KeyTerms,
    Model,
    Target,
    TeamTerms,
    Timeouts,
    Upstream,
    UpstreamTls,
    matches,
)
from gateway.settings.limit_settings import Limits, LimitSettings
from gateway.settings.models import JwtSettings, KeySettings, ModelSettings, Settings
from gateway.settings.notify_checks import channel_name
from gateway.settings.price_settings import PriceListSettings, PriceSettings, TierPriceSettings
from gateway.settings.upstream_settings import TimeoutSettings, TlsSettings, UpstreamSettings
from gateway.telemetry.configured_names import configured_names

_VERTEX_OPENAI, _VERTEX_GEMINI = "/endpoints/openapi", "/publishers/google"
"""The ends of Vertex AI's base paths within a project: for OpenAI's API and for Gemini's."""


class _Subject(NamedTuple):
    """The scope and subject of a limit."""

    scope: Scope
    name: str = ""
    team: str = ""
    notify_at: tuple[int, ...] = ()


def loaded_snapshot(settings: Settings, loaded_at: int = 0, before: ConfigSnapshot | None = None) -> LoadedSnapshot:
    """`loaded_at` is in seconds since 1970; `before` is what the snapshot is compared with."""
    built = snapshot(settings, loaded_at)
    changes = SnapshotChanges() if before is None else changes_of(before, built)
    return LoadedSnapshot(_process_settings(settings), built, configured_names(built, settings.teams), changes)


def _process_settings(settings: Settings) -> ProcessSettings:
    store, record = settings.store, settings.record
    return ProcessSettings(
        listen=settings.listen,
        admin=AdminTerms(settings.admin.listen, settings.admin.secret),
        trusted_proxies=settings.trusted_proxies,
        origins=settings.cors.origins,
        workers=settings.workers,
        timezone=settings.timezone,
        max_body=settings.max_body,
        max_body_memory=settings.max_body_memory,
        max_clients=settings.max_clients,
        is_max_clients_given="max_clients" in settings.model_fields_set,
        keepalive=settings.keepalive,
        drain=DrainTerms(settings.drain.delay, settings.drain.timeout),
        record=RecordTerms(record.requests, record.keep, record.most),
        store=StoreTerms(
            store.url, store.timeout, store.on_outage, store.journal, store.journal_unsigned, store.prefix
        ),
        file=settings.file,
        file_hash=settings.file_hash,
        referenced_files=settings.referenced_files,
        text=settings.text,
    )


def snapshot(settings: Settings, loaded_at: int = 0) -> ConfigSnapshot:
    """`loaded_at` is in seconds since 1970."""
    upstreams = {name: _upstream(name, upstream, settings.proxies) for name, upstream in settings.upstreams.items()}
    channels = tuple([_channel(settings, place) for place in range(len(settings.notify))])
    models: dict[str, Model] = {}
    for name, written in settings.models.items():
        model = _model(name, written, upstreams, loaded_at, thresholds(channels, ""))
        models.update(dict.fromkeys((name, *model.aliases), model))
    teams = {name: _team(settings, name, channels) for name in settings.teams}
    callers: dict[str, Caller] = {}
    for team in teams.values():
        callers.update(_callers(settings, team))
    return ConfigSnapshot(
        callers=callers,
        models=models,
        teams=teams,
        issuers={written.issuer: _issuer(written, settings.proxies) for written in settings.jwt},
        channels=channels,
        prices=_prices(models),
    )


def _prices(models: dict[str, Model]) -> dict[str, dict[str, Price]]:
    found: dict[str, dict[str, Price]] = {}
    for name, model in models.items():
        for target in model.targets:
            if target.price is not None:
                known = found.setdefault(target.upstream.name, {})
                known.setdefault(target.model, target.price)
                known.setdefault(name, target.price)
    return found


def _channel(settings: Settings, place: int) -> NotificationChannel:
    """For settings without errors."""
    written = settings.notify[place]
    url = written.url.get_secret_value()
    return NotificationChannel(
        name=channel_name(written, place),
        format=written.format,
        url=url,
        secret="" if written.secret is None else written.secret.get_secret_value(),
        at=tuple(sorted(set(written.at))),
        teams=written.teams,
        events=written.events,
        proxy=settings.proxies.proxy_for(read_base_url(url)),
    )


def _upstream(name: str, written: UpstreamSettings, proxies: EnvironmentProxies) -> Upstream:
    credential = () if written.credential is None else (written.credential,)
    headers = tuple((header.lower(), value) for header, value in written.headers.items())
    other = written.other_credential
    proxy = _proxy(written, proxies)
    return Upstream(
        name=name,
        base_url=written.base_url,
        headers=(*credential, *headers),
        other_dialect=None if other is None else other.dialect,
        other_headers=() if other is None else (other.header, *headers),
        endpoints=_endpoints(written),
        base_paths=tuple(_base_paths(written)),
        timeouts=_timeouts(written.timeouts),
        max_connections=written.max_connections,
        stream_options=written.stream_options,
        output_cap=written.output_cap,
        check_path=written.health.asked if written.health else "",
        check_every_s=written.health.every.total_seconds() if written.health else 0.0,
        query=urlencode(written.query, quote_via=quote),
        pass_headers=frozenset(header.lower() for header in written.pass_headers),
        reads_on=written.on_disconnect == "drain",
        proxy=proxy,
        tls=None if written.tls is None else _tls(written.tls),
        redactor=Redactor.of(_secrets(written, proxy)),
    )


def _endpoints(written: UpstreamSettings) -> frozenset[str] | None:
    if written.endpoints is None:
        return None
    return frozenset(name for name in ENDPOINT_NAMES if matches(name, written.endpoints))


def _base_paths(written: UpstreamSettings) -> Iterator[tuple[str, str]]:
    """The endpoints with another base path than that of the base URL. If that ends in a version, an API of another
    version is next to it: /v1beta/models/… and /v2/rerank next to /v1/chat/completions."""
    usual = urlsplit(written.base_url).path.rstrip("/")
    for endpoint in FORWARDED:
        named = next((path for pattern, path in written.base_paths.items() if matches(endpoint.name, (pattern,))), None)
        base = _base_of_version(usual, endpoint.version) if named is None else named.rstrip("/")
        if base != usual:
            yield endpoint.name, base


def _base_of_version(usual: str, version: str) -> str:
    if version == "/v1":
        return usual
    for ending, beside in ((_VERTEX_OPENAI, _VERTEX_GEMINI), (f"{version}/openai", version), (version, version)):
        if usual.endswith(ending):
            return usual.removesuffix(ending) + beside
    return usual.removesuffix("/v1") + version


def _secrets(written: UpstreamSettings, proxy: Proxy | None) -> Iterator[str]:
    """The credential header for this server, or for the proxy in front of it."""
    if written.api_key is not None:
        yield written.api_key.get_secret_value()
    queried = parse_qsl(urlsplit(written.base_url).query)
    for name, value in (*written.headers.items(), *written.query.items(), *queried):
        if is_credential(name):
            yield value.rpartition(" ")[2]  # Of "Bearer KEY", the key.
    if proxy is not None:
        yield proxy.authorization.rpartition(" ")[2]


def _proxy(written: UpstreamSettings, proxies: EnvironmentProxies) -> Proxy | None:
    """For settings without errors, as they are after a load."""
    if written.proxy is not None:
        return None if written.proxy == "none" else read_proxy(written.proxy)
    try:
        url = read_base_url(written.base_url)
    except ValueError:
        return None  # No request to it can be written, whichever way.
    return proxies.proxy_for(url)


def _tls(written: TlsSettings) -> UpstreamTls:
    contents = hashlib.sha256()
    for file in written.files.values():
        with suppress(OSError):  # It has gone since the load; connecting says so.
            contents.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return UpstreamTls(**written.files, digest=contents.hexdigest())


def _timeouts(written: TimeoutSettings) -> Timeouts:
    return Timeouts(
        connect=written.connect.total_seconds(),
        first_byte=written.first_byte.total_seconds(),
        idle=written.idle.total_seconds(),
        total=written.total.total_seconds(),
    )


def _model(
    name: str, written: ModelSettings, upstreams: dict[str, Upstream], loaded_at: int, notify_at: tuple[int, ...]
) -> Model:
    price = price_of(written.price)
    return Model(
        name=name,
        targets=tuple(
            Target(
                upstream=upstreams[route.upstream],
                model=route.model or name,
                weight=route.weight,
                priority=route.priority,
                price=price_of(route.price) or price,
            )
            for route in written.routes
        ),
        aliases=written.aliases,
        context_window=written.context_window,
        max_output_tokens=written.max_output_tokens,
        affinity=written.affinity,
        limits=_limits(written.limits, _Subject(Scope.MODEL, name, notify_at=notify_at)),
        created=loaded_at,
    )


def price_of(written: PriceSettings | None) -> Price | None:
    """The price by which requests are charged, in pico-dollars."""
    if written is None:
        return None
    tiers = {name: _price_terms(tier) for name, tier in written.tiers.items()}
    regions = {name: int(factor * WHOLE_FACTOR) for name, factor in written.regions.items()}
    return Price.of(msgspec.structs.replace(_price_terms(written), tiers=tiers, regions=regions))


def _price_terms(written: TierPriceSettings) -> PriceTerms:
    return PriceTerms(_pico_dollars(written), {step.tokens: _pico_dollars(step) for step in written.above})


def _pico_dollars(written: PriceListSettings) -> dict[str, int]:
    """Exact, because a price per million has at most six decimals, and that of a unit at most nine."""
    named = {"character" if name == "million_characters" else name: usd for name, usd in written.prices.items()}
    return {name: int(usd * pico_per_written(name)) for name, usd in named.items()}


def _issuer(written: JwtSettings, proxies: EnvironmentProxies) -> TokenIssuer:
    place = written.keys_place
    return TokenIssuer(
        issuer=written.issuer,
        audiences=frozenset(written.audience),
        jwks=place,
        is_discovered=written.jwks is None,
        algorithms=frozenset(written.algorithms),
        claims=TokenClaims(
            user=written.user, groups=written.groups, team=written.team or "", models=written.models or ""
        ),
        teams=tuple(written.teams.items()),
        default_team=written.default_team or "",
        proxy=None if place.startswith("/") else proxies.proxy_for(read_base_url(place)),
    )


def _team(settings: Settings, name: str, channels: tuple[NotificationChannel, ...]) -> TeamTerms:
    written, notify_at = settings.teams[name], thresholds(channels, name)
    everybodys = _limits(settings.limits, _Subject(Scope.ORGANISATION, notify_at=thresholds(channels, "")))
    caller = Caller(
        key_id="",
        key_name="",
        team=name,
        models=() if written.models is None else (written.models,),
        limits=(*everybodys, *_limits(written.limits, _Subject(Scope.TEAM, name, name, notify_at))),
        user_limits=_limits(written.user_limits, _Subject(Scope.USER, "", name, notify_at)),
        cost_center=written.cost_center,
        end_user=EndUserRule(
            header=(written.end_user.header or "").lower(),
            required=written.end_user.required,
            most=written.end_user.most,
        ),
    )
    key_limits = _limits(written.key_limits, _Subject(Scope.KEY, "", name))
    return TeamTerms(caller, key_limits, notify_at, written.owner)


def _callers(settings: Settings, team: TeamTerms) -> Iterator[tuple[str, Caller]]:
    """The team's keys that can be used, by their SHA-256."""
    for key in settings.teams[team.caller.team].keys:
        if key.digest:
            yield key.digest, _caller(team, key, settings.timezone)


def _caller(team: TeamTerms, key: KeySettings, timezone: ZoneInfo) -> Caller:
    """One key; it shares with the other keys of its team what they have in common."""
    key_id = key_id_of(key.digest)
    expires = key.expires_at(timezone)
    terms = KeyTerms(
        key_id=key_id,
        name=key.name,
        subject=key_id,
        models=key.models,
        limits=_limits(key.limits, _Subject(Scope.KEY, key_id, team.caller.team)),
        networks=key.networks,
        expires_ms=None if expires is None else round(expires.timestamp() * 1000),
        disabled=key.disabled,
    )
    return team.caller_of(terms)


def _limits(written: Limits, subject: _Subject) -> tuple[Limit, ...]:
    return tuple(_limit(limit, subject) for limit in written)


def _limit(written: LimitSettings, subject: _Subject) -> Limit:
    limit = written.limit(subject.scope, subject.name, subject.team)
    if not (subject.notify_at and limit.is_quota):
        return limit
    return msgspec.structs.replace(limit, notify_at=subject.notify_at)
