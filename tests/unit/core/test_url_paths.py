from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.url_paths import PathMatch, PathTable

TABLE = PathTable(
    (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/images/edits",
        "/v2/rerank",
        "/v1beta/models/{model}:generateContent",
        "/v1/responses/{id}/input_items",
    ),
    ("/v1/models", "/v1/models/{model}", "/"),
)


@pytest.mark.parametrize("prefix", ["/v1", "", "/openai", "/openai/v1"])
def test_a_path_is_the_same_endpoint_however_its_version_is_spelled(prefix: str) -> None:
    assert TABLE.find(f"{prefix}/chat/completions") == PathMatch("/v1/chat/completions", {})
    assert TABLE.find(f"{prefix}/models") == PathMatch("/v1/models", {})
    assert TABLE.find(f"{prefix}/models/a/b") == PathMatch("/v1/models/{model}", {"model": "a/b"})
    assert TABLE.find(f"{prefix}/responses/r1/input_items") == PathMatch("/v1/responses/{id}/input_items", {"id": "r1"})


@pytest.mark.parametrize("prefix", ["/openai", "/v1", "", "/openai/v1"])
@pytest.mark.parametrize(
    ("written", "model"), [("gpt-4o", "gpt-4o"), ("openai/gpt-oss", "openai/gpt-oss"), ("a%2Fb%20c", "a/b c")]
)
def test_a_deployment_names_the_model(prefix: str, written: str, model: str) -> None:
    found = TABLE.find(f"{prefix}/deployments/{written}/chat/completions")
    assert found == PathMatch("/v1/chat/completions", {"model": model})


def test_of_a_deployment_the_longest_end_counts() -> None:
    assert TABLE.find("/openai/deployments/x/completions") == PathMatch("/v1/completions", {"model": "x"})
    assert TABLE.find("/openai/deployments/x/chat/completions") == PathMatch("/v1/chat/completions", {"model": "x"})


def test_a_model_crosses_slashes_and_another_parameter_does_not() -> None:
    found = TABLE.find("/v1beta/models/google/gemini:x:generateContent")
    assert found == PathMatch("/v1beta/models/{model}:generateContent", {"model": "google/gemini:x"})
    assert TABLE.find("/v1/responses/a/b/input_items") is None


@pytest.mark.parametrize(
    "path",
    [
        *("", "/v1", "/v1/", "//", "/v1/v1/models", "/v1/models/", "/v1/chat/completions/", "/V1/models"),
        *("/openai/deployments/x/models", "/openai/deployments//chat/completions", "/openai/deployments/x"),
        *("/rerank", "/openai/v2/rerank", "/beta/models/x:generateContent", "/v1/chat%2Fcompletions"),
    ],
)
def test_other_paths_are_nothing(path: str) -> None:
    assert TABLE.find(path) is None


def test_a_path_outside_the_version_has_one_spelling() -> None:
    assert TABLE.find("/v2/rerank") == PathMatch("/v2/rerank", {})
    assert TABLE.find("/") == PathMatch("/", {})


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/%6Dodels", PathMatch("/v1/models", {})),
        ("/v1/chat%2dcompletions", None),
        ("/%76%31/ch%61t/completions", PathMatch("/v1/chat/completions", {})),
        ("/v1beta/models/a%3AgenerateContent", PathMatch("/v1beta/models/{model}:generateContent", {"model": "a"})),
        ("/v1/models/%C3%A9%20%252F", PathMatch("/v1/models/{model}", {"model": "é %2F"})),
        ("/v1/models%2Fa", None),
    ],
)
def test_characters_that_are_encoded_without_need_change_no_endpoint(path: str, found: PathMatch | None) -> None:
    assert TABLE.find(path) == found


@given(st.text(alphabet="%0123456789abcdefABCDEF.", min_size=1, max_size=12))
@example("a%2%66b")
@example("%%35c")
def test_a_broken_escape_stays_one_character_by_character(written: str) -> None:
    found = TABLE.find(f"/v1/models/x{written}")
    assert found == PathMatch("/v1/models/{model}", {"model": unquote(f"x{written}")})
