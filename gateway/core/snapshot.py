"""The configuration as requests see it: keys, models, upstreams, and what binds a key that uses a model.

A `ConfigSnapshot` is immutable. A reload builds a new one and swaps one reference; a request keeps the snapshot that it
began with.

A `Binding` is what applies to one key and one model: the limits of both, what each of them is charged, and the names of
the headers that report it. It is built when a key first uses a model, so that globs are matched once and not for each
request. There can be as many bindings as keys times models: too many to build at a reload, and too many to keep
without a bound.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from math import inf
from types import MappingProxyType

import msgspec

from gateway.core.end_users import EndUserRule
from gateway.core.endpoints import ENDPOINT_NAMES, Dialect
from gateway.core.issuers import TokenIssuer
from gateway.core.limit_status import LimitHeaders
from gateway.core.limits import ChargedByUse, Limit, Meter, charged_by_use
from gateway.core.networks import Network
from gateway.core.notifications import NotificationChannel
from gateway.core.pricing import NO_PRICES, CeilingRates, Price, ceiling, rates_at
from gateway.core.proxies import Proxy
from gateway.core.redaction import Redactor
from gateway.core.remembered import remembered
from gateway.core.usage import NOTHING_USED, Usage

BINDINGS_MAX = 65_536
"""Bindings that a snapshot keeps; the oldest goes first, and is made again when it is needed."""

USERS_MAX = 256
"""End users of one binding whose limits are kept; the least recently seen goes first."""

MILLION = 1_000_000

_NO_UPSTREAMS: Mapping[str, Mapping[str, Price]] = MappingProxyType({})


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds. `first_byte` runs from the request's last byte, `idle` between two pieces, `total` over all."""

    connect: float = 5.0
    first_byte: float = 60.0
    idle: float = 60.0
    total: float = 900.0


class UpstreamTls(msgspec.Struct, frozen=True):
    """Paths of files in PEM; an empty one is left out. `ca` replaces the system's authorities, `cert` and `key` prove
    the gateway to the upstream. `digest` is that of what the files held: other contents make another upstream, with
    connections of its own."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    digest: str = ""


class Upstream(msgspec.Struct, frozen=True, cache_hash=True):
    """One model server. `headers` carry its credentials and what its operator adds to every request."""

    name: str
    base_url: str
    headers: tuple[tuple[str, str], ...] = ()
    timeouts: Timeouts = Timeouts()
    max_connections: int = 512
    stream_options: bool = True
    """Whether it understands `stream_options` (some servers refuse the field)."""
    output_cap: str = "max_tokens"
    """The member that caps a chat's output where the gateway must and the client did not."""
    check_path: str = ""
    """The path of its health check, made each `check_every_s` seconds; empty: none is made."""
    check_every_s: float = 0.0
    query: str = ""
    """Added to the target of every request, percent-encoded."""
    pass_headers: frozenset[str] = frozenset()
    """Names, in lower case, of further headers of clients that reach it."""
    reads_on: bool = False
    """Whether a stream is read on after its client has left, to learn the true usage."""
    proxy: Proxy | None = None
    """The forward proxy that it is reached through."""
    tls: UpstreamTls | None = None
    """None: the system's authorities, and no certificate of the gateway's."""
    endpoints: frozenset[str] | None = None
    """The names of the endpoints that it serves; None: every one may be asked of it."""
    base_paths: tuple[tuple[str, str], ...] = ()
    """The names of endpoints whose paths follow another base path than `base_url` has, and that path."""
    other_dialect: Dialect | None = None
    """The API on whose paths the credential is sent in another way, if there is one."""
    other_headers: tuple[tuple[str, str], ...] = ()
    """In place of `headers` on requests of that API."""

    redactor: Redactor | None = None
    """Keeps its credentials out of its answers."""

    def base_path(self, endpoint: str) -> str | None:
        """The base path of this endpoint, None where it is that of `base_url`."""
        return _base_path(self.base_paths, endpoint) if self.base_paths else None


@lru_cache(256)
def _base_path(paths: tuple[tuple[str, str], ...], endpoint: str) -> str | None:
    return dict(paths).get(endpoint)


class Target(msgspec.Struct, frozen=True, cache_hash=True):
    """One route of a model: the upstream, the name that the model has there, and what it charges; None: nothing."""

    upstream: Upstream
    model: str
    weight: int = 1
    priority: int = 1
    price: Price | None = None


class Model(msgspec.Struct, frozen=True):
    """A model as clients know it. Sizes are tokens; None where the operator does not say."""

    name: str
    targets: tuple[Target, ...]
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    affinity: str = "none"
    """Which requests go to the same target: none, those of one user, of one session, or those that begin alike
    (prefix)."""
    limits: tuple[Limit, ...] = ()
    created: int = 0
    """Seconds since 1970, for `GET /v1/models`: when the configuration that names it was loaded."""
    ceilings: dict[str, tuple[CeilingRates, ...]] = {}
    """The most that a request may cost, by the service tier that it asks for; "default" has that of any other. Made
    of the prices."""
    served_by: dict[str, tuple[Target, ...]] = {}
    """Of the endpoints that not every target serves, those that do. Made of the targets."""

    def __post_init__(self) -> None:
        self._find_served()
        prices = self.prices
        tiers = {"", "auto", "default", *(tier for price in prices for tier in price.tiers)}
        msgspec.structs.force_setattr(self, "ceilings", {tier: ceiling(prices, tier) for tier in tiers})

    def _find_served(self) -> None:
        if all(target.upstream.endpoints is None for target in self.targets):
            return
        served = {}
        for endpoint in ENDPOINT_NAMES:
            serving = tuple([target for target in self.targets if _serves(target.upstream, endpoint)])
            if len(serving) < len(self.targets):
                served[endpoint] = serving
        msgspec.structs.force_setattr(self, "served_by", served)

    def serving(self, endpoint: str) -> tuple[Target, ...]:
        """The targets that serve the endpoint of this name."""
        return self.served_by.get(endpoint, self.targets)

    def at(self, upstream: Upstream) -> Target | None:
        """Its first route to the upstream, None where it has none."""
        return next((target for target in self.targets if target.upstream.name == upstream.name), None)

    @property
    def prices(self) -> list[Price]:
        """Those of its routes, without routes that have none."""
        return [target.price for target in self.targets if target.price is not None]

    def knows_price_of(self, tier: str) -> bool:
        """Whether an answer of this service tier can be charged: one of the prices names it, or there are none."""
        prices = self.prices
        return not prices or any(tier in price.tiers for price in prices)


def _serves(upstream: Upstream, endpoint: str) -> bool:
    return upstream.endpoints is None or endpoint in upstream.endpoints


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a model's name fits one of the globs (case counts; `*` crosses slashes)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Caller(msgspec.Struct, frozen=True, gc=False):
    """A key as the pipeline sees it. `limits` are those of organisation, team and key; `user_limits` bind each end
    user of the team separately. `models` empty: every model."""

    key_id: str
    key_name: str
    team: str
    models: tuple[tuple[str, ...], ...] = ()
    """Each entry is a list of globs that must admit the model: the team's, then the key's own."""
    limits: tuple[Limit, ...] = ()
    user_limits: tuple[Limit, ...] = ()
    expires_ms: int | None = None
    disabled: bool = False
    cost_center: str = ""
    """Its team's."""
    end_user: EndUserRule = EndUserRule()
    """Its team's."""
    networks: tuple[Network, ...] = ()
    """From which it may be used; empty: from everywhere."""

    def may_use(self, model: str) -> bool:
        return all(matches(model, patterns) for patterns in self.models)


class KeyTerms(msgspec.Struct, frozen=True):
    """What a key has of its own. `subject` is what the counters of its limits are kept under; the limits have none yet.
    `models` None: all of its team's."""

    key_id: str
    name: str
    subject: str
    models: tuple[str, ...] | None = None
    limits: tuple[Limit, ...] = ()
    networks: tuple[Network, ...] = ()
    expires_ms: int | None = None
    disabled: bool = False


class TeamTerms(msgspec.Struct, frozen=True):
    """What all keys of a team have in common: `caller` as it is, `key_limits` each for itself. `notify_at` is that of
    the quotas of its keys, `owner` who is responsible."""

    caller: Caller
    key_limits: tuple[Limit, ...] = ()
    notify_at: tuple[int, ...] = ()
    owner: str = ""

    def caller_of(self, key: KeyTerms) -> Caller:
        """A key of the team. A limit of its own takes the place of the team's `key_limits` of the same name."""
        limits = {limit.name: limit for limit in (*self.key_limits, *key.limits)}
        team = self.caller
        own = [
            msgspec.structs.replace(
                limit, subject=key.subject, team=team.team, notify_at=self.notify_at if limit.is_quota else ()
            )
            for limit in limits.values()
        ]
        return msgspec.structs.replace(
            team,
            key_id=key.key_id,
            key_name=key.name,
            models=team.models if key.models is None else (*team.models, key.models),
            limits=(*team.limits, *own) if own else team.limits,
            expires_ms=key.expires_ms,
            disabled=key.disabled,
            networks=key.networks,
        )


class ChargeRule(msgspec.Struct, frozen=True):
    """What one limit is charged for one request: so much each, and so many millionths of its unit a token."""

    each: int
    per_input: int
    per_output: int


_CHARGE_RULES = {
    Meter.TOKENS: ChargeRule(0, MILLION, MILLION),
    Meter.INPUT_TOKENS: ChargeRule(0, MILLION, 0),
    Meter.OUTPUT_TOKENS: ChargeRule(0, 0, MILLION),
    Meter.REQUESTS: ChargeRule(1, 0, 0),
    Meter.CONCURRENT: ChargeRule(1, 0, 0),
}


def _bound(limit: Limit) -> float:
    """The most that a limit can ever hold of one request's input."""
    return limit.burst if limit.is_rate else inf


InputRule = tuple[int, int, int, float]
"""A limit's place, what it is charged for a request and for a million tokens of input, and the most that it can ever
hold. Each request takes some apart: of a tuple with names each field would be asked for by itself."""


class ChargeRules(msgspec.Struct, frozen=True):
    """The rules of several limits, column by column. `most` is what a limit can ever hold, where that bounds what one
    request may be charged for its input: of a rate its burst. `by_input` has the limits that charge it."""

    each: tuple[int, ...]
    per_input: tuple[int, ...]
    per_output: tuple[int, ...]
    most: tuple[float, ...]
    by_input: tuple[InputRule, ...]


@remembered(4_096)
def _rules_alike(_alike: Hashable) -> dict[CeilingRates | None, ChargeRules]:
    """What bindings with the same meters, bounds and prices know of their rules. Most keys differ in names alone, and
    what each request reads is to be in the processor's caches, however many keys are in use."""
    return {}


def _charge_rules(limits: Sequence[Limit], dollars: ChargeRule) -> ChargeRules:
    rules = [_CHARGE_RULES.get(limit.meter, dollars) for limit in limits]
    most = [_bound(limit) for limit in limits]
    return ChargeRules(
        each=tuple([rule.each for rule in rules]),
        per_input=tuple([rule.per_input for rule in rules]),
        per_output=tuple([rule.per_output for rule in rules]),
        most=tuple(most),
        by_input=tuple(
            [
                (place, rule.each, rule.per_input, bound)
                for place, (rule, bound) in enumerate(zip(rules, most, strict=True))
                if rule.per_input
            ]
        ),
    )


class Binding(msgspec.Struct, frozen=True, eq=False):
    """What binds one key that uses one model.

    `limits` is the same tuple for every request that names no end user, so that a store can keep by its identity
    what it has prepared for it; `limits_for` gives the same tuple for the same user, while the user is remembered.
    `headers` are those of `limits` followed by the limits of a user, as are the rules of `rules_for`, place by place.
    """

    caller: Caller
    model: Model
    limits: tuple[Limit, ...]
    user_limits: tuple[Limit, ...]
    charged: ChargedByUse
    """Of `limits` alone."""
    headers: LimitHeaders
    prices: Mapping[str, Mapping[str, Price]]
    """Of the configuration: the prices of each upstream's models, by the upstream's names of them."""
    _counts_dollars: bool
    _rules: dict[CeilingRates | None, ChargeRules]
    """Shared with the bindings that have the same."""
    _by_user: dict[str, tuple[Limit, ...]] = msgspec.field(default_factory=dict)
    _of_requests: list[Binding] = msgspec.field(default_factory=list)

    def prices_beside(self, target: Target) -> Mapping[str, Price]:
        """Those of the models of the target's upstream, by the upstream's names."""
        return self.prices.get(target.upstream.name, NO_PRICES)

    def rules_for(self, tier: str, input_tokens: int, units: Usage) -> ChargeRules:
        """What is charged for a request. A `usd` limit is charged what a request with this input and these units can
        cost at most, whichever route serves it, at whichever tier it may get when it asks for this one."""
        rates = None
        if self._counts_dollars:
            ceilings = self.model.ceilings
            rates = rates_at(ceilings.get(tier) or ceilings["default"], input_tokens)
            if units is not NOTHING_USED and units != NOTHING_USED:
                return self._rules_at(rates, units)
        rules = self._rules.get(rates)
        if rules is None:
            rules = self._rules[rates] = self._rules_at(rates, NOTHING_USED)
        return rules

    def rules_beside(self, model: Model, input_tokens: int) -> ChargeRules:
        """What the same limits are charged for the tokens that another model takes, with so much input."""
        rates = rates_at(model.ceilings["default"], input_tokens) if self._counts_dollars else None
        return self._rules_at(rates, NOTHING_USED)

    def _rules_at(self, rates: CeilingRates | None, units: Usage) -> ChargeRules:
        dollars = ChargeRule(rates.without_tokens(units), rates.input, rates.output) if rates else ChargeRule(0, 0, 0)
        return _charge_rules((*self.limits, *self.user_limits), dollars)

    def of_requests(self) -> Binding:
        """What binds a request that costs nothing: limits of tokens and of money do not."""
        if not self._of_requests:
            self._of_requests.append(bind(self.caller, self.model, _OF_REQUESTS, self.prices))
        return self._of_requests[0]

    def limits_for(self, user: str) -> tuple[Limit, ...]:
        """Every limit that binds a request of this end user, or of one that names none."""
        if not user or not self.user_limits:
            return self.limits
        known = self._by_user.pop(user, None)
        if known is None:
            known = (*self.limits, *[limit.for_user(user) for limit in self.user_limits])
            if len(self._by_user) >= USERS_MAX:
                del self._by_user[next(iter(self._by_user))]
        self._by_user[user] = known
        return known


_OF_REQUESTS = frozenset({Meter.REQUESTS, Meter.CONCURRENT})


def bind(
    caller: Caller,
    model: Model,
    meters: Container[Meter] = frozenset(Meter),
    prices: Mapping[str, Mapping[str, Price]] = _NO_UPSTREAMS,
) -> Binding:
    """Put together what applies to this key and this model, of limits those with these meters."""
    limits = tuple([limit for limit in (*caller.limits, *model.limits) if _applies(limit, model, meters)])
    user_limits = tuple([limit for limit in caller.user_limits if _applies(limit, model, meters)])
    every = (*limits, *user_limits)
    bounds = tuple([(limit.meter, _bound(limit)) for limit in every])
    return Binding(
        caller=caller,
        model=model,
        limits=limits,
        user_limits=user_limits,
        charged=charged_by_use(limits),
        headers=LimitHeaders(every),
        prices=prices,
        _counts_dollars=any(limit.meter is Meter.USD for limit in every),
        _rules=_rules_alike((bounds, tuple(model.ceilings.items()))),
    )


class ConfigSnapshot(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """`callers` by the hexadecimal SHA-256 of their key, `models` by name and by alias. `teams` by name: what a key has
    that is of this team and has nothing of its own."""

    callers: dict[str, Caller]
    models: dict[str, Model]
    teams: dict[str, TeamTerms] = msgspec.field(default_factory=dict)
    issuers: dict[str, TokenIssuer] = {}
    """The identity providers whose tokens are taken, by what tokens call them."""
    channels: tuple[NotificationChannel, ...] = ()
    """The receivers of notifications."""
    bindings: dict[tuple[str, str], Binding] = msgspec.field(default_factory=dict)
    prices: dict[str, dict[str, Price]] = msgspec.field(default_factory=dict)
    """The prices of each upstream's models, by the upstream's names of them, and by their names and aliases here. Of
    several routes to one model of an upstream the first counts."""

    def binding(self, caller: Caller, asked: str) -> Binding | None:
        """What binds a caller that asks for this model or alias; None where it is unknown or not allowed."""
        known = self.bindings.get((caller.key_id, asked))
        if known is not None and known.caller is caller:
            return known
        model = self.models.get(asked)
        if model is None or not caller.may_use(model.name):
            return None
        # A model and its aliases have one binding.
        named = self.binding(caller, model.name) if asked != model.name else None
        made = named or bind(caller, model, prices=self.prices)
        if len(self.bindings) >= BINDINGS_MAX:
            del self.bindings[next(iter(self.bindings))]
        self.bindings[caller.key_id, asked] = made
        return made

    def upstreams(self) -> list[Upstream]:
        """Every upstream that a route leads to, each once."""
        found = {target.upstream: None for model in self.models.values() for target in model.targets}
        return list(found)

    def models_of(self, caller: Caller) -> list[Model]:
        """What this caller may use, each model once, in the order of the configuration."""
        named = {model.name: model for model in self.models.values()}
        return [model for model in named.values() if caller.may_use(model.name)]

    def limits_of(self, team: str = "") -> list[Limit]:
        """Every limit with one subject, of one team or of all: those on each end user are left out."""
        return list({limit.identity: limit for limit in self.each_limit(team)}.values())

    def each_limit(self, team: str) -> Iterator[Limit]:
        """The same, one after the other: those that several keys have are given again for each."""
        for name, terms in self.teams.items():
            if team in ("", name):
                yield from terms.caller.limits
        for caller in self.callers.values():
            if team in ("", caller.team):
                yield from caller.limits
        for model in self.models.values():
            yield from model.limits


def _applies(limit: Limit, model: Model, meters: Container[Meter]) -> bool:
    return limit.meter in meters and (not limit.models or matches(model.name, limit.models))
