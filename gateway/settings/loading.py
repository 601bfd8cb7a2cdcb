"""A configuration file in; frozen, validated settings out, or everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from gateway.settings.checks import find_errors, find_warnings
from gateway.settings.document import NotYaml, Place, read
from gateway.settings.known import known_in
from gateway.settings.problems import Finding, Path, Problem, SettingsInvalid, dotted
from gateway.settings.replacement import References
from gateway.settings.shape import Settings
from gateway.settings.validation import validate


class Loaded(NamedTuple):
    """`warnings` are what works, but hardly as it was meant."""

    settings: Settings
    warnings: tuple[Problem, ...] = ()


def load(path: str | os.PathLike[str], environ: Mapping[str, str]) -> Loaded:
    """Read a configuration. `${NAME}` comes from `environ`, `${file:PATH}` is seen from the
    configuration's own folder. Raises SettingsInvalid."""
    return parse(_text(path), os.fspath(path), environ)


def parse(text: str, file: str, environ: Mapping[str, str]) -> Loaded:
    """The same for a text; `file` is what its problems name. Raises SettingsInvalid."""
    try:
        document = read(text, References(environ, FilePath(file).parent))
    except NotYaml as broken:
        raise SettingsInvalid([Problem(file, broken.line, "", broken.message)]) from None
    settings, findings = validate(document.data)
    errors = _with(document.findings, findings)
    known = known_in(document)
    if settings is not None:
        errors = _with(errors, find_errors(settings, known))
    if errors or settings is None:
        raise SettingsInvalid(_located(errors, file, document.places))
    return Loaded(settings, tuple(_located(find_warnings(settings, known), file, document.places)))


def build(data: dict[str, Any]) -> Settings:
    """Settings that are made in code, of the same plain data. Raises SettingsInvalid."""
    settings, findings = validate(data)
    if findings or settings is None:
        raise SettingsInvalid(Problem("", 0, dotted(path), message) for path, message, _ in findings)
    return settings


def _text(path: str | os.PathLike[str]) -> str:
    file = os.fspath(path)
    try:
        return FilePath(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsInvalid([Problem(file, 0, "", "is not UTF-8 text")]) from None
    except OSError as error:
        hint = "name a configuration with -c FILE or in $GATEWAY_CONFIG"
        raise SettingsInvalid([Problem(file, 0, "", f"cannot be read: {error.strerror}; {hint}")]) from None


def _with(earlier: list[Finding], later: Iterable[Finding]) -> list[Finding]:
    """Both, but what has an error in it is not judged once more as a whole."""
    return [*earlier, *(finding for finding in later if not any(_is_in(one.path, finding.path) for one in earlier))]


def _is_in(path: Path, whole: Path) -> bool:
    return path[: len(whole)] == whole


def _located(findings: Iterable[Finding], file: str, places: dict[Path, Place]) -> list[Problem]:
    problems = []
    for finding in findings:
        place = _place(finding.path, places)
        note = f" (the value comes from {place.source})" if place.source else ""
        problems.append(Problem(file, finding.line or place.line, dotted(finding.path), finding.message + note))
    return sorted(problems, key=lambda problem: problem.line)


def _place(path: Path, places: dict[Path, Place]) -> Place:
    """Where a setting stands, or, if it stands nowhere, what it belongs to."""
    while path not in places and path:
        path = path[:-1]
    return places.get(path, Place(0))
