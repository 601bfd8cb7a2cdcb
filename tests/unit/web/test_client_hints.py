from __future__ import annotations

import pytest

from gateway.core.endpoints import Dialect
from gateway.web.client_hints import UnservedRequest, api_of, origin_of, unknown_url

SERVED = {
    *("/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/completions"),
    *("/chat/completions", "/messages", "/models", "/completions"),
}
CLAUDE = {"anthropic-version": "2023-06-01", "user-agent": "claude-cli/2.1.328", "host": "gw.example:8080"}
OPENAI = {"user-agent": "OpenAI/Python 3.57.0", "host": "gw.example:8080"}
AT = "http://gw.example:8080"


def hint(path: str, headers: dict[str, str]) -> str:
    def is_served(other: str) -> bool:
        return other in SERVED or other.startswith("/v1beta/models/")

    return unknown_url(UnservedRequest("POST", path, headers, is_served)).message


@pytest.mark.parametrize(
    ("headers", "path", "dialect"),
    [
        ({}, "/v1/nothing", Dialect.OPENAI),
        ({"anthropic-version": "2023-06-01"}, "/v1/files", Dialect.ANTHROPIC),
        ({"user-agent": "Anthropic/Python 2.14.0"}, "/v1/files", Dialect.ANTHROPIC),
        ({"user-agent": "claude-cli/2.1.328 (external, cli)"}, "/api/hello", Dialect.ANTHROPIC),
        ({}, "/v1/v1/messages", Dialect.ANTHROPIC),
        ({"x-goog-api-key": "k"}, "/models/x", Dialect.GEMINI),
        ({"user-agent": "google-genai-sdk/1.50.0"}, "/", Dialect.GEMINI),
        ({}, "/v1beta/models", Dialect.GEMINI),
        ({}, "/openai/deployments/x/files", Dialect.OPENAI),
    ],
)
def test_a_client_is_known_by_its_headers_and_then_by_its_path(
    headers: dict[str, str], path: str, dialect: Dialect
) -> None:
    assert api_of(headers, path).dialect is dialect


def test_a_version_that_is_there_twice_is_to_be_left_off_the_base_url() -> None:
    said = hint("/v1/v1/messages", CLAUDE)
    assert "/v1 is there twice: leave /v1 off the base URL. '/v1/messages' is served." in said
    assert said.endswith(f"The base URL of Anthropic's SDKs and Claude Code is {AT} here, without /v1.")
    said = hint("/v1/v1/chat/completions", OPENAI)
    assert said.endswith(f"The base URL of OpenAI's SDKs and most tools is {AT}/v1 here.")


@pytest.mark.parametrize("path", ["/metrics", "/console", "/console/app.js", "/admin/v1/usage"])
def test_what_operators_use_is_at_another_address(path: str) -> None:
    assert hint(path, {}).endswith("what operators use is at the address of `admin.listen`.")
    assert "admin.listen" not in hint(f"/v1{path}", {})


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/v1/chat/completions", "leave '/api' out: '/v1/chat/completions' is served."),
        ("/v1/chat/completions/chat/completions", "leave '/v1/chat/completions' out: '/chat/completions' is served."),
        ("//v1/chat/completions", "there is one slash too many: '/v1/chat/completions' is served."),
        ("/v1/models/", "there is one slash too many: '/v1/models' is served."),
    ],
)
def test_what_is_too_much_of_a_path_is_named(path: str, said: str) -> None:
    assert said in hint(path, OPENAI)


@pytest.mark.parametrize(
    ("path", "headers", "owner"),
    [
        ("/v1/files", OPENAI, "OpenAI's API"),
        ("/v1/files", CLAUDE, "Anthropic's API"),
        ("/v1/messages/batches", CLAUDE, "Anthropic's API"),
        ("/openai/v1/vector_stores/vs_1", OPENAI, "OpenAI's API"),
        ("/batches", OPENAI, "OpenAI's API"),
        ("/api/generate", OPENAI, "the API of Ollama or of a web page"),
        ("/v2/chat", OPENAI, "Cohere's API"),
        ("/v1/ocr", OPENAI, "Mistral's API"),
    ],
)
def test_a_path_of_a_known_api_that_is_not_served_is_called_so(path: str, headers: dict[str, str], owner: str) -> None:
    said = hint(path, headers)
    assert f"is a path of {owner} that this gateway does not serve. " in said
    assert " The base URL of " in said


@pytest.mark.parametrize(
    ("path", "headers", "advice"),
    [
        ("/api/tags", OPENAI, "Choose an OpenAI-compatible server in the client's settings, in place of Ollama."),
        ("/v1/batches/batch_1", OPENAI, "Send its requests one by one."),
        ("/v1/messages/batches", CLAUDE, "Send its requests one by one."),
        ("/openai/v1/files", OPENAI, "Put a file's content into the request that is about it."),
        ("/v1/threads/thread_1/runs", OPENAI, "Use /v1/responses or /v1/chat/completions."),
        ("/v1/complete", CLAUDE, "Use /v1/messages."),
        ("/v1beta/interactions", {"x-goog-api-key": "k"}, "Use /v1beta/models/NAME:generateContent."),
        ("/v2/embed", OPENAI, "Use /v1/embeddings."),
    ],
)
def test_what_is_not_served_comes_with_what_to_use_instead(path: str, headers: dict[str, str], advice: str) -> None:
    assert f"that this gateway does not serve. {advice} The base URL of " in hint(path, headers)


def test_the_end_of_another_apis_path_is_no_advice() -> None:
    said = hint("/v1/fim/completions", OPENAI)
    assert "leave " not in said
    assert "does not serve. Use /v1/completions with `suffix`, where the model has it. " in said


def test_a_path_that_only_begins_like_one_gets_no_advice() -> None:
    assert "Put a file's content" not in hint("/v1/filesystem", OPENAI)
    assert "Use /v1/chat/completions." not in hint("/v1/chat/completions/chatcmpl_1", OPENAI)


@pytest.mark.parametrize("surplus", ["/v1", "/v1beta"])
def test_a_version_in_front_of_geminis_path_is_to_be_left_out(surplus: str) -> None:
    said = hint(f"{surplus}/v1beta/models/x:generateContent", {"x-goog-api-key": "k", "host": "gw.example:8080"})
    assert f"leave '{surplus}' out" in said
    assert said.endswith(f"The base URL of Google's Gen AI SDKs and Gemini CLI is {AT} here, without /v1beta.")


def test_a_method_of_gemini_that_is_not_served_is_called_so() -> None:
    said = hint("/v1beta/cachedContents", {"x-goog-api-key": "k"})
    assert "is a path of Gemini's API that this gateway does not serve." in said


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({"host": "gw.example"}, "http://gw.example"),
        ({"host": "[::1]:8080"}, "http://[::1]:8080"),
        ({"host": "gw.example", "x-forwarded-proto": "https"}, "https://gw.example"),
        ({"host": "gw.example", "x-forwarded-proto": "javascript"}, "http://gw.example"),
        ({"host": "<script>"}, "http://HOST:PORT"),
        ({}, "http://HOST:PORT"),
    ],
)
def test_the_address_is_the_one_that_the_client_used(headers: dict[str, str], origin: str) -> None:
    assert origin_of(headers) == origin
