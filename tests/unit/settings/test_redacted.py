"""A configuration's text as people may see it: everything but secrets and comments."""

from __future__ import annotations

import pytest

from gateway.settings.redacted import Unreadable, redacted_text, text_tree

SECRETS = """
# an old token: token-in-a-comment
admin: {token: token-in-clear}
store: {url: "rediss://user:password-in-clear@redis.example:6379/0"}
upstreams:
  a:
    base_url: "https://a.example/v1?key=query-in-clear"
    api_key: ${A_KEY:-default-in-clear}
    headers: {X-Org: header-in-clear}
    query: {code: query-of-its-own}
    proxy: http://user:proxy-in-clear@proxy.example
    misspelt: unknown-in-clear
  b: {base_url: "https://someone:userinfo-in-clear@b.example/v1", api_key: &key anchored-in-clear}
teams:
  t: {keys: [{name: one, key: key-in-clear}, {name: two, key: *key}], limits: [{requests: 5, per: minute}]}
sk-abcdefghijklmnopqrstuvwxyz: pasted-as-a-name
"""

HIDDEN = (
    *("token-in-a-comment", "token-in-clear", "password-in-clear", "query-in-clear", "default-in-clear"),
    *("header-in-clear", "query-of-its-own", "proxy-in-clear", "unknown-in-clear", "userinfo-in-clear"),
    *("anchored-in-clear", "key-in-clear", "sk-abcdefghijklmnopqrstuvwxyz", "pasted-as-a-name"),
)


@pytest.mark.parametrize("secret", HIDDEN)
def test_no_secret_is_shown(secret: str) -> None:
    assert secret not in redacted_text(SECRETS)
    assert secret not in repr(text_tree(SECRETS).shown)


def test_what_is_no_secret_is_shown_as_it_is_written() -> None:
    text = redacted_text(SECRETS)
    for shown in ("https://a.example/v1?(redacted)", "name: one", "limits: [{requests: 5, per: minute}]"):
        assert shown in text


@pytest.mark.parametrize("written", ["${A_KEY}", "Bearer ${A_KEY}", "${A_KEY:-}", "${file:/run/secrets/a}", "none", ""])
def test_a_reference_is_no_secret(written: str) -> None:
    shown = text_tree(f"upstreams: {{a: {{api_key: '{written}'}}}}").shown
    assert shown == {"upstreams": {"a": {"api_key": written}}}


@pytest.mark.parametrize("written", ["${A_KEY}-and-more", "Bearer abc", "${A:-b}", "$${A_KEY}", "${file:/a}x"])
def test_what_stands_beside_a_reference_is_a_secret(written: str) -> None:
    shown = text_tree(f"upstreams: {{a: {{api_key: '{written}'}}}}").shown
    assert shown == {"upstreams": {"a": {"api_key": "(redacted)"}}}


def test_the_marks_of_references_cannot_be_forged() -> None:
    assert text_tree("timezone: \ue0000\ue001\nadmin: {token: '${A}'}").shown["timezone"] == "0"


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "- a\nb: c", "*a", "a: !!python/object:x {}\nb: ["])
def test_what_is_no_yaml_is_said_so_without_its_text(text: str) -> None:
    with pytest.raises(Unreadable, match="not YAML"):
        redacted_text(text)


def test_an_empty_text_is_empty() -> None:
    assert redacted_text("") == ""
    assert text_tree("# nothing").raw is None
