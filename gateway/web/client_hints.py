"""Hints for a client that asks at the wrong place: the base URL that it needs, and what is not served here.

A client's headers show which API it speaks; an error has that API's shape. The hints are text for people: they decide
nothing except the shape of errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.core.endpoints import Dialect
from gateway.core.errors import UrlUnknown

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_SHOWN = 200


class ClientApi(NamedTuple):
    """`key` names it in JSON; its base URL is the gateway's address and `suffix`; `path` is one that it asks for."""

    key: str
    name: str
    variable: str
    suffix: str
    path: str
    dialect: Dialect


OPENAI = ClientApi(
    "openai", "OpenAI's SDKs and most tools", "OPENAI_BASE_URL", "/v1", "/v1/chat/completions", Dialect.OPENAI
)
ANTHROPIC = ClientApi(
    "anthropic", "Anthropic's SDKs and Claude Code", "ANTHROPIC_BASE_URL", "", "/v1/messages", Dialect.ANTHROPIC
)
AZURE = ClientApi(
    "azure_openai",
    "AzureOpenAI clients",
    "AZURE_OPENAI_ENDPOINT",
    "",
    "/openai/deployments/NAME/chat/completions",
    Dialect.OPENAI,
)
GEMINI = ClientApi(
    "gemini",
    "Google's Gen AI SDKs and Gemini CLI",
    "GOOGLE_GEMINI_BASE_URL",
    "",
    "/v1beta/models/NAME:generateContent",
    Dialect.GEMINI,
)
CLIENT_APIS = (OPENAI, ANTHROPIC, AZURE, GEMINI)

_ANTHROPIC_AGENTS = ("anthropic", "claude")
_GEMINI_AGENTS = ("google-genai", "geminicli", "google-api")

# The first segment of a path, below the version: whose API has it. What is served is found before these are asked.
_OPENAI_PATHS = frozenset(
    {
        *("assistants", "audio", "batches", "chat", "chatkit", "completions", "containers", "conversations", "edits"),
        *("embeddings", "engines", "evals", "files", "fine-tunes", "fine_tuning", "images", "models", "moderations"),
        *("organization", "projects", "realtime", "responses", "skills", "threads", "uploads", "vector_stores"),
        "videos",
    }
)
_ANTHROPIC_PATHS = frozenset(
    {"agents", "complete", "environments", "files", "messages", "organizations", "sessions", "skills"}
)
_OTHER_APIS = {"/v1beta/": "Gemini's API", "/v1alpha/": "Gemini's API", "/api/": "the API of Ollama or of a web page"}


def api_of(headers: Mapping[str, str], raw_path: str) -> ClientApi:
    """The API that the client speaks, by its headers; OpenAI's if nothing says otherwise."""
    agent = headers.get("user-agent", "").lower()
    if "anthropic-version" in headers or agent.startswith(_ANTHROPIC_AGENTS) or raw_path.endswith("/messages"):
        return ANTHROPIC
    is_gemini = "x-goog-api-key" in headers or "x-goog-api-client" in headers or agent.startswith(_GEMINI_AGENTS)
    if is_gemini or raw_path.startswith(("/v1beta/", "/v1alpha/")):
        return GEMINI
    return AZURE if "/deployments/" in raw_path else OPENAI


def origin_of(headers: Mapping[str, str]) -> str:
    """The gateway's address as this client knows it."""
    host = headers.get("host", "")
    scheme = "https" if headers.get("x-forwarded-proto", "").lower() == "https" else "http"
    return f"{scheme}://{host if _HOST.fullmatch(host) else 'HOST:PORT'}"


class UnservedRequest(NamedTuple):
    """The request. `is_served` says whether this gateway serves a path."""

    method: str
    path: str
    headers: Mapping[str, str]
    is_served: Callable[[str], bool]


def unknown_url(asked: UnservedRequest) -> UrlUnknown:
    """The 404 of a path, with what to change."""
    shown = f"{asked.method[:20]} {asked.path[:_SHOWN]!r}"
    api = api_of(asked.headers, asked.path)
    right = _served_part(asked)
    if right:
        return UrlUnknown(
            f"There is nothing at {shown}; {_difference(asked.path, right)} {_right_base_url(api, asked)}"
        )
    owner = _owner(asked.path, api)
    if owner:
        return UrlUnknown(
            f"{shown} is a path of {owner} that this gateway does not serve. {_right_base_url(api, asked)}"
        )
    return UrlUnknown(f"There is nothing at {shown}. {_right_base_url(api, asked)}")


def _right_base_url(api: ClientApi, asked: UnservedRequest) -> str:
    without = "" if api.suffix else f", without /{api.path.split('/')[1]}"
    return f"The base URL of {api.name} is {origin_of(asked.headers)}{api.suffix} here{without}."


def _served_part(asked: UnservedRequest) -> str:
    """The path that was meant, if the sent one has something too much: slashes, or segments in front."""
    tidy = re.sub("/+", "/", asked.path).rstrip("/")
    if tidy != asked.path and asked.is_served(tidy):
        return tidy
    segments = tidy.split("/")
    tails = ("/" + "/".join(segments[place:]) for place in range(2, min(len(segments), 8)))
    return next((tail for tail in tails if asked.is_served(tail)), "")


def _difference(path: str, right: str) -> str:
    if path.startswith("/v1/v1/"):
        return f"/v1 is there twice: leave /v1 off the base URL. {right!r} is served."
    surplus = path.removesuffix(right)
    if surplus == path or not surplus.strip("/"):
        return f"there is one slash too many: {right!r} is served."
    return f"leave {surplus[:_SHOWN]!r} out: {right!r} is served."


def _owner(path: str, api: ClientApi) -> str:
    for prefix, owner in _OTHER_APIS.items():
        if path.startswith(prefix):
            return owner
    segment = re.sub("^(/openai)?(/v1)?/", "", path).partition("/")[0]
    if segment in _ANTHROPIC_PATHS and (api is ANTHROPIC or segment not in _OPENAI_PATHS):
        return "Anthropic's API"
    return "OpenAI's API" if segment in _OPENAI_PATHS else ""
