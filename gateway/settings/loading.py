"""Loads settings from a file, from a text or from plain data, or reports everything that is wrong with them.

A text becomes plain data with a line for each path (document.py), the data becomes frozen, validated settings, and the
settings are checked against each other (checks.py). Invalid parts are removed until the rest is valid, so that the
checks run in the same pass and a reader of the report sees all errors at once.

`demo_settings` is the configuration of `gateway serve --demo` and `--upstream URL`, which have no file.
"""

from __future__ import annotations

import gc
import hashlib
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath
from types import NoneType
from typing import Any, NamedTuple

from pydantic import ValidationError

from gateway.core.proxies import EnvironmentProxies
from gateway.settings.base_section import BaseSection
from gateway.settings.checks import find_errors, find_warnings
from gateway.settings.connection_checks import connection_errors
from gateway.settings.demo_credentials import demo_credential_errors
from gateway.settings.diagnostics import (
    MESSAGES,
    Diagnostic,
    Path,
    SettingsInvalid,
    no_section,
    one_of,
    unknown_name,
    wrong_name,
)
from gateway.settings.document import Document, DocumentMapping, NotYaml, read
from gateway.settings.interpolation import References
from gateway.settings.models import Settings
from gateway.settings.name_index import NameIndex

HASH_DIGITS = 12

_ROUNDS = 8
"""In which what depends on a value that is not set is cut away, and what depends on that."""

DEMO_MODEL = "openai/gpt-oss-120b"

_KNOWN_MODELS: dict[str, dict[str, Any]] = {
    DEMO_MODEL: {
        "context_window": 131_072,
        "max_output_tokens": 32_768,
        "price": {"input": "0.15", "output": "0.60", "cached_input": "0.07"},
    }
}

_KEY = "[key]"
"""What pydantic appends to the path of a mapping's key that is wrong."""


class Loaded(NamedTuple):
    """`warnings` name what works, but probably not as it was meant. `unset` are the values that were not checked."""

    settings: Settings
    warnings: tuple[Diagnostic, ...] = ()
    unset: tuple[Diagnostic, ...] = ()


def load(path: str | os.PathLike[str], environ: Mapping[str, str], *, secrets: bool = True) -> Loaded:
    """Read a configuration. `${NAME}` comes from `environ`, `${file:PATH}` is seen from the
    configuration's own folder. Without secrets, variables and files that are not there are no errors: whatever depends
    on their values is not checked, and the settings are not complete. Raises SettingsInvalid."""
    with _without_collections():
        return parse(_text(path), os.fspath(path), environ, secrets=secrets)


def parse(
    text: str, file: str, environ: Mapping[str, str], *, secrets: bool = True, connection_files: bool = True
) -> Loaded:
    """Read a configuration from a text; `file` is its name in problems. `connection_files`: whether certificates and
    keys of identity providers are read, too. Raises SettingsInvalid."""
    references = References(environ, FilePath(file).parent)
    try:
        document = read(text, references)
    except NotYaml as broken:
        raise SettingsInvalid([Diagnostic((), broken.message, broken.line, file)]) from None
    settings, found = validate(document.data)
    errors = _with([*document.diagnostics, *document.unset], found)
    index = NameIndex(document)
    if settings is not None:
        settings.__dict__["proxies"] = EnvironmentProxies.of(environ)
        errors = _with(errors, find_errors(settings, index, secrets=secrets, connection_files=connection_files))
    unset = [] if secrets else document.unset
    if unset and settings is not None:
        errors = [error for error in errors if error not in unset]
        if not errors:
            settings = _certain_part(settings, document.data, index, connection_files=connection_files)
        errors = unset if settings is None else errors
    files = tuple(sorted(references.files))
    if errors or settings is None:
        raise SettingsInvalid(_located(errors, file, document), files)
    settings.__dict__.update(file=file, text=text, referenced_files=files)
    settings.__dict__["file_hash"] = hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
    warnings = _with(unset, find_warnings(settings, index))[len(unset) :]
    return Loaded(settings, tuple(_located(warnings, file, document)), tuple(_located(unset, file, document)))


def located(diagnostics: Iterable[Diagnostic], path: str, environ: Mapping[str, str]) -> list[Diagnostic]:
    """Diagnostics that were found elsewhere, with the lines of a file that can be loaded."""
    document = read(_text(path), References(environ, FilePath(path).parent))
    return _located(diagnostics, path, document)


def _certain_part(settings: Settings | None, data: Any, index: NameIndex, *, connection_files: bool) -> Settings | None:
    """Settings whose only errors come from values that are not set, without what has these errors."""
    for _ in range(_ROUNDS):
        if settings is None:
            return None
        errors = find_errors(settings, index, secrets=False, connection_files=connection_files)
        broken = {found.path for found in errors}
        if not broken:
            return settings
        proxies, data = settings.proxies, _without(data, (), broken)
        settings = validate(data).settings
        if settings is not None:
            settings.__dict__["proxies"] = proxies
    return None


def build(data: dict[str, Any]) -> Settings:
    """Settings built in code, from the same plain data. Raises SettingsInvalid."""
    settings, found = validate(data)
    if found or settings is None:
        raise SettingsInvalid(found)
    return settings


def demo_settings(
    key: str,
    base_url: str,
    *,
    api_key: str = "",
    models: Sequence[str] = (DEMO_MODEL,),
    aliases: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    **changes: Any,
) -> Settings:
    """One team `demo` with one key, `key`, in front of one upstream that serves `models`, the first of which has the
    `aliases`, through the proxy that `environ` names for it. `changes` are settings of the first level, as in a file.
    Raises SettingsInvalid."""
    limits: list[dict[str, Any]] = [
        {"requests": 120, "per": "minute"},
        {"tokens": 200_000, "per": "minute"},
        {"tokens": 5_000_000, "per": "day"},
        {"concurrent": 16},
    ]
    priced = [model for model in models if model in _KNOWN_MODELS]
    if priced:
        limits.append({"usd": 5, "per": "month", "models": priced})
    served = {model: {"routes": [{"upstream": "demo"}], **_KNOWN_MODELS.get(model, {})} for model in models}
    served[models[0]]["aliases"] = list(aliases)
    settings = build(
        {
            "listen": "127.0.0.1:8080",
            "upstreams": {"demo": {"base_url": base_url, "api_key": api_key or None}},
            "models": served,
            "teams": {"demo": {"limits": limits, "keys": [{"name": "demo", "key": key}]}},
            **changes,
        }
    )
    settings.__dict__["proxies"] = EnvironmentProxies.of(environ or {})
    if errors := [*connection_errors(settings), *demo_credential_errors(settings)]:
        raise SettingsInvalid(errors)
    return settings


class Validated(NamedTuple):
    """`settings` is the valid part of the data; None if there is none."""

    settings: Settings | None
    found: list[Diagnostic]


def validate(data: Any) -> Validated:
    found: list[Diagnostic] = []
    while True:
        try:
            return Validated(Settings.model_validate(data), found)
        except ValidationError as invalid:
            errors: list[Any] = invalid.errors(include_url=False)
        # Later rounds only find what the cutting broke.
        found = found or [diagnostic_of(error) for error in errors]
        cuts = {_cut(error) for error in errors}
        if () in cuts:
            return Validated(None, found)
        data = _without(data, (), cuts)


def diagnostic_of(error: Any) -> Diagnostic:
    """The diagnostic for what pydantic found."""
    path = tuple(step for step in error["loc"] if step != _KEY)
    if error["type"] == "extra_forbidden":
        return unknown_name(path, _settings_at(path[:-1]))
    if error["type"] == "value_error":
        allowed = str(error["ctx"]["error"])
        return wrong_name(path, allowed) if _KEY in error["loc"] else Diagnostic(path, allowed)
    if error["type"] == "literal_error":
        return Diagnostic(path, one_of(error["ctx"]["expected"], error["input"]))
    if error["type"] == "model_type" and path:
        return no_section(path, _settings_at(path))
    if error["type"] == "string_too_long":
        return Diagnostic(path, f"must have at most {error['ctx']['max_length']} characters")
    return Diagnostic(path, MESSAGES.get(error["type"], "has the wrong form"))


def _settings_at(path: Path) -> list[str]:
    """The names of the settings that a path may have below it."""
    kind: Any = Settings
    for step in path:
        if _is_section(kind):
            kind = kind.model_fields[step].annotation
        else:
            key_or_item, *rest = typing.get_args(kind)
            kind = rest[0] if typing.get_origin(kind) is dict else key_or_item
        if NoneType in typing.get_args(kind):
            kind = typing.get_args(kind)[0]
    return list(kind.model_fields)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseSection)


def _cut(error: Any) -> Path:
    """The paths to remove so that the rest is valid: what is wrong, or what lacks something."""
    path: Path = tuple(step for step in error["loc"] if step != _KEY)
    return path[:-1] if error["type"] == "missing" else path


def _without(data: Any, path: Path, cuts: set[Path]) -> Any:
    if isinstance(data, dict):
        kept = DocumentMapping(getattr(data, "path", ()))
        for name, value in data.items():
            if (*path, name) not in cuts:
                kept[name] = _without(value, (*path, name), cuts)
        return kept
    if isinstance(data, list):
        numbered = [((*path, index), item) for index, item in enumerate(data)]
        return [_without(item, place, cuts) for place, item in numbered if place not in cuts]
    return data


@contextmanager
def _without_collections() -> Iterator[None]:
    """A large file makes millions of objects, none of them in a cycle. The garbage collector would search them again
    and again, a third of the time of a load, and would stop every thread of a gateway that serves meanwhile."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _text(path: str | os.PathLike[str]) -> str:
    file = os.fspath(path)
    try:
        return FilePath(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        # The error has what was read up to here, which is the whole file.
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsInvalid([Diagnostic((), "is not UTF-8 text; save the file as UTF-8", line, file)]) from None
    except OSError as error:
        hint = "name a configuration with -c FILE or in $GATEWAY_CONFIG"
        raise SettingsInvalid([Diagnostic((), f"cannot be read: {error.strerror}; {hint}", 0, file)]) from None


def _with(earlier: list[Diagnostic], later: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Both, but what has an error in it is not checked once more as a whole."""
    return [*earlier, *(found for found in later if not any(_is_in(one.path, found.path) for one in earlier))]


def _is_in(path: Path, whole: Path) -> bool:
    return path[: len(whole)] == whole


def _located(diagnostics: Iterable[Diagnostic], file: str, document: Document) -> list[Diagnostic]:
    located = []
    for found in diagnostics:
        place = document.place(found.path)
        note = f" (the value comes from {place.source})" if place.source else ""
        located.append(found._replace(message=found.message + note, line=found.line or place.line, file=file))
    return sorted(located, key=lambda found: found.line)
