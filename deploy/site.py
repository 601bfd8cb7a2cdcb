"""MkDocs' hooks: README.md and CHANGELOG.md become pages, and each page of a folder is in the navigation.

A link to a file that is no page becomes plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath
from typing import Any

ROOT = Path(__file__).parents[1]
_PICTURE = re.compile(r"(!\[[^\]]*\]\()docs/")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
# Lines of code have up to 120 characters: on a screen of 1,440 pixels the column of the text holds them.
_CSS = ".md-grid { max-width: 78rem; } .md-typeset pre > code { font-size: .6rem; }\n"


def on_config(config: Any) -> Any:
    config["nav"] = [_with_pages(entry) for entry in config["nav"]]
    return config


def _with_pages(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the navigation with the pages of each folder it names, the folder's README first."""
    ((title, target),) = entry.items()
    if isinstance(target, list):
        return {title: [_with_pages(each) for each in target]}
    if not target.endswith("/"):
        return entry
    pages = sorted((ROOT / "docs" / target).glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
    return {title: [f"{target}{page.name}" for page in pages]}


def on_files(files: Any, *, config: Any) -> Any:
    # MkDocs is in an environment of its own.
    from mkdocs.structure.files import File

    for source, page in _PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_from_root(text)))
    files.append(File.generated(config, "site.css", content=_CSS))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    folder = Path(page.file.src_uri).parent
    return _LINK.sub(lambda link: _inside(link, folder), markdown)


def _from_root(text: str) -> str:
    """A file of the repository's root as a page beside docs/'s own."""

    def moved(link: re.Match[str]) -> str:
        name, path, anchor = link.groups()
        target = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
        target += "README.md" if target.endswith("clients/") else ""
        return link[0] if "://" in path else f"[{name}]({target}{anchor or ''})"

    return _PICTURE.sub(r"\1", _LINK.sub(moved, text))


def _inside(link: re.Match[str], folder: Path) -> str:
    """A link within the site as it is; what leads out of docs/ by its name alone."""
    name, path, anchor = link.groups()
    if "://" in path or path.startswith("mailto:"):
        return link[0]
    inside = not normpath(f"{folder.as_posix()}/{path}").startswith("..")
    outer = normpath(f"docs/{folder.as_posix()}/{path}")
    if outer in _PAGES:
        return f"[{name}]({'../' * len(folder.parts)}{_PAGES[outer]}{anchor or ''})"
    return link[0] if inside and not path.endswith("/") else name
