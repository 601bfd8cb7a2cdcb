"""The files of the console: what they may refer to, what is vendored, and how they are answered."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.core.errors import MethodNotAllowed, UrlUnknown
from gateway.web.console_files import FOLDER, POLICY, ConsoleFiles

VENDOR = FOLDER / "vendor"
OWN = [path for path in sorted(FOLDER.rglob("*")) if path.is_file() and VENDOR not in path.parents]
LINK = re.compile(r"""(?:from|import|href=|src=)\s*["'`]([^"'`]+)["'`]""")


@pytest.fixture
def console() -> ConsoleFiles:
    return ConsoleFiles("/console", "index.html", ("app.js", "lib/", "vendor/"))


def test_vendored_code_is_what_was_published() -> None:
    about = (VENDOR / "README.txt").read_text(encoding="utf-8")
    recorded = dict(re.findall(r"^(\S+\.js) +.*?sha256 ([0-9a-f]{64})", about, re.MULTILINE | re.DOTALL))
    assert recorded == {path.name: sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}


def test_every_vendored_package_comes_with_its_licence() -> None:
    about = (VENDOR / "README.txt").read_text(encoding="utf-8")
    licences = {path.name for path in VENDOR.glob("*LICENSE*")}
    assert licences
    assert set(re.findall(r"\(([\w-]+LICENSE\.txt)\)", about)) == licences


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_no_file_refers_to_anything_outside_of_the_package(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    outside = [found for found in re.findall(r"https?://[^\s\"'`<)]+", text) if "www.w3.org" not in found]
    assert outside == []
    for link in LINK.findall(text):
        if link.startswith("."):
            assert (path.parent / link).resolve().is_file(), link


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_no_markup_has_code_or_style_in_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=[\"']|javascript:", text)
    assert "innerHTML" not in text
    assert "localStorage" not in text


def test_the_policy_allows_nothing_but_this_listener() -> None:
    sources = {source for directive in POLICY.split(";") for source in directive.split()[1:]}
    assert sources == {"'none'", "'self'", "'script'"}


def test_a_page_and_its_files_are_answered_by_their_types(console: ConsoleFiles) -> None:
    for path, kind in (
        ("/console", "text/html"),
        ("/console/", "text/html"),
        ("/console/lib/api.js", "text/javascript"),
    ):
        answer = console.answer("GET", path, {})
        headers = dict(answer.headers)
        assert answer.status == 200
        assert headers["content-type"].startswith(kind)
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"


def test_what_a_browser_has_already_is_not_sent_again(console: ConsoleFiles) -> None:
    tag = dict(console.answer("GET", "/console/app.js", {}).headers)["etag"]
    assert console.answer("GET", "/console/app.js", {"if-none-match": tag}).status == 304
    assert console.answer("GET", "/console/app.js", {"if-none-match": '"another"'}).status == 200


@pytest.mark.parametrize(
    "path", ["/console/me.js", "/console/../admin_api.py", "/console/%2e%2e/errors.py", "/console/lib"]
)
def test_no_other_file_is_answered(console: ConsoleFiles, path: str) -> None:
    with pytest.raises(UrlUnknown):
        console.answer("GET", path, {})


def test_files_are_read_alone(console: ConsoleFiles) -> None:
    with pytest.raises(MethodNotAllowed):
        console.answer("POST", "/console", {})


def test_a_path_that_only_begins_alike_is_not_the_consoles(console: ConsoleFiles) -> None:
    assert not console.serves("/consoles")
