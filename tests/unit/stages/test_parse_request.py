from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.endpoints import CHAT, ENDPOINTS, Endpoint
from gateway.core.errors import BodyUnreadable, CallerError, FieldInvalid, ModelUnknown
from gateway.core.pricing import Price, PriceTerms
from gateway.core.request import ParsedRequest
from gateway.core.snapshot import Caller, Model
from gateway.stages.parse_request import parse_request
from tests.unit.fakes import CALLER, PRICE, body_of, snapshot_with, target

LARGE = Model("openai/large", (), aliases=("large",), max_output_tokens=1_000)
BRIEF = Model("openai/brief", (), aliases=("brief",), max_output_tokens=200)
SMALL = Model("m", ())
CATALOGUE = snapshot_with(LARGE, BRIEF, SMALL)


def read_body(body: bytes, *, endpoint: Endpoint = CHAT, caller: Caller = CALLER) -> ParsedRequest:
    return parse_request(body, endpoint, caller, CATALOGUE)


def read_with(**members: Any) -> ParsedRequest:
    return read_body(body_of(**members))


def test_what_the_gateway_must_know_is_read_and_the_bytes_stay() -> None:
    body = body_of(stream=True, stream_options={"include_usage": True}, n=3, user="ann", max_tokens=50)
    parsed = read_body(body)
    assert (parsed.model, parsed.asked_model, parsed.endpoint) == (SMALL, "m", CHAT)
    assert (parsed.stream, parsed.asks_usage, parsed.choices, parsed.user) == (True, True, 3, "ann")
    assert parsed.output_cap == 50
    assert parsed.members.body is body


PRICED = Model("m", (target(price=PRICE),))
DEARER = Price.of(PriceTerms({"output": 1}, tiers={"priority": PriceTerms({"output": 2})}))
WITH_PRIORITY = Model("m", (target(price=PRICE), target("second", price=DEARER)))


@pytest.mark.parametrize(
    ("path", "members", "member"),
    [
        ("/v1/chat/completions", {"service_tier": "priority"}, "service_tier"),
        ("/v1/chat/completions", {"service_tier": "Priority"}, "service_tier"),
        ("/v1/responses", {"service_tier": "fast"}, "service_tier"),
        ("/v1/messages", {"service_tier": "priority", "max_tokens": 9}, "service_tier"),
        ("/v1/messages", {"speed": "fast", "max_tokens": 9}, "speed"),
        ("/v1/embeddings", {"input": "text", "service_tier": "priority"}, "service_tier"),
    ],
)
def test_a_dearer_tier_without_a_price_is_refused_where_the_model_has_a_price(
    path: str, members: dict[str, Any], member: str
) -> None:
    def read_for(model: Model) -> ParsedRequest:
        return parse_request(body_of(**members), ENDPOINTS[path], CALLER, snapshot_with(model))

    with pytest.raises(FieldInvalid) as refused:
        read_for(PRICED)
    assert (refused.value.code, refused.value.param) == ("invalid_value", member)
    assert "price.tiers." in str(refused.value)
    assert read_for(SMALL).tier in {"priority", "fast"}


@pytest.mark.parametrize("tier", ["auto", "default", "standard_only", "flex", "scale", None])
def test_a_tier_that_costs_no_more_than_the_usual_one_needs_no_price(tier: str | None) -> None:
    assert parse_request(body_of(service_tier=tier), CHAT, CALLER, snapshot_with(PRICED)).tier == (tier or "")


def test_a_tier_is_accepted_where_one_route_has_a_price_for_it() -> None:
    parsed = parse_request(body_of(service_tier="priority"), CHAT, CALLER, snapshot_with(WITH_PRIORITY))
    assert parsed.tier == "priority"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
@pytest.mark.parametrize(
    "members",
    [
        {"models": ["openai/large"]},
        {"fallbacks": [{"model": "openai/large"}]},
        {"fallbacks": "openai/large"},
        {"context_window_fallbacks": [{"m": ["openai/large"]}]},
        {"content_policy_fallbacks": {}},
        {"user_config": {"model_list": [{"model_name": "m"}]}},
        {"safety_model": "openai/large"},
        {"Models": ["openai/large"]},
    ],
)
def test_an_upstream_cannot_be_told_to_choose_another_model(path: str, members: dict[str, Any]) -> None:
    body = body_of(input="text", max_tokens=9, **members)
    with pytest.raises(FieldInvalid) as refused:
        read_body(body, endpoint=ENDPOINTS[path])
    assert refused.value.param == next(iter(members)).lower()


@pytest.mark.parametrize(
    "name",
    ["model", "Model", "mo\\u0064el", "max_tokens", "n", "stream", "service_tier", "fallbacks", "messages", "plugins"],
)
def test_what_is_read_cannot_be_overridden(name: str) -> None:
    body = body_of()[:-1] + b',"extra_body": {"top_k": 5, "%b": 1}}' % name.encode()
    with pytest.raises(FieldInvalid) as refused:
        read_body(body)
    assert refused.value.param == "extra_body." + json.loads(f'"{name}"')


@pytest.mark.parametrize("extra", [b"null", b"[]", b'"model"', b"{}", b'{"google": {"model": "x"}, "top_k": 5}'])
def test_what_else_is_in_an_extra_body_passes(extra: bytes) -> None:
    assert read_body(body_of()[:-1] + b',"extra_body": %b}' % extra).model is SMALL


@pytest.mark.parametrize("empty", [b"null", b"[]", b"[ ]", b"[\n  ]"])
def test_no_other_models_are_none(empty: bytes) -> None:
    assert read_body(body_of()[:-1] + b',"models": %b, "fallbacks": %b}' % (empty, empty)).model is SMALL


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("caps", "cap"),
    [
        ({"n_predict": 50}, None),
        ({"max_tokens": 1, "n_predict": 50}, 50),
        ({"max_tokens": 60, "n_predict": 50}, 60),
        ({"max_tokens": 1, "n_predict": -1}, None),
        ({"n_predict": -1}, None),
        ({"n_predict": None}, None),
    ],
)
def test_what_a_server_obeys_in_place_of_the_cap_is_one(path: str, caps: dict[str, Any], cap: int | None) -> None:
    assert read_body(body_of(**caps), endpoint=ENDPOINTS[path]).output_cap == cap


def test_what_is_not_said_has_its_default() -> None:
    parsed = read_with()
    assert (parsed.stream, parsed.asks_usage, parsed.choices, parsed.user) == (False, False, 1, "")
    assert parsed.output_cap is None


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": ["m"]}, "model"),
        ({"model": "x" * 257}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user"}, {"content": "hi"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}, {"role": "User"}]}, "messages[1].role"),
        ({"messages": [{"role": None}]}, "messages[0].role"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "1"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"max_tokens": 10**400}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": [1]}, "max_completion_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.01}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": "all"}, "top_p"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": []}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ["a", 5]}, "stop[1]"),
        ({"stop": {"a": 1}}, "stop"),
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"user": 5}, "user"),
        ({"user": "x" * 513}, "user"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(members: dict[str, Any], param: str) -> None:
    with pytest.raises(FieldInvalid) as refused:
        read_body(json.dumps({"model": "m", "messages": [{"role": "user"}]} | members).encode())
    assert (refused.value.param, refused.value.status, refused.value.code) == (param, 400, "invalid_value")
    assert repr(param) in refused.value.message
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named(missing: str) -> None:
    members = {"model": "m", "messages": [{"role": "user"}]}
    del members[missing]
    with pytest.raises(FieldInvalid, match="is required") as refused:
        read_body(json.dumps(members).encode())
    assert refused.value.param == missing


@pytest.mark.parametrize(
    "members",
    [
        {"temperature": 0},
        {"temperature": 2},
        {"temperature": 1.5},
        {"top_p": 0},
        {"top_p": 1},
        {"max_tokens": 1},
        {"max_tokens": 2**31 - 1},
        {"stop": "end"},
        {"stop": []},
        {"stop": ["a", "b", "c", "d"]},
        {"stream": False},
        {"messages": [{"role": role} for role in ("system", "developer", "user", "assistant", "tool", "function")]},
        {"messages": [{"role": "user", "content": None, "name": 5, "anything": {"a": [1]}}]},
        {"seed": 10**400, "logit_bias": {"50256": -100}, "tools": "whatever", "unheard_of": [None]},
        {"service_tier": "flex", "metadata": {"role": "robot"}},
    ],
    ids=str,
)
def test_what_is_right_or_unknown_passes(members: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user"}]} | members).encode()
    assert read_body(body).members.body == body


def test_null_is_as_if_it_were_not_said() -> None:
    names = ["max_tokens", "max_completion_tokens", "temperature", "top_p", "stream", "stop", "n", "user"]
    parsed = read_with(**dict.fromkeys([*names, "stream_options"]))
    assert (parsed.stream, parsed.choices, parsed.output_cap) == (False, 1, None)


@pytest.mark.parametrize(
    ("caps", "model", "output_cap"),
    [
        ({}, "m", None),
        ({}, "large", 1_000),
        ({"max_tokens": 5}, "large", 5),
        ({"max_tokens": 5_000}, "large", 1_000),
        ({"max_completion_tokens": 5}, "m", 5),
        ({"max_tokens": 5, "max_completion_tokens": 9}, "m", 9),
        ({"max_tokens": 9, "max_completion_tokens": 5}, "m", 9),
        ({"max_tokens": 5, "max_completion_tokens": 5_000}, "large", 1_000),
    ],
)
def test_the_output_is_capped_by_client_and_model(caps: dict[str, int], model: str, output_cap: int | None) -> None:
    assert read_with(model=model, **caps).output_cap == output_cap


@pytest.mark.parametrize(
    "members",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 500}},
        {"thinking_budget": 500},
        {"reasoning": {"max_tokens": 500}},
        {"extra_body": {"google": {"thinking_config": {"thinking_budget": 500}}}},
    ],
)
def test_a_cap_has_to_stay_above_a_thinking_budget(members: dict[str, Any]) -> None:
    parsed = read_with(model="large", max_tokens=900, **members)
    assert (parsed.thinking_budget, parsed.least_output) == (500, 501)
    assert read_with(model="large", **members).least_output == 501
    with pytest.raises(FieldInvalid, match="max_output_tokens") as refused:
        read_with(model="brief", max_tokens=900, **members)
    assert refused.value.param == "max_tokens"


def test_a_cap_that_the_client_set_below_its_thinking_budget_is_its_own_affair() -> None:
    parsed = read_with(model="brief", max_tokens=500, thinking={"budget_tokens": 500})
    assert (parsed.thinking_budget, parsed.least_output, parsed.output_cap) == (500, 1, 200)
    # Without a cap the upstream gets none that could break the request.
    assert read_with(model="brief", thinking={"budget_tokens": 500}).output_cap == 200


@pytest.mark.parametrize(
    "value", [None, "enabled", 7, [], {}, {"budget_tokens": "many"}, {"budget_tokens": -1}, {"budget_tokens": True}]
)
def test_a_thinking_budget_that_is_no_number_is_the_upstreams_to_judge(value: object) -> None:
    parsed = read_with(thinking=value, max_tokens=9)
    assert (parsed.thinking_budget, parsed.least_output) == (0, 1)


def test_the_responses_api_takes_no_cap_below_sixteen() -> None:
    responses = ENDPOINTS["/v1/responses"]
    assert read_body(body_of(input="q"), endpoint=responses).least_output == 16


def test_an_alias_leads_to_its_model() -> None:
    parsed = read_with(model="large")
    assert (parsed.model, parsed.asked_model) == (LARGE, "large")


def test_an_escaped_name_of_a_model_is_that_model() -> None:
    assert read_body(body_of().replace(b'"m"', b'"\\u006d"')).asked_model == "m"


def refusal(model: str, caller: Caller) -> tuple[Any, ...]:
    with pytest.raises(ModelUnknown) as refused:
        read_body(body_of(model=model), caller=caller)
    error = refused.value
    return error.message, error.param, error.status, error.type, error.code, error.retry_after_ms, error.why


def test_forbidden_and_unknown_models_are_told_alike() -> None:
    narrow = msgspec.structs.replace(CALLER, models=(("m",),))
    for name in ("large", "openai/large"):
        forbidden = refusal(name, narrow)
        unknown = refusal(name[::-1], narrow)
        assert (forbidden[-1], unknown[-1]) == ("model_forbidden", "model_unknown")  # For the log alone.
        assert forbidden[:-1] == (unknown[0].replace(name[::-1], name), *unknown[1:-1])
        assert forbidden[1:5] == ("model", 404, "invalid_request_error", "model_not_found")


@pytest.mark.parametrize(
    "options",
    [b'{"include_usage":true,"include_usage":false}', b'{"include_usage":true,"\\u0069nclude_usage":false}'],
)
def test_usage_cannot_be_hidden_by_saying_it_twice(options: bytes) -> None:
    body = body_of(stream=True)[:-1] + b',"stream_options":' + options + b"}"
    with pytest.raises(BodyUnreadable, match="twice"):
        read_body(body)


def test_the_models_input_is_counted_and_nothing_else() -> None:
    small, large = read_with(metadata={"x": "y" * 10_000}), read_with(tools=[{"x": "y" * 10_000}])
    assert small.input_size.text < 100
    assert large.input_size.text > 10_000


def test_a_message_of_a_client_is_not_quoted_at_length() -> None:
    role = "x' - at `$.model" + "A" * 100_000
    with pytest.raises(FieldInvalid) as refused:
        read_with(messages=[{"role": role}])
    assert refused.value.param == "messages[0].role"
    assert len(refused.value.message) < 300


def test_a_client_cannot_put_words_into_the_explanation() -> None:
    with pytest.raises(FieldInvalid) as refused:
        read_with(messages=[{"role": "Object missing required field `model`"}])
    assert refused.value.param == "messages[0].role"


@pytest.mark.parametrize("depth", [*range(985, 1_005), 100_000])
def test_deep_nesting_is_refused_wherever_it_stands(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    for body in (
        body_of()[:-1] + b',"x":' + deep + b"}",
        b'{"model":"m","messages":[{"role":"user","content":' + deep + b"}]}",
        b'{"model":"m","messages":' + deep + b"}",
        b'{"stream_options":{"x":' + deep + b'},"model":"m","messages":[{"role":"user"}]}',
    ):
        try:
            read_body(body)
        except (BodyUnreadable, FieldInvalid):
            continue
        assert depth < 1_000 or sys.version_info >= (3, 12)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
caps = ["max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of"]
inputs = ["messages", "input", "prompt", "system", "tools", "query", "documents"]
known = [*caps, *inputs, "model", "temperature", "top_p", "stream", "stop", "user", "stream_options", "metadata"]
endpoints = st.sampled_from([row for row in ENDPOINTS.values() if row.fields is not None])


def tried(body: bytes, endpoint: Endpoint) -> None:
    """Whatever is sent: it is read, or it is an error of the caller that can be shown."""
    try:
        parsed = read_body(body, endpoint=endpoint)
    except CallerError as error:
        shown = msgspec.json.encode([error.message, error.param])
    else:
        assert parsed.choices >= 1
        least = 0 if endpoint.name == "completions" else 1  # For the likelihood of a prompt.
        assert parsed.output_cap is None or least <= parsed.output_cap < 2**31
        shown = msgspec.json.encode([parsed.user, parsed.asked_model])
    assert len(shown) < 1_000


@example({"max_tokens": 0}, ENDPOINTS["/v1/completions"])
@given(st.dictionaries(st.sampled_from(known), json_values, max_size=6), endpoints)
def test_no_values_of_known_fields_raise_anything_else(members: dict[str, Any], endpoint: Endpoint) -> None:
    tried(json.dumps({"model": "m"} | members).encode(), endpoint)


damage = st.binary(max_size=3) | st.sampled_from([b'"', b"[", b"}", b"\\u", b"null", b"1e9"])


@given(st.data(), endpoints)
def test_no_damage_to_a_good_body_raises_anything_else(data: st.DataObject, endpoint: Endpoint) -> None:
    body = bytearray(body_of(stream=True, stop=["a"], max_tokens=5, stream_options={"include_usage": True}, input="x"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"[", b"}"])
        )
    tried(bytes(body), endpoint)


@given(st.binary(max_size=60), endpoints)
def test_no_bytes_raise_anything_else(body: bytes, endpoint: Endpoint) -> None:
    tried(body, endpoint)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/embeddings"])
@pytest.mark.parametrize("options", ["yes", [], 1])
def test_an_endpoint_without_stream_options_passes_them_on_unread(path: str, options: Any) -> None:
    members = {"input": "text", "max_tokens": 5, "stream_options": options}
    parsed = read_body(body_of(**members), endpoint=ENDPOINTS[path])
    assert parsed.members.value("stream_options") == msgspec.json.encode(options)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","MODEL":"openai/large","messages":[{"role":"user"}]}',
        b'{"Model":"openai/large","model":"m","messages":[{"role":"user"}]}',
        b'{"model":"m","\\u017ftream":true,"messages":[{"role":"user"}]}',
        b'{"model":"m","max_to\\u212aens":5,"messages":[{"role":"user"}]}',
        b'{"model":"m","Tools":[],"messages":[{"role":"user"}]}',
        b'{"model":"m","messages":[{"role":"user"}],"stream_options":{"include_usage":true,"Include_Usage":false}}',
    ],
)
def test_a_name_that_an_upstream_may_take_for_one_that_is_read_is_refused(body: bytes) -> None:
    with pytest.raises(FieldInvalid, match="can be taken for"):
        read_body(body)


def test_names_that_one_api_takes_are_still_judged_by_the_next() -> None:
    """Also when a body with these names has been read before, and when one has been refused."""
    body = body_of(input="Hello", Max_Output_Tokens=20)
    assert read_body(body).output_cap is None
    for _ in range(2):
        with pytest.raises(FieldInvalid, match="can be taken for 'max_output_tokens'"):
            read_body(body, endpoint=ENDPOINTS["/v1/responses"])


def test_bodies_with_the_same_names_are_measured_each_for_itself() -> None:
    sizes = [read_with(prompt=text, messages=[{"role": "user", "content": text}]).input_size for text in ("", "Hello")]
    assert sizes[1].text - sizes[0].text == 2 * len("Hello")


def test_a_prompt_that_ends_within_a_character_is_read_and_passed_on() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"wave \\ud83d"}],"max_tokens":7}'
    parsed = read_body(body)
    assert (parsed.members.body, parsed.output_cap, parsed.content_type) == (body, 7, "application/json")


@pytest.mark.parametrize(
    ("members", "choices"),
    [({}, 1), ({"prompt": None}, 1), ({"prompt_embeds": "QUJD"}, 1), ({"prompt": ["a", "b"], "n": 3}, 6)],
)
def test_a_completion_may_have_no_prompt(members: dict[str, Any], choices: int) -> None:
    """OpenAI's begins a text then, and vLLM's may have it as embeddings."""
    body = json.dumps({"model": "m", **members}).encode()
    assert read_body(body, endpoint=ENDPOINTS["/v1/completions"]).choices == choices


def test_a_cap_that_its_api_requires_is_not_said_to_be_one_to_leave_out() -> None:
    said = {}
    for path in ("/v1/chat/completions", "/v1/messages"):
        with pytest.raises(FieldInvalid) as refused:
            parse_request(body_of(max_tokens=0), ENDPOINTS[path], CALLER, snapshot_with(SMALL))
        said[path] = refused.value.message
    assert said["/v1/chat/completions"].endswith("Leave it out, if you do not want to limit the answer.")
    assert said["/v1/messages"].endswith("Send how many tokens the answer may have at most; this API requires it.")
