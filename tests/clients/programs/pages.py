"""The pages of docs/clients/: what a reader is told to paste, so that the tests paste the same.

A block behind a line that ends with a path and a colon is a file of that path; blocks of `sh` are run by a shell, in
order; those of `python` and `js` begin a program.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[3] / "docs" / "clients"
PLACE = "127.0.0.1:8080"
"""Where the gateway of the pages listens."""

BLOCK = re.compile(r"^(?P<lead>[^\n]*)\n+```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`(?P<path>[^`]+)`:$")


class Page(NamedTuple):
    """`files` by their paths, `~` for the home; the others are all blocks of their kind in one."""

    files: dict[str, str]
    shell: str
    python: str
    js: str


def page(name: str, port: int) -> Page:
    """What the page says, for a gateway on this port."""
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8").replace(PLACE, f"127.0.0.1:{port}")
    files: dict[str, str] = {}
    blocks: dict[str, list[str]] = {}
    for found in BLOCK.finditer(text):
        if place := FILE.search(found["lead"]):
            files[place["path"]] = found["text"]
        else:
            blocks.setdefault(found["language"], []).append(found["text"])
    return Page(files, *("".join(blocks.get(kind, ())) for kind in ("sh", "python", "js")))
