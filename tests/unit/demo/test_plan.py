from __future__ import annotations

import json

import msgspec
import pytest

from gateway.demo.plan import ScriptedRequest, count_prompt, plan_answer, texts
from gateway.demo.script import DemoScript


def test_four_bytes_of_text_are_one_token_of_the_prompt() -> None:
    assert count_prompt(ScriptedRequest(messages=[{"role": "user", "content": "12345678"}])) == 2
    assert count_prompt(ScriptedRequest(messages=[{"role": "user", "content": "123456789"}])) == 3
    assert count_prompt(ScriptedRequest(messages=[{"role": "user", "content": "漢字"}])) == 2


def test_text_counts_wherever_the_model_reads_it() -> None:
    parts = [{"type": "text", "text": "1234"}, {"type": "image_url", "image_url": {"url": "ignored"}}]
    assert count_prompt(ScriptedRequest(system="1234", messages=[{"role": "user", "content": parts}])) == 2
    assert count_prompt(ScriptedRequest(input=["1234", "1234"])) == 2


def test_an_empty_prompt_is_one_token() -> None:
    assert count_prompt(ScriptedRequest()) == 1


def test_the_smallest_cap_shortens_an_answer_and_says_so() -> None:
    answer = plan_answer(1, 0, ScriptedRequest(max_tokens=5, max_completion_tokens=3), DemoScript(chunks=10))
    assert (len(answer.tokens), answer.capped) == (3, True)


def test_a_cap_that_is_not_reached_changes_nothing() -> None:
    answer = plan_answer(1, 0, ScriptedRequest(max_tokens=50), DemoScript(chunks=10))
    assert (len(answer.tokens), answer.capped) == (10, False)


def test_every_choice_costs_its_tokens() -> None:
    assert plan_answer(1, 0, ScriptedRequest(n=3), DemoScript(chunks=4)).counts().completion == 12


def test_the_script_overrides_what_is_reported() -> None:
    script = DemoScript(chunks=4, prompt_tokens=0, completion_tokens=0)
    assert plan_answer(1, 0, ScriptedRequest(), script).counts()[:3] == (0, 0, 0)


def test_what_the_total_has_above_the_sum_is_output() -> None:
    counts = plan_answer(1, 0, ScriptedRequest(), DemoScript(chunks=4, prompt_tokens=10, total_tokens=20)).counts()
    assert (counts.completion, counts.output) == (4, 10)


def test_tokens_are_padded_to_the_size_asked_for() -> None:
    assert {len(text.encode()) for text in texts(100, 50, arguments=False)} == {50}


def test_the_arguments_of_a_tool_are_json() -> None:
    tokens = texts(9, 0, arguments=True)
    assert len(tokens) == 9
    assert json.loads("".join(tokens))["text"].startswith("Hello!")


def test_a_tool_is_called_unless_the_request_forbids_it() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    assert plan_answer(1, 0, ScriptedRequest(tools=tools), DemoScript()).tool == "look"
    assert plan_answer(1, 0, ScriptedRequest(tools=tools, tool_choice="none"), DemoScript()).tool == ""


@pytest.mark.parametrize("demanded", ["required", "any", {"type": "function"}, {"type": "tool", "name": "look"}])
def test_a_script_without_tools_calls_one_if_the_request_demands_it(demanded: object) -> None:
    tools, script = [{"name": "look"}], DemoScript(no_tools=True)
    assert plan_answer(1, 0, ScriptedRequest(tools=tools, tool_choice=demanded), script).tool == "look"
    for choice in (None, "auto", {"type": "auto"}):
        assert plan_answer(1, 0, ScriptedRequest(tools=tools, tool_choice=choice), script).tool == ""


@pytest.mark.parametrize(
    ("member", "result"),
    [
        ("messages", {"role": "tool", "tool_call_id": "c", "content": "5"}),
        ("messages", {"role": "user", "content": [{"type": "tool_result"}, {"type": "text", "text": "Mind."}]}),
        ("input", {"type": "function_call_output", "call_id": "c", "output": "5"}),
        ("input", {"type": "custom_tool_call_output", "call_id": "c", "output": "5"}),
        ("contents", {"role": "user", "parts": [{"functionResponse": {"name": "look"}}]}),
    ],
)
def test_what_a_tool_returned_is_answered_in_words(member: str, result: dict[str, object]) -> None:
    asked = {"role": "user", "content": "Look."}
    for said, called in (([asked, result], ""), ([result, asked], "look")):
        request = msgspec.convert({"tools": [{"name": "look"}], member: said}, ScriptedRequest)
        assert plan_answer(1, 0, request, DemoScript()).tool == called


@pytest.mark.parametrize(
    ("declared", "called"), [([{"name": "look"}], "look"), ([], "tool"), (5, "tool"), ({"name": "look"}, "tool")]
)
def test_gemini_declares_functions_in_a_list(declared: object, called: str) -> None:
    request = ScriptedRequest(tools=[{"functionDeclarations": declared}])
    assert plan_answer(1, 0, request, DemoScript()).tool == called
