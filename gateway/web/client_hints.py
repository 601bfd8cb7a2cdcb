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

# The first segment of a path, below the version: whose API has it.
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
_ONE_BY_ONE = "Send its requests one by one."
_IN_THE_REQUEST = "Put a file's content into the request that is about it."
_ANSWERS = "Use /v1/responses or /v1/chat/completions."
_NOT_OLLAMA = "Choose an OpenAI-compatible server in the client's settings, in place of Ollama."
_INSTEAD = {
    **{f"/api/{name}": _NOT_OLLAMA for name in ("chat", "embed", "embeddings", "generate", "show", "tags", "version")},
    "/v1/batches": _ONE_BY_ONE,
    "/v1/messages/batches": _ONE_BY_ONE,
    "/v1beta/batches": _ONE_BY_ONE,
    "/v1/files": _IN_THE_REQUEST,
    "/v1/uploads": _IN_THE_REQUEST,
    "/v1beta/files": _IN_THE_REQUEST,
    "/v1/assistants": _ANSWERS,
    "/v1/threads": _ANSWERS,
    "/v1/complete": "Use /v1/messages.",
    "/v1beta/interactions": "Use /v1beta/models/NAME:generateContent.",
}
"""What to use in place of what is not served, by the beginning of its path."""

_OF_OPERATORS = frozenset({"admin", "console", "metrics"})
"""The first segment of what only the admin listener has."""


class _Foreign(NamedTuple):
    """A path of an API of which the gateway serves a part only."""

    owner: str
    instead: str = ""


_COHERE_CHAT = _Foreign("Cohere's API", "Use /v1/chat/completions.")
_COHERE_EMBED = _Foreign("Cohere's API", "Use /v1/embeddings.")
_FOREIGN = {
    "/v1/chat": _COHERE_CHAT,
    "/v2/chat": _COHERE_CHAT,
    "/v1/embed": _COHERE_EMBED,
    "/v2/embed": _COHERE_EMBED,
    "/v1/ocr": _Foreign("Mistral's API"),
    "/v1/fim/completions": _Foreign("Mistral's API", "Use /v1/completions with `suffix`, where the model has it."),
    "/v1/agents/completions": _Foreign("Mistral's API", "Use /v1/chat/completions."),
}
"""By the whole path."""


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
    if asked.path.partition("/")[2].partition("/")[0] in _OF_OPERATORS:
        return UrlUnknown(f"There is nothing at {shown}: what operators use is at the address of `admin.listen`.")
    api = api_of(asked.headers, asked.path)
    foreign = _FOREIGN.get(asked.path)
    right = "" if foreign else _served_part(asked)
    if right:
        return UrlUnknown(
            f"There is nothing at {shown}; {_difference(asked.path, right)} {_right_base_url(api, asked)}"
        )
    owner, instead = foreign or _Foreign(_owner(asked.path, api), _instead(asked.path))
    if not owner:
        return UrlUnknown(f"There is nothing at {shown}. {_right_base_url(api, asked)}")
    advice = " ".join(filter(None, (instead, _right_base_url(api, asked))))
    return UrlUnknown(f"{shown} is a path of {owner} that this gateway does not serve. {advice}")


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


def _instead(path: str) -> str:
    own = path.removeprefix("/openai")
    return next((text for start, text in _INSTEAD.items() if f"{own}/".startswith(f"{start}/")), "")
