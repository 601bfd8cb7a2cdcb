"""Checks between settings: names that exist and are unique, keys that can be used, limits that bind.

Errors are settings that cannot work or would silently do nothing; warnings are settings that work, but probably not as
intended. The checks of one subject are beside this module, each in its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from gateway.core.address import Address
from gateway.core.header_rules import carries_credential, pass_header_fault
from gateway.core.http_syntax import operator_header_fault, read_base_url
from gateway.settings.connection_checks import connection_errors, connection_warnings
from gateway.settings.demo_credentials import demo_credential_errors
from gateway.settings.diagnostics import Diagnostic, Path, dotted, nearest
from gateway.settings.jwt_checks import jwt_errors, jwt_warnings
from gateway.settings.limit_checks import limit_errors, limit_warnings
from gateway.settings.models import KeySettings, Settings
from gateway.settings.name_index import NameIndex, idle_patterns
from gateway.settings.notify_checks import notify_errors, notify_warnings
from gateway.settings.price_checks import price_errors, price_warnings
from gateway.settings.upstream_settings import UpstreamSettings

_GLOB = frozenset("*?[]")
_EVERY_IPV4 = "0.0.0.0"  # noqa: S104 # It is compared, not listened on.


def find_errors(settings: Settings, index: NameIndex, *, secrets: bool, connection_files: bool) -> Iterator[Diagnostic]:
    """Without secrets, missing files are no errors; without `connection_files` no file is read."""
    yield from _listeners(settings)
    yield from _sizes(settings)
    yield from _workers(settings)
    yield from _upstreams(settings, index)
    yield from connection_errors(settings, secrets=secrets, files=connection_files)
    yield from _models(settings, index)
    yield from price_errors(settings)
    yield from _aliases(settings, index)
    yield from _access(settings, index)
    yield from _keys(settings)
    yield from demo_credential_errors(settings)
    yield from limit_errors(settings, index)
    yield from jwt_errors(settings, secrets=secrets, files=connection_files)
    yield from notify_errors(settings)


def find_warnings(settings: Settings, index: NameIndex) -> Iterator[Diagnostic]:
    """For settings without errors."""
    yield from _idle(settings)
    yield from _secrets(settings, index)
    yield from connection_warnings(settings, index.replaced)
    yield from price_warnings(settings, index)
    yield from limit_warnings(settings, index)
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
    if settings.workers != 1 and settings.store.is_in_memory:
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
        yield from idle_patterns(("teams", name, "models"), team.models, everything, index)
        allowed = index.fitting(team.models)
        for key in team.keys:
            yield from idle_patterns((*key.path, "models"), key.models, allowed, index)


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
        if not team.keys and not settings.jwt and settings.store.is_in_memory:
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
