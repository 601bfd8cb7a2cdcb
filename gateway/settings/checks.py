"""Checks between settings: names that exist and are unique, keys that can be used, limits that bind.

Errors are settings that cannot work or would silently do nothing; warnings are settings that work, but probably not as
intended. Each limit has one meter, can bind something, can be counted exactly, and has its own name in its scope: a
limit that silently does nothing is the worst kind.

`NameIndex` is read from the plain data and not from the settings, so that a reference to something with an error is not
also reported as a reference to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from gateway.core.address import Address
from gateway.core.header_rules import carries_credential, pass_header_fault
from gateway.core.http_syntax import operator_header_fault, read_base_url
from gateway.core.limits import Meter
from gateway.core.pricing import FAST, SERVICE_TIERS
from gateway.core.reservation import OUTPUT_SHARE_FLOOR, output_share
from gateway.core.snapshot import matches
from gateway.settings.connection_checks import connection_errors, connection_warnings
from gateway.settings.demo_credentials import demo_credential_errors
from gateway.settings.diagnostics import Diagnostic, Path, dotted, nearest
from gateway.settings.document import Document
from gateway.settings.jwt_checks import jwt_errors, jwt_warnings
from gateway.settings.limit_settings import LimitSettings
from gateway.settings.models import KeySettings, ModelSettings, RouteSettings, Settings
from gateway.settings.notify_checks import notify_errors, notify_warnings
from gateway.settings.price_settings import PriceSettings, PriceStepSettings
from gateway.settings.upstream_settings import UpstreamSettings
from gateway.settings.written_limit import limit_faults

_GLOB = frozenset("*?[]")
_EVERY_IPV4 = "0.0.0.0"  # noqa: S104 # It is compared, not listened on.

_UNCERTAIN = {Meter.TOKENS, Meter.OUTPUT_TOKENS, Meter.USD}
"""Meters of quotas that one answer without a maximum can overrun."""


_EMPTY = "is empty; name at least one price, or leave it out"

_SEARCHING_PRESETS = {"openai", "azure", "anthropic", "openrouter", "gemini", "vertex"}
"""The endpoints whose answers report searches, which are charged separately from tokens."""
_OUTPUT_PRICES = ("output", "audio_output", "image_output")

_CROWD = 32
"""A quota that fewer requests at one time hold whole is worth a warning: a few coding agents send as many."""


class NameIndex:
    """`models` by name: whether each of its routes has a price. `aliases` by alias: its model. `replaced`: the paths
    whose value came from the environment or a file."""

    def __init__(self, document: Document) -> None:
        data = _mapping(document.data)
        models = {name: _mapping(model) for name, model in _mapping(data.get("models")).items()}
        self.upstreams = frozenset(_mapping(data.get("upstreams")))
        self.models = {name: _is_priced(model) for name, model in models.items()}
        self.aliases = {alias: name for name, model in models.items() for alias in _list(model.get("aliases"))}
        self.replaced = frozenset(document.sources)
        self._fitting: dict[tuple[str, ...] | None, frozenset[str]] = {None: frozenset(self.models)}
        self._common: dict[tuple[frozenset[str], frozenset[str]], frozenset[str]] = {}
        self._unpriced: dict[frozenset[str], list[str]] = {}

    def fitting(self, patterns: Iterable[str] | None) -> frozenset[str]:
        """The models that match any of the patterns; without patterns all of them."""
        globs = None if patterns is None else tuple(patterns)
        found = self._fitting.get(globs)
        if found is None:
            found = self._fitting[globs] = frozenset(name for name in self.models if matches(name, globs or ()))
        return found

    def fitting_of(self, models: frozenset[str], patterns: Iterable[str] | None) -> frozenset[str]:
        """Those of `models` that match any of the patterns: the same object for the same, since thousands of limits
        ask it of a thousand models."""
        both = models, self.fitting(patterns)
        found = self._common.get(both)
        if found is None:
            found = self._common[both] = both[0] & both[1]
        return found

    def unpriced(self, models: frozenset[str]) -> list[str]:
        """Those of `models` with a route that has no price."""
        found = self._unpriced.get(models)
        if found is None:
            found = self._unpriced[models] = sorted(name for name in models if not self.models[name])
        return found


def find_errors(
    settings: Settings, index: NameIndex, *, secrets: bool = True, connection_files: bool = True
) -> Iterator[Diagnostic]:
    """Without secrets, missing files are no errors; without `connection_files` no file is read."""
    yield from _listeners(settings)
    yield from _sizes(settings)
    yield from _workers(settings)
    yield from _upstreams(settings, index)
    yield from connection_errors(settings, secrets=secrets, files=connection_files)
    yield from _models(settings, index)
    yield from _prices(settings)
    yield from _aliases(settings, index)
    yield from _access(settings, index)
    yield from _keys(settings)
    yield from demo_credential_errors(settings)
    yield from _limit_errors(settings, index)
    yield from jwt_errors(settings, secrets=secrets, files=connection_files)
    yield from notify_errors(settings)


def find_warnings(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """For settings without errors."""
    yield from _idle(settings)
    yield from _secrets(settings, index)
    yield from connection_warnings(settings, index.replaced)
    yield from _price_warnings(settings)
    yield from _search_warnings(settings, index)
    yield from _limit_warnings(settings, index)
    yield from jwt_warnings(settings)
    yield from notify_warnings(settings, index.replaced)


def _listeners(settings: Settings) -> Iterator[Diagnostic]:
    for place, address in enumerate(settings.listen):
        before = settings.listen[:place]
        if address.port and address in before:
            yield Diagnostic(("listen", place), "is listed twice; remove one")
        elif wide := next((other for other in before if _overlap(address, other)), None):
            yield Diagnostic(("listen", place), f"overlaps with {wide}; remove one, or choose another port")
    admin = settings.admin.listen
    if admin.port and admin in settings.listen:
        yield Diagnostic(("admin", "listen"), "is the address that clients are served on; it needs one of its own")
    elif wide := next((other for other in settings.listen if _overlap(admin, other)), None):
        yield Diagnostic(("admin", "listen"), f"overlaps with {wide}, where clients are served; choose another port")


def _overlap(one: Address, other: Address) -> bool:
    """Whether the system refuses to listen on both: on a port of every address, [::] and 0.0.0.0 leave none."""
    hosts = {one.host, other.host}
    if not one.port or one.port != other.port:
        return False
    return len(hosts) == 1 or "::" in hosts or (_EVERY_IPV4 in hosts and not any(":" in host for host in hosts))


def _sizes(settings: Settings) -> Iterator[Diagnostic]:
    if settings.max_body_memory < settings.max_body:
        if "max_body_memory" in settings.model_fields_set:
            yield Diagnostic(("max_body_memory",), "is below `max_body`, so a body of that size could never be taken")
        else:
            message = "is above `max_body_memory`, which is 256MiB where it is left out; raise that to at least as much"
            yield Diagnostic(("max_body",), message)


def _workers(settings: Settings) -> Iterator[Diagnostic]:
    if settings.workers != 1 and settings.store.url == "memory://":
        message = "would each count by themselves with memory://; set `store.url` to redis://…, or leave it at 1"
        yield Diagnostic(("workers",), message)


def _upstreams(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    if not index.upstreams:
        yield Diagnostic(("upstreams",), "is missing; name at least one upstream")
    for name, upstream in settings.upstreams.items():
        yield from _upstream(("upstreams", name), upstream)
        yield from _query_and_pass_headers(("upstreams", name), upstream)


def _upstream(path: Path, upstream: UpstreamSettings) -> Iterator[Diagnostic]:
    """What would keep every request to it from being sent."""
    try:
        read_base_url(upstream.base_url)
    except ValueError as error:
        yield Diagnostic((*path, "base_url"), str(error))
    if upstream.auth == "none" and upstream.api_key is not None:
        yield Diagnostic((*path, "api_key"), "would never be sent with `auth: none`; leave one of them out")
    credential = upstream.credential
    if credential is not None and (fault := operator_header_fault(*credential)):
        yield Diagnostic((*path, "api_key"), fault)
    lower_names: set[str] = set()
    for header, value in upstream.headers.items():
        if header.lower() in lower_names:
            yield Diagnostic((*path, "headers", header), "is there twice, in another spelling; remove one")
        lower_names.add(header.lower())
        if fault := operator_header_fault(header, value):
            yield Diagnostic((*path, "headers", header), fault)
        if credential is not None and header.lower() == credential[0]:
            yield Diagnostic((*path, "headers", header), "is the header that carries `api_key`; leave one of them out")


def _query_and_pass_headers(path: Path, upstream: UpstreamSettings) -> Iterator[Diagnostic]:
    given = {name for name, _ in parse_qsl(urlsplit(upstream.base_url).query, keep_blank_values=True)}
    for name in upstream.query:
        if name in given:
            yield Diagnostic((*path, "query", name), "is in the query of `base_url` too; leave one of them out")
    for place, header in enumerate(upstream.pass_headers):
        if fault := pass_header_fault(header):
            yield Diagnostic((*path, "pass_headers", place), fault)


def _models(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    if not index.models:
        yield Diagnostic(("models",), "is missing; name at least one model")
    for name, model in settings.models.items():
        if _GLOB.intersection(name):
            message = "is read as it is, and not as a pattern, but has one of * ? [ ]; write each model by its name"
            yield Diagnostic(("models", name), message)
        if not model.routes:
            yield Diagnostic(("models", name, "routes"), "is missing; a model needs at least one route")
        for route in model.routes:
            if index.upstreams and route.upstream not in index.upstreams:
                hint = nearest(route.upstream, sorted(index.upstreams))
                yield Diagnostic((*route.path, "upstream"), f"is not an upstream of this configuration; {hint}")
        if model.max_output_tokens and model.context_window and model.max_output_tokens > model.context_window:
            yield Diagnostic(("models", name, "max_output_tokens"), "is above the model's `context_window`")


class _WrittenPrice(NamedTuple):
    """A price of a model or of a route, and the routes that it prices."""

    path: Path
    price: PriceSettings
    model: str
    routes: Sequence[RouteSettings]


def _written_prices(settings: Settings) -> Iterator[_WrittenPrice]:
    for name, model in settings.models.items():
        if model.price is not None:
            routes = [route for route in model.routes if route.price is None]
            yield _WrittenPrice(("models", name, "price"), model.price, name, routes)
        for place, route in enumerate(model.routes):
            if route.price is not None:
                yield _WrittenPrice(("models", name, "routes", place, "price"), route.price, name, [route])


def _prices(settings: Settings) -> Iterator[Diagnostic]:
    """Prices that say nothing, or say something twice."""
    for path, price, _, _ in _written_prices(settings):
        if not price.prices and not price.above and not price.tiers:
            yield Diagnostic(path, _EMPTY)
        yield from _steps((*path, "above"), price.above)
        for name, tier in price.tiers.items():
            if not tier.prices and not tier.above:
                yield Diagnostic((*path, "tiers", name), _EMPTY)
            yield from _steps((*path, "tiers", name, "above"), tier.above)


def _steps(path: Path, steps: Sequence[PriceStepSettings]) -> Iterator[Diagnostic]:
    seen: set[int] = set()
    for place, step in enumerate(steps):
        if not step.prices:
            yield Diagnostic((*path, place), _EMPTY)
        if step.tokens in seen:
            yield Diagnostic((*path, place, "tokens"), "is the same as of another step; put their prices into one")
        seen.add(step.tokens)


def _price_warnings(settings: Settings) -> Iterator[Diagnostic]:
    for path, price, name, _ in _written_prices(settings):
        if "input" in price.prices and "output" not in price.prices and settings.models[name].max_output_tokens:
            yield Diagnostic(path, "has no `output`, so that the output is free; write `output: 0` if it is")
        for tier in sorted(price.tiers.keys() - SERVICE_TIERS):
            known = ", ".join(sorted(SERVICE_TIERS))
            yield Diagnostic((*path, "tiers", tier), f"is not a service tier of a known API: {known}")
    for name, model in settings.models.items():
        free = [place for place, route in enumerate(model.routes) if route.price is None and model.price is None]
        for place in free if len(free) < len(model.routes) else ():
            yield Diagnostic(("models", name, "routes", place), "has no price, so that what it serves is free")


def _search_warnings(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """Models under a `usd` limit whose provider searches the web for them, and whose searches have no price."""
    reached: set[frozenset[str]] = set()
    for limits, models in _scopes(settings, index):
        reached |= {index.fitting_of(models, limit.models) for limit in limits if limit.meter is Meter.USD}
    counted = frozenset().union(*reached)
    for path, price, name, routes in _written_prices(settings):
        searching = any(settings.upstreams[route.upstream].preset in _SEARCHING_PRESETS for route in routes)
        if name in counted and searching and price.output and price.search is None:
            yield Diagnostic(path, "has no `search`, so that web searches are free; name their price, or `search: 0`")


def _aliases(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    taken: dict[str, str] = {}
    for name, model in settings.models.items():
        for place, alias in enumerate(model.aliases):
            if alias in index.models or alias in taken:
                whose = "a model" if alias in index.models else f"an alias of {taken[alias]}"
                yield Diagnostic(("models", name, "aliases", place), f"is already the name of {whose}")
            taken.setdefault(alias, name)


def _access(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """Patterns of teams and keys that let nothing through, and secrets that would be names."""
    for name, team in settings.teams.items():
        if team.end_user.header is not None and carries_credential(team.end_user.header):
            message = "can carry a credential, which would be in the log and in reports as the end user's name"
            yield Diagnostic(("teams", name, "end_user", "header"), message)
        everything = frozenset(index.models)
        yield from _idle_patterns(("teams", name, "models"), team.models, everything, index)
        allowed = index.fitting(team.models)
        for key in team.keys:
            yield from _idle_patterns((*key.path, "models"), key.models, allowed, index)


def _keys(settings: Settings) -> Iterator[Diagnostic]:
    owners: dict[str, KeySettings] = {}
    for team in settings.teams.values():
        names: set[str] = set()
        for key in team.keys:
            if (key.key is None) == (key.sha256 is None):
                yield Diagnostic(key.path, "needs either `key` or `sha256`, and not both")
            elif key.digest and key.digest in owners:
                yield Diagnostic(key.path, f"is the same key as {dotted(owners[key.digest].path)}")
            if key.name in names:
                yield Diagnostic((*key.path, "name"), "is the name of another key of this team")
            owners.setdefault(key.digest, key)
            names.add(key.name)


def _idle(settings: Settings) -> Iterator[Diagnostic]:
    if not settings.teams:
        yield Diagnostic(("teams",), "is missing, so nobody can use the gateway")
    for name, team in settings.teams.items():
        # In a shared store it can have some.
        if not team.keys and not settings.jwt and settings.store.url == "memory://":
            yield Diagnostic(("teams", name), "has no keys, so nobody can use the gateway in its name")
    routed = {route.upstream for model in settings.models.values() for route in model.routes}
    for name in settings.upstreams:
        if name not in routed:
            yield Diagnostic(("upstreams", name), "has no route that leads to it")


def _secrets(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    keys = [((*key.path, "key"), key.key) for team in settings.teams.values() for key in team.keys]
    for path, secret in keys:
        if secret is not None and not secret.get_secret_value():
            yield Diagnostic(path, "is empty, so nobody can use this key; set the variable that it is taken from")
    credentials: list[tuple[Path, SecretStr | None]] = [
        (("admin", "token"), settings.admin.token),
        *((("upstreams", name, "api_key"), upstream.api_key) for name, upstream in settings.upstreams.items()),
    ]
    for path, secret in [*keys, *credentials]:
        if secret is not None and secret.get_secret_value() and path not in index.replaced:
            yield Diagnostic(path, "is in clear text in the file; take it from ${NAME} or ${file:PATH}")


class _Scoped(NamedTuple):
    """The limits of one scope, and the models whose requests they can see."""

    limits: Sequence[LimitSettings]
    models: frozenset[str]


def _limit_errors(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    for limits, models in _scopes(settings, index):
        titles: dict[str, LimitSettings] = {}
        for limit in limits:
            if len(limit.meters) != 1:
                yield Diagnostic(limit.path, f"needs exactly one meter of {', '.join(Meter)}")
                continue
            yield from limit_faults(limit)
            yield from _reach(limit, models, index)
            if limit.title in titles:
                yield Diagnostic(limit.path, f"has the same name as another one here, {limit.title}; give one a `name`")
            titles.setdefault(limit.title, limit)


class _OutputCap(NamedTuple):
    """What decides how much of a quota one answer of a model can reserve; `price` is that of its output."""

    max_output_tokens: int
    price: Decimal


def _limit_warnings(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """Models under a quota whose answers have no maximum, and quotas that few requests hold whole."""
    covered: dict[frozenset[str], dict[_OutputCap, str]] = {}
    for limits, models in _scopes(settings, index):
        for limit in limits:
            if limit.meter in _UNCERTAIN and limit.window is not None and limit.window.rate_ms is None:
                reach = index.fitting_of(models, limit.models)
                if reach not in covered:
                    covered[reach] = _output_caps(settings, reach)
                yield from _crowded(limit, covered[reach])
    names = frozenset().union(*covered)
    for name, model in settings.models.items():
        if name in names and model.max_output_tokens is None:
            yield Diagnostic(
                ("models", name), "is under a quota but has no `max_output_tokens`: one long answer may overrun it"
            )


def _output_caps(settings: Settings, names: Iterable[str]) -> dict[_OutputCap, str]:
    """The first of the models with each maximum and price. A model without a maximum has a warning of its own."""
    caps: dict[_OutputCap, str] = {}
    for name in sorted(names):
        model = settings.models[name]
        if model.max_output_tokens:
            caps.setdefault(_OutputCap(model.max_output_tokens, _highest_output_price(model)), name)
    return caps


def _highest_output_price(model: ModelSettings) -> Decimal:
    """By which a limit in dollars reserves output (`ceiling` of core/pricing.py): the highest of all routes for a short
    input, at the tiers that need not be asked for."""
    found = [Decimal(0)]
    for price in (route.price or model.price for route in model.routes):
        if price is not None:
            lists = [price, *(tier for name, tier in price.tiers.items() if name != FAST)]
            amounts = [getattr(each, name) for each in lists for name in _OUTPUT_PRICES]
            factor = max([Decimal(1), *price.regions.values()])
            found += [amount * factor for amount in amounts if amount is not None]
    return max(found)


def _crowded(limit: LimitSettings, caps: Mapping[_OutputCap, str]) -> Iterator[Diagnostic]:
    held, name = min(((_requests_held(limit, cap), name) for cap, name in caps.items()), default=(_CROWD, ""))
    if held < _CROWD:
        yield Diagnostic(
            (*limit.path, limit.meter.value),
            f"would be exhausted by {held} parallel requests without `max_tokens` to {name}: each reserves up to"
            f" an eighth of what is left, or {OUTPUT_SHARE_FLOOR:,} tokens; raise it, or send `max_tokens`",
        )


def _requests_held(limit: LimitSettings, cap: _OutputCap) -> int:
    """How many requests, of little input, hold the whole quota; at most _CROWD."""
    left = limit.amount
    if limit.meter is Meter.USD:
        if not cap.price:
            return _CROWD
        # Dollars for a million tokens are micro-dollars for one.
        left = int(limit.amount / cap.price)
    for count in range(_CROWD):
        if left <= 0:
            return count
        left -= min(cap.max_output_tokens, output_share(left, OUTPUT_SHARE_FLOOR))
    return _CROWD


def _idle_patterns(
    path: Path, patterns: Sequence[str] | None, models: frozenset[str], index: NameIndex
) -> Iterator[Diagnostic]:
    """The patterns at `path` that match none of `models`."""
    for place, pattern in enumerate(patterns or ()):
        if models and models.isdisjoint(index.fitting((pattern,))):
            model = index.aliases.get(pattern)
            hint = f"it is an alias, name {model} itself" if model else f"there are {_names(models)}"
            yield Diagnostic((*path, place), f"matches no model that can be used here; {hint}")


def _scopes(settings: Settings, index: NameIndex) -> Iterator[_Scoped]:
    yield _Scoped(settings.limits, frozenset(index.models))
    for name, model in settings.models.items():
        yield _Scoped(model.limits, frozenset({name}))
    for team in settings.teams.values():
        allowed = index.fitting(team.models)
        yield _Scoped(team.limits, allowed)
        yield _Scoped(team.key_limits, allowed)
        yield _Scoped(team.user_limits, allowed)
        for key in team.keys:
            yield _Scoped(key.limits, index.fitting_of(allowed, key.models))


def _reach(limit: LimitSettings, models: frozenset[str], index: NameIndex) -> Iterator[Diagnostic]:
    yield from _idle_patterns((*limit.path, "models"), limit.models, models, index)
    if limit.meter is not Meter.USD:
        return
    if unpriced := index.unpriced(index.fitting_of(models, limit.models)):
        yield Diagnostic(
            (*limit.path, "usd"), f"counts models without a price: {_names(unpriced)}; give them one or narrow `models`"
        )


def _names(models: frozenset[str] | list[str]) -> str:
    first = sorted(models)[:5]
    return ", ".join(first) + (f" and {len(models) - 5} more" if len(models) > 5 else "")


def _is_priced(model: dict[str, Any]) -> bool:
    routes = model.get("routes")
    own = [_mapping(route).get("price") is not None for route in routes] if isinstance(routes, list) else []
    return model.get("price") is not None or (bool(own) and all(own))


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[str]:
    return [item for item in data if isinstance(item, str)] if isinstance(data, list) else []
