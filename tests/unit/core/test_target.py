from __future__ import annotations

import pytest

from gateway.core.target import matches


@pytest.mark.parametrize(
    ("name", "patterns", "fits"),
    [
        ("openai/gpt", ("openai/*",), True),
        ("openai/gpt/4", ("openai/*",), True),
        ("openai", ("openai/*",), False),
        ("x/openai/gpt", ("openai/*",), False),
        ("gpt-4", ("gpt-?",), True),
        ("gpt-40", ("gpt-?",), False),
        ("gpt-4", ("gpt-[34]",), True),
        ("gpt-5", ("gpt-[!34]",), True),
        ("GPT-4", ("gpt-*",), False),
        ("a", ("b", "a"), True),
        ("a", (), False),
        ("a.b", ("a?b",), True),
        ("axb", ("a.b",), False),
        ("a\nb", ("a*b",), True),
    ],
)
def test_names_fit_globs(name: str, patterns: tuple[str, ...], fits: bool) -> None:
    assert matches(name, patterns) is fits
