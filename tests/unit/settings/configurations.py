"""Configurations for tests. A line that ends in `# !` is one that a problem must name."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.settings.diagnostics import Diagnostic, SettingsInvalid
from gateway.settings.loading import Loaded, parse

FILE = "gateway.yaml"
NOTHING: Mapping[str, str] = {}
SHA256 = "0f" * 32

VALID = """\
upstreams:
  main: {base_url: http://127.0.0.1:9000/v1}
models:
  openai/gpt-oss-120b:
    aliases: [gpt-oss]
    routes: [{upstream: main}]
    max_output_tokens: 1000
    price: {input: 0.15, output: 0.60}
  local/free:
    routes: [{upstream: main}]
    max_output_tokens: 1000
"""

TEAM = f"""\
teams:
  search:
    keys:
      - {{name: prod, sha256: {SHA256}}}
"""


def loaded(text: str, environ: Mapping[str, str] = NOTHING) -> Loaded:
    return parse(text, FILE, environ)


def problems(text: str, environ: Mapping[str, str] = NOTHING) -> tuple[Diagnostic, ...]:
    with pytest.raises(SettingsInvalid) as invalid:
        parse(text, FILE, environ)
    return invalid.value.problems


def assert_refused(text: str, *messages: str, environ: Mapping[str, str] = NOTHING) -> None:
    """The problems are these, each `path: message`, and stand on the marked lines, in order."""
    _assert_told(problems(text, environ), text, messages)


def assert_warned(text: str, *messages: str, environ: Mapping[str, str] = NOTHING) -> None:
    """The same for the warnings of a configuration that can be used."""
    _assert_told(loaded(text, environ).warnings, text, messages)


def _assert_told(told: tuple[Diagnostic, ...], text: str, messages: tuple[str, ...]) -> None:
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# !")]
    assert [f"{problem.setting}: {problem.message}".removeprefix(": ") for problem in told] == list(messages)
    assert sorted({problem.line for problem in told}) == marked
    assert all(str(problem).startswith(f"{FILE}:{problem.line}: ") for problem in told)
