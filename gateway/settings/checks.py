"""What must hold between settings: names that exist and are not taken twice, keys that can be used, limits that bind.

Errors are what cannot work or would silently do nothing; warnings are what works, but hardly as it was meant. Each
limit has one meter, can bind something, can be counted exactly, and has a name of its own in its scope: a limit that
silently does nothing is the worst kind.

`NameIndex` is read from the plain data, not from the settings, so that a reference to something that has an error of
its own is not reported as a reference to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import gcd
from typing import Any, NamedTuple

from pydantic import SecretStr

from gateway.core.http_syntax import operator_header_fault, read_base_url
from gateway.core.limits import Meter, Per
from gateway.core.snapshot import matches
from gateway.settings.diagnostics import Diagnostic, Path, dotted, nearest
from gateway.settings.document import Document
from gateway.settings.models import KeySettings, LimitSettings, Settings, UpstreamSettings
from gateway.settings.types import MAX_WHOLE

_UNCERTAIN = {Meter.TOKENS, Meter.OUTPUT_TOKENS, Meter.USD}
"""Meters of quotas that one answer without a maximum can overrun."""


class NameIndex:
    """`models` by name: whether each has a price. `aliases` by alias: its model. `replaced`: the paths whose value came
    from the environment or a file."""

    def __init__(self, document: Document) -> None:
        data = _mapping(document.data)
        models = {name: _mapping(model) for name, model in _mapping(data.get("models")).items()}
        self.upstreams = frozenset(_mapping(data.get("upstreams")))
        self.models = {name: model.get("price") is not None for name, model in models.items()}
        self.aliases = {alias: name for name, model in models.items() for alias in _list(model.get("aliases"))}
        self.replaced = frozenset(document.sources)
        self._fitting: dict[tuple[str, ...] | None, frozenset[str]] = {None: frozenset(self.models)}

    def fitting(self, patterns: Iterable[str] | None) -> frozenset[str]:
        """The models that fit any of the patterns; None lets every one through."""
        globs = None if patterns is None else tuple(patterns)
        found = self._fitting.get(globs)
        if found is None:
            found = self._fitting[globs] = frozenset(name for name in self.models if matches(name, globs or ()))
        return found


def find_errors(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    yield from _listeners(settings)
    yield from _sizes(settings)
    yield from _workers(settings)
    yield from _upstreams(settings, index)
    yield from _models(settings, index)
    yield from _aliases(settings, index)
    yield from _access(settings, index)
    yield from _keys(settings)
    yield from _limit_errors(settings, index)


def find_warnings(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """For settings without errors."""
    yield from _idle(settings)
    yield from _secrets(settings, index)
    yield from _limit_warnings(settings, index)


def _listeners(settings: Settings) -> Iterator[Diagnostic]:
    if settings.listen == settings.admin.listen and settings.listen.port:
        yield Diagnostic(("admin", "listen"), "is the address that clients are served on; it needs one of its own")


def _sizes(settings: Settings) -> Iterator[Diagnostic]:
    if settings.max_body_memory < settings.max_body:
        yield Diagnostic(("max_body_memory",), "is below `max_body`, so a body of that size could never be taken")


def _workers(settings: Settings) -> Iterator[Diagnostic]:
    if settings.workers != 1 and settings.store.url == "memory://":
        message = "would each count for themselves with memory://; set `store.url` to redis://…, or leave it at 1"
        yield Diagnostic(("workers",), message)


def _upstreams(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    if not index.upstreams:
        yield Diagnostic(("upstreams",), "is missing; name at least one upstream")
    for name, upstream in settings.upstreams.items():
        yield from _upstream(("upstreams", name), upstream)


def _upstream(path: Path, upstream: UpstreamSettings) -> Iterator[Diagnostic]:
    """Whatever keeps requests to it from being written, too."""
    try:
        read_base_url(upstream.base_url)
    except ValueError as error:
        yield Diagnostic((*path, "base_url"), str(error))
    if upstream.auth == "none" and upstream.api_key is not None:
        yield Diagnostic((*path, "api_key"), "would never be sent with `auth: none`; leave one of them out")
    credential = upstream.credential
    if credential is not None and (fault := operator_header_fault(*credential)):
        yield Diagnostic((*path, "api_key"), fault)
    for header, value in upstream.headers.items():
        if fault := operator_header_fault(header, value):
            yield Diagnostic((*path, "headers", header), fault)
        if credential is not None and header.lower() == credential[0]:
            yield Diagnostic((*path, "headers", header), "is the header that carries `api_key`; leave one of them out")


def _models(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    if not index.models:
        yield Diagnostic(("models",), "is missing; name at least one model")
    for name, model in settings.models.items():
        if not model.routes:
            yield Diagnostic(("models", name, "routes"), "is missing; a model needs at least one route")
        for route in model.routes:
            if index.upstreams and route.upstream not in index.upstreams:
                hint = nearest(route.upstream, sorted(index.upstreams))
                yield Diagnostic((*route.path, "upstream"), f"is not an upstream of this configuration; {hint}")
        if model.max_output_tokens and model.context_window and model.max_output_tokens > model.context_window:
            yield Diagnostic(("models", name, "max_output_tokens"), "is above the model's `context_window`")


def _aliases(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    taken: dict[str, str] = {}
    for name, model in settings.models.items():
        for place, alias in enumerate(model.aliases):
            if alias in index.models or alias in taken:
                whose = "a model" if alias in index.models else f"an alias of {taken[alias]}"
                yield Diagnostic(("models", name, "aliases", place), f"is already the name of {whose}")
            taken.setdefault(alias, name)


def _access(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """Patterns of teams and keys that let nothing through."""
    for name, team in settings.teams.items():
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
        if not team.keys:
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
            yield from _window(limit)
            yield from _size(limit)
            yield from _reach(limit, models, index)
            if limit.title in titles:
                yield Diagnostic(limit.path, f"has the same name as another one here, {limit.title}; give one a `name`")
            titles.setdefault(limit.title, limit)


def _limit_warnings(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """Models under a quota whose answers have no maximum."""
    quotas = {
        index.fitting(limit.models) & models
        for limits, models in _scopes(settings, index)
        for limit in limits
        if limit.meter in _UNCERTAIN and limit.window is not None and limit.window.rate_ms is None
    }
    covered: frozenset[str] = frozenset().union(*quotas)
    for name, model in settings.models.items():
        if name in covered and model.max_output_tokens is None:
            yield Diagnostic(
                ("models", name), "is under a quota but has no `max_output_tokens`: one long answer may overrun it"
            )


def _idle_patterns(
    path: Path, patterns: Sequence[str] | None, models: frozenset[str], index: NameIndex
) -> Iterator[Diagnostic]:
    """Those of the patterns at `path` that match none of `models`."""
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
        yield _Scoped(team.user_limits, allowed)
        for key in team.keys:
            yield _Scoped(key.limits, allowed & index.fitting(key.models))


def _window(limit: LimitSettings) -> Iterator[Diagnostic]:
    if limit.meter is Meter.CONCURRENT and limit.per is not None:
        yield Diagnostic((*limit.path, "per"), "has no meaning for `concurrent`, which counts requests in flight")
    if limit.meter is not Meter.CONCURRENT and limit.per is None:
        yield Diagnostic((*limit.path, "per"), f"is missing; it must be one of {', '.join(Per)}")
    is_rate = limit.window is not None and limit.window.rate_ms is not None
    if limit.when_spent == "stop" and (is_rate or limit.window is None):
        yield Diagnostic((*limit.path, "when_spent"), "belongs to quotas alone (per day, week, month or total)")
    if limit.burst is not None and not is_rate:
        yield Diagnostic((*limit.path, "burst"), "belongs to rates alone (per second, minute or hour)")


def _size(limit: LimitSettings) -> Iterator[Diagnostic]:
    """Quotas are kept in units, rates in the parts of one that flow back in a millisecond; both must stay exact."""
    if limit.burst is not None and limit.meter is not Meter.USD and limit.burst != int(limit.burst):
        yield Diagnostic((*limit.path, "burst"), f"must be a whole number of {limit.meter}")
    period_ms = (limit.window.rate_ms if limit.window else None) or 1
    most = MAX_WHOLE // (period_ms // gcd(int(limit.amount), period_ms))
    unit = "micro-dollars" if limit.meter is Meter.USD else limit.meter.value
    for name, amount in ((limit.meter.value, limit.amount), ("burst", limit.bucket)):
        if amount > most and (name != "burst" or limit.burst is not None):
            yield Diagnostic((*limit.path, name), f"is too large to be kept exactly; at most {most} {unit}")


def _reach(limit: LimitSettings, models: frozenset[str], index: NameIndex) -> Iterator[Diagnostic]:
    yield from _idle_patterns((*limit.path, "models"), limit.models, models, index)
    if limit.meter is not Meter.USD:
        return
    unpriced = sorted(name for name in models & index.fitting(limit.models) if not index.models[name])
    if unpriced:
        yield Diagnostic(
            (*limit.path, "usd"), f"counts models without a price: {_names(unpriced)}; give them one or narrow `models`"
        )


def _names(models: frozenset[str] | list[str]) -> str:
    first = sorted(models)[:5]
    return ", ".join(first) + (f" and {len(models) - 5} more" if len(models) > 5 else "")


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[str]:
    return [item for item in data if isinstance(item, str)] if isinstance(data, list) else []
