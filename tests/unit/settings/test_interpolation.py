from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings.interpolation import MAX_FILE_BYTES, ReferenceBroken, References

ENVIRON = {"NAME": "value", "EMPTY": "", "TRICKY": "}: [*a, ${NAME}] # x"}


def fill(text: str, folder: Path = Path()) -> tuple[str, str]:
    references = References(ENVIRON, folder)
    return references.fill(references.hide(text))


def refusal(text: str, folder: Path = Path()) -> str:
    with pytest.raises(ReferenceBroken) as broken:
        fill(text, folder)
    return str(broken.value)


@pytest.mark.parametrize(
    ("written", "text", "source"),
    [
        ("${NAME}", "value", "${NAME}"),
        ("a ${NAME} b ${NAME:-x}", "a value b value", "${NAME}, ${NAME}"),
        ("${NOBODY:-default}", "default", ""),
        ("${NOBODY:-}", "", ""),
        ("${EMPTY:-default}", "default", ""),
        ("${EMPTY}", "", "${EMPTY}"),
        ("${NOBODY:-a:-b}", "a:-b", ""),
        ("$${NAME}", "${NAME}", ""),
        ("$${", "${", ""),
        ("$NAME $ {NAME}", "$NAME $ {NAME}", ""),
        ("plain", "plain", ""),
    ],
)
def test_references_are_replaced_by_what_they_name(written: str, text: str, source: str) -> None:
    assert fill(written) == (text, source)


def test_what_a_reference_brings_is_not_replaced_again() -> None:
    assert fill("${TRICKY}") == ("}: [*a, ${NAME}] # x", "${TRICKY}")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${NOBODY}", "the environment has no NOBODY; set it, or write ${NOBODY:-default}"),
        ("${NAME", "a `${` is not closed on its line; write `$${` for a plain `${`"),
        ("${file:}", "a `${…}` is malformed; write ${NAME}, ${NAME:-default} or ${file:PATH}"),
        ("${}", "a `${…}` is malformed; write ${NAME}, ${NAME:-default} or ${file:PATH}"),
        ("${1st}", "a `${…}` is malformed; write ${NAME}, ${NAME:-default} or ${file:PATH}"),
        ("${NAME-x}", "a `${…}` is malformed; write ${NAME}, ${NAME:-default} or ${file:PATH}"),
        ("${file:nowhere}", "the file nowhere cannot be read: No such file or directory"),
        ("${file:.}", "the file . cannot be read: Is a directory"),
        ("${file:\x00}", "the file \x00 cannot be read: not a usable path"),
    ],
)
def test_a_broken_reference_says_what_is_wrong_with_it(written: str, message: str) -> None:
    assert refusal(written) == message


def test_a_file_is_read_from_the_configurations_folder_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b" key\nmore \r\n")
    assert fill("${file:secret}", tmp_path) == (" key\nmore ", "${file:secret}")
    assert fill(f"${{file:{tmp_path}/secret}}")[0] == " key\nmore "


def test_a_file_that_is_too_large_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path / "full").write_bytes(b"x" * MAX_FILE_BYTES)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert refusal("${file:large}", tmp_path) == "the file large is larger than 65536 bytes"
    assert refusal("${file:binary}", tmp_path) == "the file binary is not UTF-8 text"
    assert len(fill("${file:full}", tmp_path)[0]) == MAX_FILE_BYTES


@given(st.text(st.characters(exclude_characters="\ue000\ue001$")))
def test_text_without_a_dollar_sign_is_left_alone(text: str) -> None:
    assert fill(text) == (text, "")


@pytest.mark.parametrize("digits", ["0", "7", "9" * 5000])
def test_a_mark_that_no_reference_has_is_refused(digits: str) -> None:
    assert refusal(f"\ue000{digits}\ue001") == "contains a private-use character"
