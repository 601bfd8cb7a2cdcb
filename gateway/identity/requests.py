"""A request of an operator: a method, a path below /admin/v1, a query and a body, and how they are read. It comes over
HTTP, or from a command that uses the store itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec

from gateway.core.errors import BodyUnreadable, FieldInvalid, MethodNotAllowed, UrlUnknown
from gateway.core.parameters import refuse_unknown
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.request_section import SectionOf
from gateway.settings.stored_keys import read_section

Handler = TypeVar("Handler")


class AdministrationRequest(msgspec.Struct, frozen=True):
    """`path` is what follows /admin/v1/, `actor` is who asks, for the audit."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    body: bytes = b""
    actor: str = ""


def nothing_at(path: str) -> UrlUnknown:
    return UrlUnknown(f"There is nothing at {path[:200]!r}.")


def of_method(methods: Mapping[str, Handler], method: str) -> Handler:
    """Raises MethodNotAllowed."""
    refuse_method(method, methods)
    return methods[method]


def refuse_method(method: str, taken: Collection[str]) -> None:
    """`taken` are the methods of the path. The listener answers HEAD wherever there is GET. Raises MethodNotAllowed."""
    if method not in taken:
        allow = ", ".join("GET, HEAD" if each == "GET" else each for each in taken)
        raise MethodNotAllowed(f"This takes {allow}, not {method[:20]}.", allow=allow)


def written_in(kind: type[SectionOf], request: AdministrationRequest) -> SectionOf:
    """The body, without a query. Raises FieldInvalid, BodyUnreadable."""
    refuse_unknown(request.query, ())
    return section(kind, json_object(request.body), "")


def section(kind: type[SectionOf], written: Mapping[str, Any], prefix: str) -> SectionOf:
    """`prefix` is its place in the body. Raises FieldInvalid."""
    try:
        return read_section(kind, written)
    except SettingsInvalid as invalid:
        first = invalid.problems[0]
        where = prefix + first.setting
        raise FieldInvalid(f"'{where}' {first.message}.", param=where) from None


def json_object(body: bytes) -> dict[str, Any]:
    """What a body says; an empty one says nothing. Raises FieldInvalid, BodyUnreadable."""
    try:
        written = msgspec.json.decode(body) if body else {}
        if body:
            json.loads(body, object_pairs_hook=_refuse_repeated)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BodyUnreadable("The body is not JSON.") from None
    except RecursionError:
        raise BodyUnreadable("The body is nested too deeply. Send it with fewer levels.") from None
    if not isinstance(written, dict):
        raise FieldInvalid("The body must be a JSON object.")
    return written


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    """Of an object, read without its values. Raises BodyUnreadable for two members of one name: which one is meant is
    not known."""
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise BodyUnreadable(f"The body has {name[:64]!r} {times} times in one object; give it once.")
