"""What is wrong with a configuration: problems with their place, told all at once.

A message never contains a value of the configuration, since any value may be a secret: it names
the place, says what is wrong there and what is allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import NamedTuple

Path = tuple[str | int, ...]


class Finding(NamedTuple):
    """Something about the setting at `path`; `line` only where it is not that setting's own."""

    path: Path
    message: str
    line: int = 0


class Problem(NamedTuple):
    """One line of a report. `line` counts from 1; 0 where the file has no such line."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class SettingsInvalid(Exception):
    """The configuration cannot be used. `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: Path) -> str:
    """A path as people write it: `teams.search.keys[0].name`, `models["gpt-4.1"].price`."""
    parts = [_step(step) for step in path]
    return "".join(parts).removeprefix(".")


def nearest(name: str, known: Collection[str]) -> str:
    """A hint at what was meant, to end a sentence with."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f'["{step}"]' if "." in step or not step.isprintable() else f".{step}"
