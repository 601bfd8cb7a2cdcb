"""Replaces `${NAME}`, `${NAME:-default}` and `${file:PATH}` in values; `$${` is a plain `${`.

References are hidden behind marks before the YAML is read, and replaced afterwards, value by value: a replacement can
neither change the structure of the file nor be replaced itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.settings.diagnostics import looks_like_secret

MAX_FILE_BYTES = 64 * 1024
"""A `${file:…}` is a secret or a setting; whatever is larger is a mistake."""

_REFERENCE = re.compile(r"\$?\$\{[^{}\n]*\}|\$\$\{")
_MARK = re.compile("\ue000([0-9]+)\ue001")
_NAME = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)


def has_reference(text: str) -> bool:
    """Whether a text that `References.hide` has seen holds one, or the beginning of one."""
    return "\ue000" in text or "${" in text


class ReferenceBroken(Exception):
    """A reference that cannot be replaced; the text says why."""


class ReferenceUnset(ReferenceBroken):
    """It can be replaced, but not here: this environment has no such variable, or no such file."""


class Filled(NamedTuple):
    """A value with its references replaced. `source` names the variables and files that it came
    from, as the file has them; it is empty where the value is in the file itself."""

    text: str
    source: str


class HiddenReferences:
    """The references of one text, each behind a mark while the text is read: to YAML, their braces are a mapping."""

    def __init__(self) -> None:
        self._by_mark: dict[str, str] = {}

    def hide(self, text: str) -> str:
        return _REFERENCE.sub(self._mark, text)

    def replaced(self, text: str, put: Callable[[str | None], str]) -> str:
        """The text with what `put` gives for the reference of each mark. It gets None for a mark that was in the text
        from the beginning: YAML's escapes can write one, `"\\uE0000\\uE001"`."""
        return _MARK.sub(lambda mark: put(self._by_mark.get(mark[0])), text)

    def _mark(self, reference: re.Match[str]) -> str:
        mark = f"\ue000{len(self._by_mark)}\ue001"
        self._by_mark[mark] = reference[0]
        return mark


class References:
    """The references of one text, taken out of it by `hide` and put back by `fill`."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self._environ = environ
        self._folder = folder
        self._hidden = HiddenReferences()
        self.files: set[str] = set()
        """The paths of those that `fill` has looked for."""

    def hide(self, text: str) -> str:
        return self._hidden.hide(text)

    def fill(self, text: str) -> Filled:
        """Raises ReferenceBroken."""
        sources: list[str] = []

        def put(reference: str | None) -> str:
            if reference is None:
                raise ReferenceBroken("contains a private-use character")
            if reference.startswith("$$"):
                return reference[1:]
            value, source = self._value(reference[2:-1])
            sources.extend(source)
            return value

        if "${" in text:
            raise ReferenceBroken("a `${` is not closed on its line; write `$${` for a plain `${`")
        return Filled(self._hidden.replaced(text, put), ", ".join(sources))

    def _value(self, inner: str) -> tuple[str, list[str]]:
        if inner.startswith("file:") and inner != "file:":
            return self._file(inner.removeprefix("file:")), [f"${{{inner}}}"]
        parts = _NAME.fullmatch(inner)
        if parts is None:
            raise ReferenceBroken("a `${…}` is malformed; write ${NAME}, ${NAME:-default} or ${file:PATH}")
        name, default = parts["name"], parts["default"]
        if default is not None:
            return (self._environ[name], [f"${{{name}}}"]) if self._environ.get(name) else (default[2:], [])
        if name not in self._environ:
            if looks_like_secret(name):
                raise ReferenceBroken("the environment has no variable of this name, which looks like a secret")
            raise ReferenceUnset(f"the environment has no {name}; set it, or write ${{{name}:-default}}")
        return self._environ[name], [f"${{{name}}}"]

    def _file(self, name: str) -> str:
        self.files.add(os.fspath(self._folder / name))
        try:
            with (self._folder / name).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
            text = content.decode()
        except UnicodeDecodeError:
            raise ReferenceBroken(f"the file {name} is not UTF-8 text") from None
        except FileNotFoundError as error:
            raise ReferenceUnset(f"the file {name} cannot be read: {error.strerror}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a usable path"
            raise ReferenceBroken(f"the file {name} cannot be read: {reason}") from None
        if len(content) > MAX_FILE_BYTES:
            raise ReferenceBroken(f"the file {name} is larger than {MAX_FILE_BYTES} bytes")
        return text.rstrip("\r\n")
