"""What no file may say: where it was written, from where a package must come, or words that a reader has to decode."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house.prose import Text, findings, known, texts, too_long
from tests.house.tree import ROOT, files, place, under

# Folders of one person's or one machine's file system, but not of a project, a container or a URL.
MACHINE = re.compile(r"(?<![\w.~}/-])/(root|work|mnt|Users/\w+|home/\w+)/")
ADDRESS = re.compile(r"://|^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b", re.MULTILINE)
RESOLVED = re.compile(r'"resolved":')


def test_no_file_knows_a_path_of_somebodys_machine() -> None:
    assert [line for path in files() for line in _lines(path, MACHINE)] == []


def test_the_locks_name_no_address() -> None:
    assert [line for path in under("requirements", suffix=".txt") for line in _lines(path, ADDRESS)] == []
    packages = [path for path in files() if path.name == "package-lock.json"]
    assert [line for path in packages for line in _lines(path, RESOLVED)] == []


def test_code_and_documentation_use_plain_terms() -> None:
    assert list(findings(texts(), known())) == []


def test_the_linter_of_prose_finds_a_word_by_its_line_and_leaves_code_alone(tmp_path: Path) -> None:
    page = ROOT / "docs" / "page.md"
    prose = "Plain text.\n`whoever` is code, [a link](whoever.md) too.\nIt reckons with\nwhoever comes.\n"
    found = list(findings(iter([Text(page, 1, prose)]), known()))
    assert [line.partition(" write ")[0] for line in found] == [
        'docs/page.md:3: "reckons":',
        'docs/page.md:4: "whoever":',
    ]


def test_the_linter_of_prose_finds_a_sentence_that_nobody_can_read_in_a_breath() -> None:
    page = ROOT / "docs" / "page.md"
    prose = "A short one.\n\n" + "word " * 61 + "end.\n\n| " + "cell " * 70 + "|\n"
    assert list(too_long(Text(page, 1, prose))) == ["docs/page.md:3: split the sentence of 62 words"]


def test_the_linter_of_prose_reads_help_errors_and_metric_texts() -> None:
    read = "\n".join(text.prose for text in texts())
    for known_text in (
        "Validate a configuration. Exit status 0: it can be used; 2: it cannot.",
        "The largest body that a request may have, after decompression.",
        "is missing, so nobody can use the gateway",
        "Requests with it are refused within a second, until it is enabled again.",
    ):
        assert known_text in read


def test_every_locked_package_is_pinned_and_hashed() -> None:
    for path in under("requirements", suffix=".txt"):
        logical = path.read_text(encoding="utf-8").replace("\\\n", "")
        packages = [line for line in logical.splitlines() if line and not line.lstrip().startswith("#")]
        assert packages
        assert [line[:60] for line in packages if "==" not in line or "--hash=sha256:" not in line] == []


def test_the_runtime_lock_is_a_part_of_the_development_lock() -> None:
    runtime, development = (_pins(ROOT / "requirements" / name) for name in ("runtime.txt", "dev.txt"))
    assert runtime - development == set()


def _lines(path: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    return [place(path, number) for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


def _pins(path: Path) -> set[str]:
    return set(re.findall(r"^[\w.-]+==[\w.]+", path.read_text(encoding="utf-8"), re.MULTILINE))
