"""What the child that reads configurations works out, and which requests lead to it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from gateway.app.config_child import work_out
from gateway.app.config_documents import ConfigDocuments, ConfigInForce, Task
from gateway.core.errors import BodyUnreadable, FieldInvalid, MethodNotAllowed, UrlUnknown
from gateway.identity.requests import AdministrationRequest

VALID = """
upstreams: {a: {base_url: "https://a.example/v1", api_key: "${A_KEY}"}}
models: {m: {routes: [{upstream: a}]}}
"""


def documents(text: str = VALID) -> ConfigDocuments:
    return ConfigDocuments(lambda: ConfigInForce(text, "config.yaml", "0123", 0))


def test_a_valid_text_is_compared() -> None:
    found = work_out(Task(VALID, VALID.replace("{upstream: a}", "{upstream: a, weight: 2}")))
    assert (found["valid"], found["problems"]) == (True, [])
    assert [each["path"] for each in found["changes"]] == ["models.m.routes.a.weight"]


def test_an_invalid_text_is_compared_as_far_as_it_goes() -> None:
    found = work_out(Task(VALID, VALID.replace("upstream: a", "upstream: b")))
    assert not found["valid"]
    assert [(each["line"], each["path"]) for each in found["problems"]] == [(3, "models.m.routes[0].upstream")]
    assert found["changes"]


@pytest.mark.parametrize("text", ["a: [", "x: &a [1, 1]\ny: &b [*a, *a]\nz: *unknown"])
def test_what_cannot_be_read_changes_nothing(text: str) -> None:
    found = work_out(Task(VALID, text))
    assert (found["valid"], found["changes"]) == (False, [])


def test_a_text_that_grows_without_end_is_not_compared() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    found = work_out(Task(VALID, "\n".join(lines)))
    assert (found["valid"], found["changes"]) == (False, [])


def test_nothing_of_this_machine_is_read_for_a_text_that_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("of-the-machine")
    monkeypatch.setenv("OF_THE_ENVIRONMENT", "of-the-environment")
    sent = VALID.replace("${A_KEY}", f"${{file:{tmp_path}/secret}}").replace("https://a", "${OF_THE_ENVIRONMENT}")
    found = json.dumps(work_out(Task(VALID, sent)))
    assert "of-the-machine" not in found
    assert "of-the-environment" not in found


def test_a_certificate_of_a_text_that_is_sent_is_not_looked_for(tmp_path: Path) -> None:
    silent = tmp_path / "nobody-writes-into-it"
    os.mkfifo(silent)
    sent = VALID.replace('"${A_KEY}"', f'"${{A_KEY}}", tls: {{ca: {silent}}}')
    sent += f'jwt: [{{issuer: "https://idp.example", audience: a, jwks: {silent}, team: t}}]\nteams: {{t: {{}}}}\n'
    assert work_out(Task(VALID, sent))["problems"] == []


@pytest.mark.parametrize(
    ("once", "times"),
    [
        ("${A:-" + "x" * 300_000 + "}", 100_000),  # Gigabytes in the child.
        ("x" * 300_000, 100),  # 30 MB in its answer.
    ],
)
async def test_a_short_text_that_means_very_much_is_refused(once: str, times: int) -> None:
    sent = f'{VALID}trusted_proxies: [&a "{once}", {", ".join(["*a"] * times)}]\n'
    body = json.dumps({"text": sent}).encode()
    with pytest.raises(FieldInvalid, match="too much"):
        await documents().answer(AdministrationRequest("POST", "config/diff", {}, body))


async def test_what_a_child_answers_is_passed_on() -> None:
    body = json.dumps({"text": f"{VALID}timezone: Europe/Berlin\n"}).encode()
    found = await documents().answer(AdministrationRequest("POST", "config/diff", {}, body))
    read = json.loads(msgspec.json.encode(found))
    assert (read["valid"], [each["path"] for each in read["changes"]]) == (True, ["timezone"])


def test_marks_of_references_cannot_be_written_with_escapes() -> None:
    found = work_out(Task(VALID, VALID + 'timezone: "\\uE0007\\uE001"\n'))
    assert [(each["path"], each["message"]) for each in found["problems"]] == [
        ("timezone", "contains a private-use character")
    ]


async def test_requests_that_mean_nothing_are_refused() -> None:
    asked = documents()
    for method, path, body, error in (
        ("POST", "config", b"", MethodNotAllowed),
        ("GET", "config/diff", b"", MethodNotAllowed),
        ("GET", "config/other", b"", UrlUnknown),
        ("POST", "config/diff", b"{", BodyUnreadable),
        ("POST", "config/diff", b"{}", FieldInvalid),
        ("POST", "config/diff", b'{"text": 1}', FieldInvalid),
        ("POST", "config/diff", b'{"text": "", "more": 1}', FieldInvalid),
        ("POST", "config/diff", b'{"text": "a", "text": "b"}', BodyUnreadable),
        ("POST", "config/diff", b'["text"]', FieldInvalid),
    ):
        with pytest.raises(error):
            await asked.answer(AdministrationRequest(method, path, {}, body))
    with pytest.raises(FieldInvalid):
        await asked.answer(AdministrationRequest("GET", "config", {"colour": "red"}))


async def test_without_a_file_there_is_no_text() -> None:
    shown = await documents("").answer(AdministrationRequest("GET", "config"))
    assert shown["text"] is None
