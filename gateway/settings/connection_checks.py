"""Checks of the connection to an upstream: proxies that can be used, files of TLS that can be read and belong together.

The files are read as requests will need them, so that `gateway check` and a reload find a wrong one.
"""

from __future__ import annotations

import ssl
from collections.abc import Container, Iterator
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from gateway.core.http_syntax import read_base_url
from gateway.core.proxies import EnvironmentProxies
from gateway.settings.diagnostics import Diagnostic, Path
from gateway.settings.models import Settings
from gateway.settings.upstream_settings import TlsSettings, UpstreamSettings

_ENDPOINT_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/messages")
"""Paths of requests, as providers' pages show them in whole URLs."""


def connection_errors(settings: Settings, *, secrets: bool = True, files: bool = True) -> Iterator[Diagnostic]:
    """Without secrets, missing files are no errors; without `files` no file is read."""
    for name, upstream in settings.upstreams.items():
        path: Path = ("upstreams", name)
        yield from _environment(path, upstream, settings.proxies)
        if upstream.tls is not None:
            if not upstream.base_url.startswith("https://"):
                yield Diagnostic(
                    (*path, "tls"), "has no effect on a `base_url` of http://; leave it out, or use https://"
                )
            if upstream.tls.key and not upstream.tls.cert:
                yield Diagnostic((*path, "tls", "key"), "has no `cert` that it belongs to")
            if files:
                yield from _tls((*path, "tls"), upstream.tls, secrets)


def connection_warnings(settings: Settings, replaced: Container[Path]) -> Iterator[Diagnostic]:
    """`replaced` are the paths whose value came from the environment or a file."""
    for name, upstream in settings.upstreams.items():
        path: Path = ("upstreams", name, "proxy")
        if upstream.proxy is not None and "@" in upstream.proxy and path not in replaced:
            yield Diagnostic(path, "has a password in clear text in the file; take it from ${NAME} or ${file:PATH}")
        base_path = urlsplit(upstream.base_url).path
        if end := next((end for end in _ENDPOINT_PATHS if base_path.endswith(end)), None):
            message = f"ends in {end}, which the gateway appends to it; leave that off"
            yield Diagnostic(("upstreams", name, "base_url"), message)
        is_own = upstream.base_url.startswith("http://")  # Some providers have their API at the root, by https.
        if is_own and not upstream.base_paths and not base_path.strip("/"):
            message = "has no path, and most servers have their API below /v1; add that, unless this one has not"
            yield Diagnostic(("upstreams", name, "base_url"), message)


def _environment(path: Path, upstream: UpstreamSettings, proxies: EnvironmentProxies) -> Iterator[Diagnostic]:
    if upstream.proxy is not None:
        return
    try:
        url = read_base_url(upstream.base_url)
    except ValueError:
        return  # It has an error of its own.
    try:
        proxies.proxy_for(url)
    except ValueError as error:
        yield Diagnostic(path, f"{error}; set the variable right, or `proxy` here")


def _tls(path: Path, tls: TlsSettings, secrets: bool) -> Iterator[Diagnostic]:
    unreadable = dict(_unreadable(tls))
    for name, error in unreadable.items():
        if secrets or not isinstance(error, FileNotFoundError):
            yield Diagnostic((*path, name), f"cannot be read: {error.strerror or 'it is no usable path'}")
    if unreadable:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca:
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError:
            yield Diagnostic((*path, "ca"), "is not a file of certificates in PEM")
    if tls.cert:
        try:
            context.load_cert_chain(tls.cert, tls.key or None, password="")
        except ssl.SSLError:
            holds = (
                "and `key`, which has no password, do not fit: one certificate in PEM and its private key are needed"
            )
            alone = (
                "must hold a certificate in PEM and its private key without a password; or name the key's file in `key`"
            )
            yield Diagnostic((*path, "cert"), holds if tls.key else alone)


def _unreadable(tls: TlsSettings) -> Iterator[tuple[str, OSError]]:
    """The settings whose file cannot be read, and why."""
    for name, file in tls.files.items():
        try:
            with FilePath(file).open("rb") as opened:
                opened.read(1)
        except OSError as error:
            yield name, error
