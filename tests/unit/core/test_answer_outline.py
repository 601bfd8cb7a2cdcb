from __future__ import annotations

import json

import pytest

from gateway.core.answer_outline import outline_of
from gateway.core.endpoints import CHAT, EMBEDDINGS, FORWARDED, IMAGES, RESPONSES


def test_what_says_neither_usage_nor_failure_is_left_out() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "logprobs": [0.5]}
    answer = {"object": "chat.completion", "created": 1, "choices": [choice], "usage": {"prompt_tokens": 1}}
    said = {"object": "chat.completion", "choices": [{"index": 0}], "usage": {"prompt_tokens": 1}}
    assert outline_of(CHAT.usage.name, json.dumps(answer).encode()) == said


def test_elements_that_are_only_counted_are_there_and_empty() -> None:
    assert outline_of(IMAGES.usage.name, b'{"data":[{"b64_json":"AAAA"},{"url":"x"}]}') == {"data": [{}, {}]}


def test_vectors_are_left_out() -> None:
    body = b'{"data":[{"embedding":[0.5,0.25]}],"usage":{"prompt_tokens":2}}'
    assert outline_of(EMBEDDINGS.usage.name, body) == {"usage": {"prompt_tokens": 2}}


def test_a_null_is_in_the_place_of_any_value() -> None:
    body = b'{"output":null,"response":null,"usage":null,"error":null}'
    assert outline_of(RESPONSES.usage.name, body) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b'{"choices":[1]}',
        b'{"choices":{}}',
        b'{"usage":{}',
        b'{"a":NaN}',
        b'{"a":' + b"[" * 10_000,
    ],
)
def test_what_is_no_answer_of_this_form_has_none(body: bytes) -> None:
    assert outline_of(CHAT.usage.name, body) is None


def test_a_name_is_that_of_one_table_of_usage() -> None:
    tables = {endpoint.usage.name: endpoint.usage for endpoint in FORWARDED}
    assert all(tables[endpoint.usage.name] is endpoint.usage for endpoint in FORWARDED)
