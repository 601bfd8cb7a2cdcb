from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.input_size import IMAGE_TOKENS, InputSize, input_size, weighed_members
from gateway.core.json_spans import read_json_spans

BYTES = bytes(range(256)) * 1_600
BASE64 = base64.b64encode(BYTES).decode()
SLASHES = base64.b64encode(b"\xff" * 400_000).decode()
URL = "https://images.example/" + "x" * 300
PROSE = "the_quick_brown_fox_" * 5_000


def measured(body: bytes) -> InputSize:
    members = read_json_spans(body)
    return input_size(members, weighed_members(members.names()))


def size(**members: Any) -> InputSize:
    return measured(json.dumps({"model": "m", **members}).encode())


def content(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


IMAGES = {
    "image_url": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
    "image_url by reference": {"type": "image_url", "image_url": {"url": URL}},
    "input_image": {"type": "input_image", "image_url": f"data:image/png;base64,{BASE64}"},
    "input_image by id": {"type": "input_image", "file_id": "file-abc"},
    "input_image with slashes": {"type": "input_image", "image_url": f"data:image/png;base64,{SLASHES}"},
    "source": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
    "source by url": {"type": "image", "source": {"type": "url", "url": URL}},
    "source by id": {"type": "document", "source": {"type": "file", "file_id": "file_abc"}},
    "generated": {"type": "image_generation_call", "id": "ig_1", "result": BASE64},
    "drawn by a program": {
        "type": "code_interpreter_call",
        "outputs": [{"type": "image", "url": f"data:image/png;base64,{BASE64}"}],
    },
    "inline_data": {"inline_data": {"mime_type": "image/png", "data": BASE64}},
    "inlineData": {"inlineData": {"mimeType": "image/png", "data": BASE64}},
    "embedded": {"image": BASE64},
    "in lines": {"source": {"type": "base64", "media_type": "image/png", "data": base64.encodebytes(BYTES).decode()}},
    "in lines of PEM": {"image": "\r\n".join(BASE64[at : at + 64] for at in range(0, len(BASE64), 64))},
    "URL-safe": {"image_url": f"data:image/png;base64,{base64.urlsafe_b64encode(BYTES).decode()}"},
    "in a list": {"images": [BASE64]},
    "a frame": {"type": "video", "video": [f"data:image/jpeg;base64,{BASE64}"]},
    "document_url by reference": {"type": "document_url", "document_url": URL},
}


@pytest.mark.parametrize("part", IMAGES.values(), ids=IMAGES)
def test_an_image_is_an_image_however_it_is_spelled(part: dict[str, Any]) -> None:
    for name in ("messages", "input", "contents"):
        seen = size(**{name: content(part)})
        assert seen.attached == IMAGE_TOKENS
        assert seen.text < 250
    assert size(messages=content(part, part, part)).attached == 3 * IMAGE_TOKENS


@pytest.mark.parametrize(
    ("part", "least", "most"),
    [
        ({"type": "input_audio", "input_audio": {"data": BASE64, "format": "mp3"}}, 400, 600),
        ({"type": "input_audio", "input_audio": BASE64}, 400, 600),
        ({"type": "document_url", "document_url": f"data:application/pdf;base64,{BASE64}"}, 5_000, 10_000),
        ({"type": "input_file", "filename": "a.pdf", "file_data": BASE64}, 5_000, 10_000),
        ({"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BASE64}"}}, 5_000, 10_000),
        ({"type": "input_file", "file_data": f"data:text/plain;base64,{BASE64}"}, 100_000, 110_000),
    ],
)
def test_sounds_and_documents_count_by_what_is_in_them(part: dict[str, Any], least: int, most: int) -> None:
    assert least <= size(input=content(part)).attached <= most


TEXTS = {
    "a text": {"type": "text", "text": f"data:image/png;base64,{PROSE}"},
    "a text in a document": {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": PROSE}},
    "words of a URL": {"type": "image_url", "image_url": {"url": "many words " * 9_000}},
    "words in lines": {"type": "image_url", "image_url": {"url": "many words\n" * 9_000}},
    "words in a list": {"images": ["many words " * 9_000]},
    "an argument of a tool": {"type": "tool_use", "name": "f", "input": {"image_url": f"data:;base64,{PROSE}"}},
    "any member": {"type": "text", "data": PROSE, "result": PROSE, "url": PROSE},
}


@pytest.mark.parametrize("part", TEXTS.values(), ids=TEXTS)
def test_text_that_is_dressed_as_an_attachment_is_text(part: dict[str, Any]) -> None:
    seen = size(messages=content(part))
    assert (seen.attached, seen.text > 90_000) == (0, True)


def test_an_attachment_in_the_schema_of_a_tool_is_text() -> None:
    tools = [{"input_schema": {"examples": [{"image_url": f"data:image/png;base64,{PROSE}"}]}}]
    assert size(tools=tools).text > 90_000
    assert size(messages=content({"parameters": {"image_url": f"data:image/png;base64,{PROSE}"}})).text > 90_000


@pytest.mark.parametrize(
    "name", ["messages", "prediction", "documents", "chat_template", "structured_outputs", "guided_json", "new_member"]
)
def test_every_member_that_may_become_tokens_counts(name: str) -> None:
    assert size(**{name: "x" * 100_000}).text > 100_000


@pytest.mark.parametrize("name", ["user", "metadata", "logit_bias", "stop", "prompt_cache_key"])
def test_members_that_cost_nothing_do_not_count(name: str) -> None:
    assert size(**{name: "x" * 100_000}) == InputSize()


@pytest.mark.parametrize("name", ["previous_response_id", "conversation"])
def test_what_only_the_upstream_has_counts_for_something(name: str) -> None:
    assert size(**{name: "resp_1"}).attached == 1_000
    assert size(**{name: None}).attached == 0


@pytest.mark.parametrize(
    ("text", "weight"),
    [("abcd", 4), ("漢字", 8), ("한글", 8), ("каша", 8), ("naïve", 6), ("“a”", 7), ("😀", 8), ("a\n", 2), ('"', 1)],
)
def test_characters_weigh_by_their_script_and_not_by_their_escapes(text: str, weight: int) -> None:
    for escaped in (True, False):
        body = json.dumps({"prompt": text}, ensure_ascii=escaped).encode()
        assert measured(body).text == weight + 2


@given(st.recursive(st.text(max_size=9), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner)))
def test_no_input_is_less_than_nothing(value: Any) -> None:
    seen = size(input=value, messages=[value, {"image_url": "data:image/png;base64,AAAA"}])
    assert seen.text >= 0
    assert seen.attached >= 0


CHINESE = "请把这段文字翻译成英文，并解释每个词的意思。" * 3
SENTENCES = {
    "English": ("Translate this text into Chinese, please, and explain each word of it.", False),
    "code": ('def f(x):\n\treturn {"a": [x, "\\n"]}\n' * 5, False),
    "Russian": ("Переведите этот текст на английский язык, пожалуйста." * 2, False),
    "Chinese": (CHINESE, True),
    "Japanese": ("この文章を英語に翻訳してください。" * 4, True),
    "Korean": ("이 글을 영어로 번역해 주세요. 감사합니다." * 4, True),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_text_is_wide_where_its_characters_are_about_a_token_each(name: str) -> None:
    text, is_wide = SENTENCES[name]
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    assert measured(json.dumps(body, ensure_ascii=False).encode()).is_wide is is_wide


def test_a_wide_text_is_wide_though_it_is_escaped_or_has_an_image_beside_it() -> None:
    assert size(messages=[{"role": "user", "content": CHINESE}]).is_wide
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}}
    assert not size(messages=[{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]).is_wide
    body = json.dumps(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": CHINESE}, image]}]}, ensure_ascii=False
    )
    assert measured(body.encode()).is_wide


IMAGE_LINK: dict[str, Any] = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def test_many_images_count_each() -> None:
    assert size(messages=[{"role": "user", "content": [IMAGE_LINK] * 5_000}]).attached == 5_000 * IMAGE_TOKENS


def test_more_objects_than_can_be_looked_at_are_text() -> None:
    beyond = size(messages=[{"role": "user", "content": [IMAGE_LINK] * 20_000}])
    assert beyond.attached == 0
    assert beyond.text > 20_000 * len(IMAGE_LINK["image_url"]["url"])


def test_in_a_long_list_the_last_elements_are_looked_at() -> None:
    """A program adds what is new at the end."""
    data = f"data:image/png;base64,{BASE64}"
    assert size(messages=[{"content": [*[1] * 1_000_000, {"image_url": data}]}]).attached == IMAGE_TOKENS
    assert size(messages=[{"content": [{"image_url": data}, *[1] * 1_000_000]}]).attached == 0


def test_a_stored_prompt_counts_for_something_and_another_object_by_its_text() -> None:
    assert size(prompt={"id": "pmpt_1"}).attached == 1_000
    assert size(prompt="{pmpt_1}").attached == size(response_format={"type": "text"}).attached == 0
