from __future__ import annotations

from collections.abc import Mapping

import pytest
from multidict import CIMultiDict

from gateway.core.head_outline import KEY_HEADERS, outline_of_head
from gateway.core.header_rules import SESSION_HEADERS

OTHERS = {"host": "gateway", "user-agent": "curl/8", "content-type": "application/json"}


def passed(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return outline_of_head(headers).to_upstream.of(headers).lines()


@pytest.mark.parametrize("name", SESSION_HEADERS)
def test_no_session_is_overlooked(name: str) -> None:
    assert outline_of_head(CIMultiDict({**OTHERS, name.title(): "s-1"})).names_session
    assert not outline_of_head(CIMultiDict(OTHERS)).names_session


@pytest.mark.parametrize("name", KEY_HEADERS)
def test_every_header_of_a_key_is_found(name: str) -> None:
    assert outline_of_head(CIMultiDict({**OTHERS, name.title(): "x"})).keys == (name,)
    assert outline_of_head(CIMultiDict(OTHERS)).keys == ()


def test_of_several_headers_of_keys_each_is_found() -> None:
    lines = [(name, "x") for name in (*KEY_HEADERS, *OTHERS, *KEY_HEADERS)]
    assert outline_of_head(CIMultiDict(lines)).keys == KEY_HEADERS


def test_a_trace_is_found() -> None:
    assert outline_of_head(CIMultiDict({**OTHERS, "Traceparent": "00-1-2-01"})).names_trace
    assert not outline_of_head(CIMultiDict(OTHERS)).names_trace


def test_a_header_that_comes_again_passes_again() -> None:
    lines = [("Anthropic-Beta", "one"), ("host", "gateway"), ("anthropic-beta", "two")]
    once = CIMultiDict(lines[:2])
    for _ in range(2):
        assert passed(CIMultiDict(lines)) == [("anthropic-beta", "one"), ("anthropic-beta", "two")]
        assert passed(once) == [("anthropic-beta", "one")]


def test_of_any_number_of_lines_each_passes() -> None:
    lines = [(f"x-stainless-{number}", str(number)) for number in range(100)]
    assert passed(dict(lines)) == lines


@pytest.mark.parametrize("rounds", [1, 2])
def test_ever_new_names_pass_by_the_same_rule(rounds: int) -> None:
    for number in range(rounds * 300):
        name = f"X-Stainless-{number}"
        assert passed({name: "x", f"x-{number}": "y"}) == [(name.lower(), "x")]


@pytest.mark.parametrize("names", [[f"x-{number}" for number in range(65)], ["x" * 5_000]], ids=["many", "long"])
def test_of_unusual_names_nothing_is_remembered(names: list[str]) -> None:
    usual, unusual = CIMultiDict(OTHERS), CIMultiDict([(name, "x") for name in names])
    assert outline_of_head(usual) is outline_of_head(usual)
    assert outline_of_head(unusual) is not outline_of_head(unusual)
