"""Checks of identity providers: each one's settings, teams that exist, keys that can be read and trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as FilePath

from gateway.core.http_syntax import read_base_url
from gateway.core.proxies import is_loopback
from gateway.settings.diagnostics import Diagnostic, Path, nearest
from gateway.settings.models import JwtSettings, Settings


def jwt_errors(settings: Settings, *, secrets: bool, files: bool) -> Iterator[Diagnostic]:
    """Without secrets, missing files are no errors; without `files` no file is read."""
    issuers: set[str] = set()
    for place, written in enumerate(settings.jwt):
        path: Path = ("jwt", place)
        if written.issuer in issuers:
            yield Diagnostic((*path, "issuer"), "is the issuer of another entry; write one, with a list in `audience`")
        issuers.add(written.issuer)
        yield from _teams(path, written, settings)
        if files or not written.keys_place.startswith("/"):
            yield from _keys(path, written, settings, secrets)


def jwt_warnings(settings: Settings) -> Iterator[Diagnostic]:
    """For settings without errors."""
    for place, written in enumerate(settings.jwt):
        place_of_keys = written.keys_place
        if place_of_keys.startswith("http://") and not is_loopback(read_base_url(place_of_keys).host):
            message = (
                "is fetched without TLS: an attacker on the network can replace the keys, and make tokens; use https://"
            )
            yield Diagnostic(("jwt", place, "jwks" if written.jwks else "issuer"), message)


def _teams(path: Path, written: JwtSettings, settings: Settings) -> Iterator[Diagnostic]:
    named = [((*path, "teams", group), team) for group, team in written.teams.items()]
    if written.default_team is not None:
        named.append(((*path, "default_team"), written.default_team))
    for where, team in named:
        if team not in settings.teams:
            hint = nearest(team, sorted(settings.teams))
            yield Diagnostic(where, f"is not a team of this configuration; {hint}")
    if not named and written.team is None:
        yield Diagnostic(path, "puts its tokens into no team; set `teams`, `team` or `default_team`")


def _keys(path: Path, written: JwtSettings, settings: Settings, secrets: bool) -> Iterator[Diagnostic]:
    where = (*path, "jwks" if written.jwks else "issuer")
    if not re.match("https?://.", written.keys_place) and not written.jwks:
        yield Diagnostic(where, "is not a URL, so it has no discovery document that names the keys; set `jwks`")
        return
    if written.keys_place.startswith("/"):
        try:
            with FilePath(written.keys_place).open("rb") as opened:
                opened.read(1)
        except OSError as error:
            if secrets or not isinstance(error, FileNotFoundError):
                yield Diagnostic(where, f"cannot be read: {error.strerror or 'it is no usable path'}")
        return
    try:
        settings.proxies.proxy_for(read_base_url(written.keys_place))
    except ValueError as error:
        yield Diagnostic(where, str(error))
