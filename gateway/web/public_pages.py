"""The pages that the public listener answers by itself: models, limits and usage of a key, `/`, and what `/me` shows.

A page gets a `PageRequest` and returns a `Shown`. `Page.needs` says what proves who asks: nothing, a key, or the
browser session that began with one (/me/session).
"""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from hashlib import sha256

import msgspec

from gateway.core.calendar import date_of
from gateway.core.endpoints import (
    GEMINI_MODEL,
    GEMINI_MODELS,
    LIMITS,
    ME_KEY,
    ME_LIMITS,
    ME_SESSION,
    ME_USAGE,
    MODEL,
    MODELS,
    OPENAPI,
    ROOT,
    USAGE,
    Endpoint,
)
from gateway.core.errors import FieldInvalid, KeyMissing, KeyUnknown
from gateway.core.head_outline import outline_of_head
from gateway.core.limit_status import limit_status_object
from gateway.core.limits import Limit
from gateway.core.model_errors import model_unknown
from gateway.core.parameters import refuse_unknown
from gateway.core.request import RequestHeaders
from gateway.core.response import Headers
from gateway.core.snapshot import Caller, Model, matches
from gateway.core.time_format import rfc3339
from gateway.identity.sessions import BrowserSession, SessionDirectory, new_session_id
from gateway.pipeline import Services
from gateway.stages.authenticate import key_digest, sent_key
from gateway.store.operator_reports import REPORTS
from gateway.web.client_hints import CLIENT_APIS, ClientApi, origin_of
from gateway.web.errors import JSON
from gateway.web.long_json import encoded_in_slices
from gateway.web.model_lists import (
    anthropic_list,
    anthropic_model,
    gemini_list,
    gemini_model,
    openai_list,
    openai_model,
)
from gateway.web.public_openapi import public_document
from gateway.web.session_cookies import ME_COOKIE, session_object

NO_STORE = ("cache-control", "no-store")
"""For pages that a cookie opens: caches keep answers to requests with `authorization` to themselves, not these."""
USAGE_QUERY = ("by", "since", "until", "month")
USAGE_GROUPS = ("day", "month", "model")
"""The query of a caller about its own usage; everything else is for operators (`GET /admin/v1/usage`)."""


class PageRequest(msgspec.Struct, frozen=True):
    """`parameters` are those of the path, `query` those behind it, decoded; `client_apis` what is served here."""

    services: Services
    headers: RequestHeaders
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    client_apis: tuple[ClientApi, ...] = CLIENT_APIS
    sessions: SessionDirectory | None = None
    found_caller: Caller | None = None

    @property
    def caller(self) -> Caller:
        assert self.found_caller is not None, "only for pages that need a key"
        return self.found_caller

    @property
    def is_anthropic(self) -> bool:
        return "anthropic-version" in self.headers


class Shown(msgspec.Struct, frozen=True):
    body: bytes
    headers: Headers = (JSON,)


class Needs(Enum):
    """What proves who asks for a page."""

    NOTHING = 0
    KEY = 1
    SESSION = 2


class Page(msgspec.Struct, frozen=True):
    """`show` raises ModelUnknown, FieldInvalid, StoreUnavailable."""

    endpoint: Endpoint
    show: Callable[[PageRequest], Awaitable[Shown]]
    needs: Needs = Needs.KEY
    methods: tuple[str, ...] = ("GET", "HEAD")


async def _models(asked: PageRequest) -> Shown:
    models = asked.services.snapshot.models_of(asked.caller)
    shown = anthropic_list(models, asked.query) if asked.is_anthropic else openai_list(models)
    return Shown(msgspec.json.encode(shown))


async def _gemini_models(asked: PageRequest) -> Shown:
    return Shown(msgspec.json.encode(gemini_list(asked.services.snapshot.models_of(asked.caller), asked.query)))


async def _model(asked: PageRequest) -> Shown:
    return Shown(msgspec.json.encode((anthropic_model if asked.is_anthropic else openai_model)(_model_named(asked))))


async def _gemini_model(asked: PageRequest) -> Shown:
    return Shown(msgspec.json.encode(gemini_model(_model_named(asked))))


def _model_named(asked: PageRequest) -> Model:
    name = asked.parameters["model"]
    binding = asked.services.snapshot.binding(asked.caller, name)
    if binding is None:
        raise model_unknown(name, "model", asked.services.snapshot)
    return binding.model


async def _limits(asked: PageRequest) -> Shown:
    refuse_unknown(asked.query, ())
    limits = _limits_on(asked.caller, asked.services.snapshot.models_of(asked.caller))
    statuses = await asked.services.store.limit_statuses(limits)
    return Shown(msgspec.json.encode({"data": [limit_status_object(status) for status in statuses]}))


def _limits_on(caller: Caller, models: Sequence[Model]) -> list[Limit]:
    """Those that bind any of its requests for these models. Bindings have them, too: but one for each model would take
    the place of those that requests use."""
    names = [model.name for model in models]
    own = [limit for limit in caller.limits if any(matches(name, limit.models or ("*",)) for name in names)]
    found = [*own, *(limit for model in models for limit in model.limits)]
    return list({limit.identity: limit for limit in found}.values())


async def _usage(asked: PageRequest) -> Shown:
    """The usage of the caller's own key. It never includes another key's, whatever the query says."""
    services, caller = asked.services, asked.caller
    refuse_unknown(asked.query, USAGE_QUERY)
    if beyond := set(asked.query.get("by", "day").split(",")) - {*USAGE_GROUPS, ""}:
        raise FieldInvalid(f"'by' cannot be {min(beyond)[:64]!r}; it is made of {', '.join(USAGE_GROUPS)}.", param="by")
    own = {"by": "day,model", **asked.query, "team": caller.team, "key": caller.key_id}
    today = date_of(services.zone, services.clock.now_ms())
    report = await REPORTS["usage"](services.store, services.snapshot, own, today)
    return Shown(await encoded_in_slices(report))


async def digest_of_session(asked: PageRequest) -> str:
    """The SHA-256 of the key with which the browser signed in. Raises KeyMissing."""
    session = await _session_of(asked)
    if session is None:
        raise KeyMissing("Sign in with a key at /me.")
    return session.holder


async def _session_of(asked: PageRequest) -> BrowserSession | None:
    assert asked.sessions is not None, "the listener has them"
    return await asked.sessions.find(ME_COOKIE.value_in(asked.headers))


async def _sign_in(asked: PageRequest) -> Shown:
    digest = key_digest(sent_key(asked.headers, outline_of_head(asked.headers).keys))
    if not digest.startswith(asked.caller.key_id):
        raise KeyUnknown("Sign in with a key: a token is not kept.", why="token")
    assert asked.sessions is not None, "the listener has them"
    session = await asked.sessions.begin(new_session_id(), digest)
    return _session_shown(session, ME_COOKIE.set_by(session.id, asked.headers))


async def _session(asked: PageRequest) -> Shown:
    return _session_shown(await _session_of(asked))


async def _sign_out(asked: PageRequest) -> Shown:
    session = await _session_of(asked)
    if session is not None and asked.sessions is not None:
        await asked.sessions.end(session.id)
    return _session_shown(None, ME_COOKIE.cleared(asked.headers))


def _session_shown(session: BrowserSession | None, *headers: tuple[str, str]) -> Shown:
    return Shown(msgspec.json.encode(session_object(session)), (JSON, NO_STORE, *headers))


async def _key(asked: PageRequest) -> Shown:
    """The key of the session, and the base URL for each client."""
    caller, origin = asked.caller, origin_of(asked.headers)
    clients = [
        {"key": api.key, "name": api.name, "variable": api.variable, "base_url": origin + api.suffix}
        for api in asked.client_apis
    ]
    shown = {
        "id": caller.key_id,
        "name": caller.key_name,
        "team": caller.team,
        "expires_at": None if caller.expires_ms is None else rfc3339(caller.expires_ms),
        "models": [model.name for model in asked.services.snapshot.models_of(caller)],
        "clients": clients,
    }
    return Shown(msgspec.json.encode(shown))


async def _root(asked: PageRequest) -> Shown:
    origin = origin_of(asked.headers)
    base_urls = {api.key: origin + api.suffix for api in asked.client_apis}
    vary = ("vary", "accept, origin")
    if "text/html" not in asked.headers.get("accept", "").lower():
        about = {"service": "inducta-gateway", "about": _ABOUT, "base_urls": base_urls, "models": f"{origin}/v1/models"}
        return Shown(msgspec.json.encode(about), (JSON, vary))
    rows = "".join(
        f"<tr><th scope=row>{html.escape(api.name)}<td><code>{api.variable}</code>"
        f"<td><code>{html.escape(base_urls[api.key])}</code>"
        for api in asked.client_apis
    )
    page = _PAGE.replace("ROWS", rows).replace("STYLE", _STYLE).replace("ABOUT", html.escape(_ABOUT))
    return Shown(page.encode(), (("content-type", "text/html; charset=utf-8"), _CSP, ("x-frame-options", "DENY"), vary))


async def _openapi(_asked: PageRequest) -> Shown:
    return Shown(public_document())


_ABOUT = "A gateway to language models. It speaks the APIs below; every request needs a key."
_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:56rem;margin:3rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "th,td{text-align:left;padding:.4rem 1rem .4rem 0;border-bottom:1px solid #8886}"
)
_STYLE_DIGEST = b64encode(sha256(_STYLE.encode()).digest()).decode()
_PAGE = (
    '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
    '<meta name=color-scheme content="light dark"><title>inducta-gateway</title><style>STYLE</style>'
    "<h1>inducta-gateway</h1><p>ABOUT</p>"
    "<table><thead><tr><th scope=col>Client<th scope=col>Variable<th scope=col>Base URL<tbody>ROWS</table>"
    "<p>Which models a key may use: <code>GET /v1/models</code>. Its limits: <code>GET /v1/limits</code>."
    " What it has used: <code>GET /v1/usage</code>.</p></html>"
)
_CSP = (
    "content-security-policy",
    f"default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'sha256-{_STYLE_DIGEST}'",
)

PAGES = (
    Page(MODELS, _models),
    Page(MODEL, _model),
    Page(GEMINI_MODELS, _gemini_models),
    Page(GEMINI_MODEL, _gemini_model),
    Page(LIMITS, _limits),
    Page(USAGE, _usage),
    Page(ROOT, _root, needs=Needs.NOTHING),
    Page(OPENAPI, _openapi, needs=Needs.NOTHING),
    Page(ME_SESSION, _session, needs=Needs.NOTHING),
    Page(ME_SESSION, _sign_in, methods=("POST",)),
    Page(ME_SESSION, _sign_out, needs=Needs.NOTHING, methods=("DELETE",)),
    Page(ME_KEY, _key, needs=Needs.SESSION),
    Page(ME_LIMITS, _limits, needs=Needs.SESSION),
    Page(ME_USAGE, _usage, needs=Needs.SESSION),
)
