"""What is wrong with a configuration: diagnostics with their place, all reported at once.

A message never contains a value of the configuration, since any value may be a secret: it names the place, says what
is wrong there and what is allowed. A name can be a secret, too, if it was pasted in front of a colon: names that look
like one are not shown.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

Path = tuple[str | int, ...]

HIDDEN = "…"

MESSAGES = {
    "missing": "is missing; it is required",
    "tuple_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping, from names to settings",
    "model_type": "must be a mapping of settings",
    "too_short": "must not be empty; leave it out to mean all",
    "string_type": "must be text",
    "too_long": "has too many entries",
}
"""What is wrong with the form of a value, by the names of pydantic's errors."""

_PREFIXED = re.compile(
    r"(sk|pk|rk|gw|gsk|hf|csk|xai|tgp|r8|nvapi|pplx|gh[opsu]|github_pat|xox[a-z])[-_].{12,}|(AKIA|AIza|eyJ).{12,}",
    re.IGNORECASE,
)
"""How keys of well-known services begin."""

_RUN = re.compile(r"[A-Za-z0-9+=]{20,}")
_GROUPED_DIGITS = 3
"""Those after the comma of 1,000, which YAML takes for the next name of `{requests: 1,000}`."""
_PLAIN_WORDS = re.compile(r"[A-Za-z_-]{1,40}")


class Diagnostic(NamedTuple):
    """Something that is wrong with the setting at `path`, or noteworthy. `line` counts from 1; 0 where the file has no
    such line, or before it is located. `hides_name`: the last name of the path may be a secret."""

    path: Path
    message: str
    line: int = 0
    file: str = ""
    hides_name: bool = False

    @property
    def setting(self) -> str:
        """The path as people write it, without what may be a secret."""
        return dotted((*self.path[:-1], HIDDEN) if self.hides_name else self.path)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.setting, self.message) if part)

    def as_json(self) -> dict[str, Any]:
        return {"file": self.file, "line": self.line, "path": self.setting, "message": self.message}


class SettingsInvalid(Exception):
    """The configuration cannot be used. `problems` holds everything that is wrong with it, `files` the paths of those
    that its `${file:…}` name, as far as it could be read."""

    def __init__(self, problems: Iterable[Diagnostic], files: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        self.files = tuple(files)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: Path) -> str:
    """A path as people write it: `teams.search.keys[0].name`, `models["gpt-5.5"].price`."""
    parts = [_step(step) for step in path]
    return "".join(parts).removeprefix(".")


def closest(name: str, known: Collection[str]) -> str:
    """The known name that a name is most like, or nothing."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), "")


def nearest(name: str, known: Collection[str]) -> str:
    """A hint at what was meant, as the end of a sentence."""
    close = closest(name, known)
    if close:
        return f"did you mean {close}?"
    return f"known here: {', '.join(known)}" if known else "there is none"


def unknown_name(path: Path, known: Collection[str]) -> Diagnostic:
    """The diagnostic for an unknown setting. Its name is shown if it can be a misspelt one."""
    name = str(path[-1])
    if closest(name, known) or (_PLAIN_WORDS.fullmatch(name) and not looks_like_secret(name)):
        return Diagnostic(path, f"is not a known setting; {nearest(name, known)}")
    if name.isdecimal() and len(name) == _GROUPED_DIGITS:
        return Diagnostic(path, "is not a known setting; the digits of a number are grouped with _, as in 1_000")
    message = f"is not a known setting, and not shown, since it may be a secret; known here: {', '.join(known)}"
    return Diagnostic(path, message, hides_name=True)


def no_section(path: Path, known: Collection[str]) -> Diagnostic:
    """Something else is where a mapping of these settings must be."""
    return Diagnostic(path, f"{MESSAGES['model_type']}; known here: {', '.join(known)}")


def wrong_name(path: Path, allowed: str) -> Diagnostic:
    """The last name of the path is not one that may be given there."""
    return Diagnostic(path, f"its name {allowed}")


def one_of(expected: str, given: Any) -> str:
    """`expected` lists what is allowed, each in quotes. What is meant is repeated, and never what is given."""
    allowed = re.findall("'([^']+)'", expected)
    meant = closest(given, allowed) if isinstance(given, str) else ""
    return f"must be {expected}; did you mean {meant}?" if meant else f"must be {expected}"


def looks_like_secret(name: str) -> bool:
    """A key of a well-known service, or a long run of letters and digits, which no name of a model has."""
    runs = _RUN.findall(name)
    mixed = any(re.search("[0-9]", run) and re.search("[A-Za-z]", run) for run in runs)
    return mixed or _PREFIXED.match(name.removeprefix("Bearer ")) is not None


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    shown = HIDDEN if looks_like_secret(step) else step
    quoted = "." in shown or not shown.isprintable() or shown in ("", HIDDEN)
    return f'["{shown}"]' if quoted else f".{shown}"
