from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.core.consultations import ADVICE_TOKENS, MOST
from gateway.core.endpoints import ENDPOINTS
from gateway.core.errors import CallerError, FieldInvalid, ModelUnknown
from gateway.core.pricing import Price
from gateway.core.request import ParsedRequest
from gateway.core.snapshot import Caller, Model
from gateway.core.usage import Usage
from gateway.stages.parse_request import parse_request
from tests.unit.fakes import CALLER, body_of, snapshot_with, target

OPUS_PRICE = Price(input=5, output=25)
SONNET = Model("sonnet", (target("one", price=Price(1, 2, image=4)), target("two", price=Price(1, 2))))
OPUS = Model("opus", (target("two", model="claude-opus", price=OPUS_PRICE),), aliases=("adviser",))
ELSEWHERE = Model("elsewhere", (target("three"),))
PLAIN = Model("plain", (target("two", price=Price(1, 2)),))
ADVISOR = {"type": "advisor_20260301", "name": "advisor"}
FEW = msgspec.structs.replace(CALLER, models=(("sonnet", "plain", "elsewhere"),))


def parsed_with(
    path: str = "/v1/messages", caller: Caller = CALLER, model: str = "sonnet", **members: Any
) -> ParsedRequest:
    snapshot = snapshot_with(SONNET, OPUS, ELSEWHERE, PLAIN)
    return parse_request(body_of(model=model, max_tokens=9, **members), ENDPOINTS[path], caller, snapshot)


def refused(kind: type[CallerError], path: str = "/v1/messages", **how: Any) -> str:
    with pytest.raises(kind) as refusal:
        parsed_with(path, **how)
    assert refusal.value.param is not None
    return refusal.value.param


@pytest.mark.parametrize("name", ["opus", "adviser"])
def test_a_tool_may_name_a_model_that_the_key_may_use(name: str) -> None:
    tools = [{"name": "f"}, {**ADVISOR, "model": name, "max_uses": 3, "max_tokens": 1_500}]
    (consulted,) = parsed_with(tools=tools).consulted
    assert (consulted.model, consulted.name, consulted.tool) == (OPUS, name, 1)
    assert (consulted.uses, consulted.tokens) == (3, 1_500)


@pytest.mark.parametrize("odd", [None, 0, -1, True, "3", 2.5])
def test_what_a_tool_does_not_limit_is_reserved_with_the_usual(odd: object) -> None:
    (consulted,) = parsed_with(tools=[{**ADVISOR, "model": "opus", "max_uses": odd, "max_tokens": odd}]).consulted
    assert (consulted.uses, consulted.tokens) == (1, ADVICE_TOKENS)


@pytest.mark.parametrize(
    ("members", "place"),
    [
        ({"tools": [{**ADVISOR, "model": "opus"}]}, "tools[0].model"),
        ({"tools": [{**ADVISOR, "model": "unknown"}]}, "tools[0].model"),
        ({"tools": [{"type": "image_generation", "model": "opus"}]}, "tools[0].model"),
        ({"plugins": [{"id": "auto", "allowed_models": ["opus"]}]}, "plugins[0].allowed_models[0]"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses", "/v1/messages/count_tokens"])
def test_a_model_that_the_key_may_not_use_is_unknown_wherever_it_is_named(
    path: str, members: dict[str, Any], place: str
) -> None:
    assert refused(ModelUnknown, path, caller=FEW, **members) == place


@pytest.mark.parametrize(
    ("path", "members", "place"),
    [
        ("/v1/chat/completions", {"tools": [{**ADVISOR, "model": "opus"}]}, "tools[0].model"),
        ("/v1/messages", {"tools": [{"type": "image_generation", "model": "opus"}]}, "tools[0].model"),
        ("/v1/messages", {"tools": [{**ADVISOR, "model": "opus", "x": {"model": "opus"}}]}, "tools[0].x.model"),
        (
            "/v1/chat/completions",
            {"tools": [{"type": "openrouter:advisor", "parameters": {"model": "opus"}}]},
            "tools[0].parameters.model",
        ),
        ("/v1/chat/completions", {"tools": [{"type": "openrouter:fusion"}]}, "tools[0].type"),
        ("/v1/responses", {"plugins": [{"id": "fusion"}]}, "plugins[0].id"),
        (
            "/v1/chat/completions",
            {"compound_custom": {"models": {"reasoning_model": "opus"}}},
            "compound_custom.models.reasoning_model",
        ),
    ],
)
def test_a_model_whose_tokens_the_answer_does_not_report_is_refused(
    path: str, members: dict[str, Any], place: str
) -> None:
    assert refused(FieldInvalid, path, **members) == place


def test_where_nothing_is_charged_any_model_that_the_key_may_use_passes() -> None:
    tools = [{"type": "openrouter:advisor", "parameters": {"model": "opus"}}]
    assert parsed_with("/v1/responses/input_tokens", tools=tools).consulted == ()


def test_an_image_of_a_named_model_needs_a_price() -> None:
    tools = [{"type": "image_generation", "model": "opus"}]
    (consulted,) = parsed_with("/v1/responses", tools=tools).consulted
    assert consulted.uses == 0
    assert refused(FieldInvalid, "/v1/responses", model="plain", tools=tools) == "tools[0].model"
    assert parsed_with("/v1/responses", model="plain", tools=[{"type": "image_generation"}]).consulted == ()


def test_a_model_that_no_upstream_of_the_other_has_is_unknown() -> None:
    assert refused(ModelUnknown, tools=[{**ADVISOR, "model": "elsewhere"}]) == "tools[0].model"


def test_more_tools_with_models_than_an_api_takes_are_refused() -> None:
    advisors = [{**ADVISOR, "model": "opus"}] * (MOST + 1)
    assert refused(FieldInvalid, tools=advisors) == "tools"
    assert len(parsed_with(tools=advisors[1:]).consulted) == MOST


def test_the_upstream_that_is_asked_has_every_model() -> None:
    parsed = parsed_with(tools=[{**ADVISOR, "model": "opus"}])
    assert [parsed.is_served_by(each) for each in SONNET.targets] == [False, True]


def test_a_model_whose_name_in_the_answer_is_not_known_costs_what_the_one_costs_that_was_named() -> None:
    usage = Usage(parts=(Usage(1), Usage(1, model="claude-opus-20260205")))
    assert parsed_with().prices_beside(SONNET.targets[1], usage) == {}
    prices = parsed_with(tools=[{**ADVISOR, "model": "opus"}]).prices_beside(SONNET.targets[1], usage)
    assert prices == {"claude-opus-20260205": OPUS_PRICE}
