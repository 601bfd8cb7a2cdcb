"""Which part of a request's query string reaches the upstream.

The gateway passes the query on, as a reverse proxy does: Claude Code sends `?beta=true`. It removes what is not for the
upstream, and what could make the upstream read another request than the gateway did, or answer without its usage:

- credentials, whatever they are called;
- `api-version`: Azure's clients mean the version of the gateway's path, and an upstream's `query` has its own;
- parameters with the name of a member of the body that is read: some servers read both places;
- parameters that the upstream's `query` sets;
- of a request of Gemini's API everything except `alt=sse`: Google's servers take parameters that leave members out of
  the answer, or write it in another format (https://cloud.google.com/apis/docs/system-parameters).
"""

from __future__ import annotations

import re
from collections.abc import Container
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from gateway.core.endpoints import Dialect, Endpoint
from gateway.core.header_rules import is_credential
from gateway.core.json_spans import NamesRead
from gateway.core.request import IncomingRequest
from gateway.core.snapshot import Upstream

_SENDABLE = re.compile(r"[!-~]+")
_STREAMED = "sse"


def parameter(raw_query: str, name: str) -> str:
    """The first value of a parameter, empty where there is none."""
    if name not in raw_query:
        return ""
    return next((value for each, value in parse_qsl(raw_query) if each == name), "")


def key_in_query(request: IncomingRequest) -> str:
    """The key in the query, which only Gemini's clients send there: it is in the logs of every proxy on the way."""
    return parameter(request.query, "key") if request.endpoint.dialect is Dialect.GEMINI else ""


def asks_events(raw_query: str) -> bool:
    """Whether a stream of Gemini's API is to be one of events, rather than a JSON array."""
    return parameter(raw_query, "alt") == _STREAMED


def passed_query(raw_query: str, endpoint: Endpoint, upstream: Upstream, read: NamesRead) -> str:
    """What reaches the upstream, as it was spelled. `read` are the members of the body that are read."""
    if endpoint.dialect is Dialect.GEMINI:
        return f"alt={_STREAMED}" if asks_events(raw_query) else ""
    operators = {name for name, _ in parse_qsl(f"{urlsplit(upstream.base_url).query}&{upstream.query}")}
    return "&".join([piece for piece in raw_query.split("&") if _passes(piece, operators, read)])


def _passes(piece: str, operators: Container[str], read: NamesRead) -> bool:
    name = unquote_plus(piece.partition("=")[0])
    if not _SENDABLE.fullmatch(piece) or is_credential(name) or name.lower() == "api-version":
        return False
    return name not in operators and re.split(r"[\[.]", name)[0] not in read
