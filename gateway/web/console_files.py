"""The files of the browser pages: the console on the admin listener, /me on the public one.

There is no build step: browsers get the files in `console/` as they are. A policy lets them load code, style and data
from this listener only, and no inline code, so that nothing in an answer is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gateway.core.errors import MethodNotAllowed, UrlUnknown
from gateway.core.response import Headers
from gateway.web.representations import names_tag, tag_of

FOLDER = Path(__file__).with_name("console")

SHARED_FILES = ("style.css", "icon.svg", "lib/", "vendor/")
"""The files that both pages need, by the beginnings of their names."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_ALWAYS: Headers = (
    ("cache-control", "no-cache"),
    ("content-security-policy", POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)


class StaticFile(NamedTuple):
    headers: Headers
    body: bytes
    tag: str


class StaticAnswer(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class ConsoleFiles:
    """The files at a path and below it: `page` at the path itself, and those whose names begin with one of `begins`."""

    def __init__(self, path: str, page: str, begins: tuple[str, ...]) -> None:
        self._path = path
        every = _files()
        self._files = {name: file for name, file in every.items() if name.startswith(begins)}
        self._files[""] = every[page]

    def serves(self, path: str) -> bool:
        return path == self._path or path.startswith(f"{self._path}/")

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> StaticAnswer:
        """Raises UrlUnknown, MethodNotAllowed."""
        file = self._files.get(path.removeprefix(self._path).removeprefix("/"))
        if file is None:
            raise UrlUnknown(f"There is nothing at {path[:200]!r}. The page is {self._path}.")
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed("Use GET to read this page.", allow="GET, HEAD")
        if names_tag(headers.get("if-none-match", ""), file.tag):
            return StaticAnswer(304, file.headers, b"")
        return StaticAnswer(200, file.headers, file.body)


def closed_page() -> StaticAnswer:
    """Of the console where no admin token is configured."""
    file = _files()["closed.html"]
    return StaticAnswer(403, file.headers, file.body)


@cache
def _files() -> dict[str, StaticFile]:
    """By their names below FOLDER."""
    found: dict[str, StaticFile] = {}
    for path in sorted(FOLDER.rglob("*")):
        kind = _TYPES.get(path.suffix)
        if kind is not None:
            body = path.read_bytes()
            tag = tag_of(body)
            headers = (("content-type", kind), ("etag", tag), *_ALWAYS)
            found[path.relative_to(FOLDER).as_posix()] = StaticFile(headers, body, tag)
    return found
