"""Checks of the receivers of notifications: names, secrets of the right form, teams that exist."""

from __future__ import annotations

from collections.abc import Container, Iterator
from fnmatch import fnmatchcase

from gateway.core.http_syntax import read_base_url
from gateway.core.proxies import is_loopback
from gateway.settings.diagnostics import Diagnostic, Path, nearest
from gateway.settings.models import NotifySettings, Settings


def channel_name(written: NotifySettings, place: int) -> str:
    """The name of a receiver; `place` is its place in the list, from 0."""
    return written.name or f"{written.format}-{place + 1}"


def notify_errors(settings: Settings) -> Iterator[Diagnostic]:
    names: set[str] = set()
    for place, written in enumerate(settings.notify):
        path: Path = ("notify", place)
        name = channel_name(written, place)
        if name in names:
            yield Diagnostic((*path, "name"), f"is the name of another receiver, {name}; give one another `name`")
        names.add(name)
        if written.format == "json" and written.secret is None:
            yield Diagnostic(path, "has no `secret` that the receiver could check the signature with")
        if written.format == "slack" and written.secret is not None:
            yield Diagnostic((*path, "secret"), "has no effect on `format: slack`; leave it out")
        yield from _teams(path, written, settings)
        yield from _proxy(path, written, settings)


def notify_warnings(settings: Settings, replaced: Container[Path]) -> Iterator[Diagnostic]:
    """For settings without errors. `replaced` are the paths whose value came from the environment or a file."""
    for place, written in enumerate(settings.notify):
        path: Path = ("notify", place)
        for name in ("url", "secret"):
            if getattr(written, name) is not None and (*path, name) not in replaced:
                yield Diagnostic((*path, name), "is in clear text in the file; take it from ${NAME} or ${file:PATH}")
        url = read_base_url(written.url.get_secret_value())
        if not url.tls and not is_loopback(url.host):
            yield Diagnostic(
                (*path, "url"), "is sent to without TLS: an attacker on the network can read it; use https://"
            )


def _teams(path: Path, written: NotifySettings, settings: Settings) -> Iterator[Diagnostic]:
    for place, pattern in enumerate(written.teams):
        if pattern != "*" and not any(fnmatchcase(team, pattern) for team in settings.teams):
            hint = nearest(pattern, sorted(settings.teams))
            yield Diagnostic((*path, "teams", place), f"matches no team of this configuration; {hint}")


def _proxy(path: Path, written: NotifySettings, settings: Settings) -> Iterator[Diagnostic]:
    try:
        settings.proxies.proxy_for(read_base_url(written.url.get_secret_value()))
    except ValueError as error:
        yield Diagnostic((*path, "url"), str(error))
