"""What must hold between settings: names that exist and are not taken twice, keys that can be used.

Errors are what cannot work or would silently do nothing; warnings are what works, but hardly as it
was meant. The checks of limits are in `limit_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import SecretStr

from gateway.core.http_syntax import operator_header_fault, read_base_url
from gateway.settings.known import Known
from gateway.settings.limit_checks import idle_patterns, limit_errors, limit_warnings
from gateway.settings.problems import Finding, Path, dotted, nearest
from gateway.settings.shape import KeySettings, Settings, UpstreamSettings


def find_errors(settings: Settings, known: Known) -> Iterator[Finding]:
    yield from _listeners(settings)
    yield from _workers(settings)
    yield from _upstreams(settings, known)
    yield from _models(settings, known)
    yield from _aliases(settings, known)
    yield from _access(settings, known)
    yield from _keys(settings)
    yield from limit_errors(settings, known)


def find_warnings(settings: Settings, known: Known) -> Iterator[Finding]:
    """For settings without errors."""
    yield from _idle(settings)
    yield from _secrets(settings, known)
    yield from limit_warnings(settings, known)


def _listeners(settings: Settings) -> Iterator[Finding]:
    if settings.listen == settings.admin.listen and settings.listen.port:
        yield Finding(("admin", "listen"), "is the address that clients are served on; it needs one of its own")


def _workers(settings: Settings) -> Iterator[Finding]:
    if settings.workers != 1 and settings.store.url == "memory://":
        message = "would each count for themselves with memory://; set `store.url` to redis://…, or leave it at 1"
        yield Finding(("workers",), message)


def _upstreams(settings: Settings, known: Known) -> Iterator[Finding]:
    if not known.upstreams:
        yield Finding(("upstreams",), "is missing; name at least one upstream")
    for name, upstream in settings.upstreams.items():
        yield from _upstream(("upstreams", name), upstream)


def _upstream(path: Path, upstream: UpstreamSettings) -> Iterator[Finding]:
    """Whatever keeps requests to it from being written, too."""
    try:
        read_base_url(upstream.base_url)
    except ValueError as error:
        yield Finding((*path, "base_url"), str(error))
    if upstream.auth == "none" and upstream.api_key is not None:
        yield Finding((*path, "api_key"), "would never be sent with `auth: none`; leave one of them out")
    credential = upstream.credential
    if credential is not None and (fault := operator_header_fault(*credential)):
        yield Finding((*path, "api_key"), fault)
    for header, value in upstream.headers.items():
        if fault := operator_header_fault(header, value):
            yield Finding((*path, "headers", header), fault)
        if credential is not None and header.lower() == credential[0]:
            yield Finding((*path, "headers", header), "is the header that carries `api_key`; leave one of them out")


def _models(settings: Settings, known: Known) -> Iterator[Finding]:
    if not known.models:
        yield Finding(("models",), "is missing; name at least one model")
    for name, model in settings.models.items():
        if not model.routes:
            yield Finding(("models", name, "routes"), "is missing; a model needs at least one route")
        for route in model.routes:
            if known.upstreams and route.upstream not in known.upstreams:
                hint = nearest(route.upstream, sorted(known.upstreams))
                yield Finding((*route.path, "upstream"), f"is not an upstream of this configuration; {hint}")
        if model.max_output_tokens and model.context_window and model.max_output_tokens > model.context_window:
            yield Finding(("models", name, "max_output_tokens"), "is above the model's `context_window`")


def _aliases(settings: Settings, known: Known) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for name, model in settings.models.items():
        for index, alias in enumerate(model.aliases):
            if alias in known.models or alias in taken:
                whose = "a model" if alias in known.models else f"an alias of {taken[alias]}"
                yield Finding(("models", name, "aliases", index), f"is already the name of {whose}")
            taken.setdefault(alias, name)


def _access(settings: Settings, known: Known) -> Iterator[Finding]:
    """Patterns of teams and keys that let nothing through."""
    for name, team in settings.teams.items():
        everything = frozenset(known.models)
        yield from idle_patterns(("teams", name, "models"), team.models, everything, known)
        allowed = known.fitting(team.models)
        for key in team.keys:
            yield from idle_patterns((*key.path, "models"), key.models, allowed, known)


def _keys(settings: Settings) -> Iterator[Finding]:
    owners: dict[str, KeySettings] = {}
    for team in settings.teams.values():
        names: set[str] = set()
        for key in team.keys:
            if (key.key is None) == (key.sha256 is None):
                yield Finding(key.path, "needs either `key` or `sha256`, and not both")
            elif key.digest and key.digest in owners:
                yield Finding(key.path, f"is the same key as {dotted(owners[key.digest].path)}")
            if key.name in names:
                yield Finding((*key.path, "name"), "is the name of another key of this team")
            owners.setdefault(key.digest, key)
            names.add(key.name)


def _idle(settings: Settings) -> Iterator[Finding]:
    if not settings.teams:
        yield Finding(("teams",), "is missing, so nobody can use the gateway")
    for name, team in settings.teams.items():
        if not team.keys:
            yield Finding(("teams", name), "has no keys, so nobody can use the gateway in its name")
    routed = {route.upstream for model in settings.models.values() for route in model.routes}
    for name in settings.upstreams:
        if name not in routed:
            yield Finding(("upstreams", name), "has no route that leads to it")


def _secrets(settings: Settings, known: Known) -> Iterator[Finding]:
    keys = [((*key.path, "key"), key.key) for team in settings.teams.values() for key in team.keys]
    for path, secret in keys:
        if secret is not None and not secret.get_secret_value():
            yield Finding(path, "is empty, so nobody can use this key; set the variable that it is taken from")
    credentials: list[tuple[Path, SecretStr | None]] = [
        (("admin", "token"), settings.admin.token),
        *((("upstreams", name, "api_key"), upstream.api_key) for name, upstream in settings.upstreams.items()),
    ]
    for path, secret in [*keys, *credentials]:
        if secret is not None and secret.get_secret_value() and path not in known.replaced:
            yield Finding(path, "stands in clear in the file; take it from ${NAME} or ${file:PATH}")
