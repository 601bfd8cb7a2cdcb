"""What no file may say: where it was written, from where a package must come, or words that a reader has to decode."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house.tree import ROOT, files, place, under

# Folders of one person's or one machine's file system, but not of a project, a container or a URL.
MACHINE = re.compile(r"(?<![\w.~}/-])/(root|work|mnt|Users/\w+|home/\w+)/")
ADDRESS = re.compile(r"://|^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b", re.MULTILINE)
# Images where the field has a term: entry point, backend, fix, again, compute, reloaded, is in, problem.
IMAGES = re.compile(
    r"\b(doors?|keepers?|mend(s|ed|ing)?|anew|reckon\w*|taken\s+up|stands\s+in|vigils?|couriers?|crews?|ailments?"
    r"|sick|(by\s+)?whose\s+doing|by\s+the\s+doing|nobody\s+need|goes\s+before\s+it|stands?\s+beside|in\s+the\s+midst)\b",
    re.IGNORECASE,
)
RESOLVED = re.compile(r'"resolved":')


def test_no_file_knows_a_path_of_somebodys_machine() -> None:
    assert [line for path in files() for line in _lines(path, MACHINE)] == []


def test_the_locks_name_no_address() -> None:
    assert [line for path in under("requirements", suffix=".txt") for line in _lines(path, ADDRESS)] == []
    packages = [path for path in files() if path.name == "package-lock.json"]
    assert [line for path in packages for line in _lines(path, RESOLVED)] == []


def test_code_and_documentation_use_plain_terms() -> None:
    # A decision is left as it was taken, in its words; what was released, too.
    read = [*under("gateway", suffix=".py"), *under("docs", suffix=".md")]
    read += [path for path in files() if path.parent == ROOT and path.suffix in {".md", ".mk", ".yml", ""}]
    read += [*under("helm", suffix=".yaml"), *under("config", suffix=".yaml")]
    kept = [path for path in read if "decisions" not in path.parts and path.stem not in {"CHANGELOG", "LICENSE"}]
    texts = {path: path.read_text(encoding="utf-8") for path in kept}
    assert texts
    found = [(path, match) for path, text in texts.items() for match in IMAGES.finditer(text)]
    assert [f"{place(path, texts[path].count(chr(10), 0, at.start()) + 1)}: {at[0]}" for path, at in found] == []


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
