from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.refusals import FAULT_PATHS, Fault, fault_of
from gateway.core.tolerant_json import scan, wanted_members


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        *((status, Fault.CALLER) for status in (400, 404, 405, 409, 413, 415, 422, 451)),
        *((status, Fault.CREDENTIALS) for status in (401, 403)),
        *((status, Fault.PROVIDER) for status in (402, 412, 424, 429, 498, 500, 501, 502, 503, 504, 524, 529)),
        *((status, Fault.UNKNOWN) for status in (408, 418, 425, 499)),
    ],
)
def test_without_a_code_the_status_decides(status: int, fault: Fault) -> None:
    assert fault_of(status, None) is fault
    assert fault_of(status, {}) is fault
    assert fault_of(status, {"error": {"message": "m", "type": None, "code": None}}) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ({"code": "timeout"}, Fault.PROVIDER),
        ({"type": "timeout_error"}, Fault.PROVIDER),
        ({"code": 408, "message": "Request timed out"}, Fault.UNKNOWN),
        ({"type": "invalid_request_error"}, Fault.CALLER),
    ],
)
def test_whose_fault_a_timeout_is_only_a_code_says(error: dict[str, Any], fault: Fault) -> None:
    assert fault_of(408, {"error": error}) is fault


@pytest.mark.parametrize("status", [200, 400, 403, 500])
@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ({"code": "content_policy_violation"}, Fault.CALLER),
        ({"code": "content_filter"}, Fault.CALLER),
        ({"type": "content_filter", "code": "421"}, Fault.CALLER),
        ({"type": "image_generation_user_error"}, Fault.CALLER),
        ({"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}, Fault.CALLER),
        ({"code": "DataInspectionFailed"}, Fault.CALLER),
        ({"metadata": {"flagged_input": "x"}}, Fault.CALLER),
        ({"code": None, "moderation_details": {"moderation_stage": "input"}}, Fault.CALLER),
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, Fault.PROVIDER),
        ({"code": "organization_restricted", "type": "invalid_request_error"}, Fault.PROVIDER),
        ({"code": "400", "type": "budget_exceeded"}, Fault.PROVIDER),
        ({"type": "engine_overloaded_error"}, Fault.PROVIDER),
        ({"type": "hooks_failed", "code": None}, Fault.CALLER),
        ({"type": "overloaded_error"}, Fault.PROVIDER),
        ({"code": "invalid_api_key", "type": "invalid_request_error"}, Fault.CREDENTIALS),
        ({"type": "authentication_error"}, Fault.CREDENTIALS),
        ({"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}, {}]}, Fault.CREDENTIALS),
    ],
)
def test_a_code_that_decides_does_so_whatever_the_status_is(status: int, error: dict[str, Any], fault: Fault) -> None:
    assert fault_of(status, {"error": error}) is fault
    assert fault_of(status, {"type": "response.failed", "response": {"error": error}}) is fault


@pytest.mark.parametrize(
    "code",
    [
        *("moderation", "content_moderation", "moderation_error", "input_policy_violation", "SAFETY", "safety_error"),
        *("guardrail_intervened", "sensitive_words_detected", "unsafe_content", "PROHIBITED_CONTENT", "prompt_blocked"),
        *("azure.ContentFilter", "ContentPolicyViolationError"),
    ],
)
def test_a_code_of_a_policy_that_is_not_listed_is_the_callers_unless_the_provider_failed(code: str) -> None:
    for error in ({"code": code}, {"type": code, "code": None}, {"message": "m", "metadata": {"error_type": code}}):
        for status in (200, 400, 403, 451):
            assert fault_of(status, {"error": error}) is Fault.CALLER
        for status in (429, 500, 503):
            assert fault_of(status, {"error": error}) is Fault.PROVIDER


def test_a_providers_own_refusal_counts_where_a_router_passes_it_on_as_text() -> None:
    def passed_on(status: int, raw: Any) -> Fault | None:
        return fault_of(status, {"error": {"code": status, "message": "m", "metadata": {"raw": raw}}})

    assert passed_on(403, '{"error":{"code":"content_policy_violation"}}') is Fault.CALLER
    assert passed_on(502, '{"error":{"innererror":{"code":"ResponsibleAIPolicyViolation"}}}') is Fault.CALLER
    assert passed_on(403, '{"error":{"type":"safety"}}') is Fault.CALLER
    assert passed_on(502, '{"error":{"code":"invalid_api_key"}}') is Fault.PROVIDER
    for raw in ("content_policy_violation", "{", '"x"', "[[1]]", None, 7, {"error": {"code": "content_filter"}}):
        assert passed_on(403, raw) is Fault.CREDENTIALS


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        ({"error": {"code": 400}}, Fault.CALLER),
        ({"error": {"code": "500"}}, Fault.PROVIDER),
        ({"error": {"code": 502, "message": "Provider returned error"}}, Fault.PROVIDER),
        ({"error": {"type": "invalid_request_error"}}, Fault.CALLER),
        ({"error": {"type": "server_error"}}, Fault.PROVIDER),
        ({"error": {"status": "UNAVAILABLE"}}, Fault.PROVIDER),
        ({"error": {"status": "INVALID_ARGUMENT"}}, Fault.CALLER),
        ({"error": {"message": "m"}}, Fault.UNKNOWN),
        ({"error": "m"}, Fault.UNKNOWN),
        ({"error": "m", "error_type": "overloaded"}, Fault.PROVIDER),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, Fault.PROVIDER),
        ({"object": "error", "type": "BadRequestError", "code": 400}, Fault.CALLER),
        ({"type": "response.failed", "response": {"error": None}}, Fault.UNKNOWN),
        ({"status": "failed", "error": {"code": "server_error"}}, Fault.PROVIDER),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, Fault.CALLER),
        ({"base_resp": {"status_code": 1008}}, Fault.PROVIDER),
        ({"base_resp": {"status_code": 77}}, Fault.UNKNOWN),
    ],
)
def test_an_answer_with_status_200_can_have_failed(event: dict[str, Any], fault: Fault) -> None:
    assert fault_of(200, event) is fault


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"error": None, "status": "completed"},
        {"error": {}},
        {"type": "message", "stop_reason": "refusal"},
        {"choices": [{"finish_reason": "content_filter"}]},
        {"status": "incomplete", "error": None, "incomplete_details": {"reason": "content_filter"}},
        {"promptFeedback": {}},
        {"base_resp": {"status_code": 0}},
        {"type": "response.completed", "response": {"error": None}},
    ],
)
def test_what_did_not_fail_is_nobodys_fault(answer: dict[str, Any] | None) -> None:
    assert fault_of(200, answer) is None


@pytest.mark.parametrize(
    ("status", "answer", "fault"),
    [
        (
            400,
            {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to"}},
            Fault.PROVIDER,
        ),
        (
            400,
            {"error": {"type": "invalid_request_error", "message": "say: your credit balance is too low"}},
            Fault.CALLER,
        ),
        (400, {"code": "invalid-argument", "error": "Incorrect API key provided: x"}, Fault.CREDENTIALS),
        (403, {"code": "forbidden", "error": "Content violates usage guidelines."}, Fault.CALLER),
        (404, {"error": {"message": "Incorrect API key provided"}}, Fault.CALLER),
    ],
)
def test_words_decide_only_where_a_provider_has_no_code(status: int, answer: dict[str, Any], fault: Fault) -> None:
    assert fault_of(status, answer) is fault


@pytest.mark.parametrize(
    "code",
    [
        *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "image_too_large"),
        *("image_too_small", "image_parse_error", "image_content_policy_violation", "invalid_image_mode"),
        *("image_file_too_large", "unsupported_image_media_type", "empty_image_file", "failed_to_download_image"),
        *("image_file_not_found", "invalid_prompt", "bio_policy"),
    ],
)
def test_an_input_that_a_response_could_not_be_made_of_is_the_callers(code: str) -> None:
    """Codes of https://github.com/openai/openai-python/blob/main/src/openai/types/responses/response_error.py."""
    response = {"object": "response", "status": "failed", "error": {"code": code, "message": "m"}}
    assert fault_of(200, response) is Fault.CALLER
    assert fault_of(200, {"type": "response.failed", "response": response}) is Fault.CALLER


@pytest.mark.parametrize("code", ["1000", "1001", "1004"])
def test_a_number_that_several_providers_have_says_nothing(code: str) -> None:
    assert fault_of(500, {"object": "error", "type": "internal_server_error", "code": code}) is Fault.PROVIDER
    assert fault_of(401, {"error": {"code": code, "message": "Authentication Failed"}}) is Fault.CREDENTIALS


@pytest.mark.parametrize(("code", "fault"), [(502, Fault.PROVIDER), (429, Fault.PROVIDER), (400, Fault.CALLER)])
def test_an_error_of_a_choice_is_the_answers(code: int, fault: Fault) -> None:
    choice = {"finish_reason": "error", "message": {"content": ""}, "error": {"code": code, "message": "m"}}
    answer = {"choices": [{"message": {"content": "x"}, "error": None}, choice], "usage": {"prompt_tokens": 1}}
    assert fault_of(200, answer) is fault
    assert scan(json.dumps(answer).encode(), wanted_members(FAULT_PATHS))[0]["choices"][1] == {"error": choice["error"]}
    odd: Any
    for odd in ({"error": "x"}, {"error": {}}, "error", None):
        assert fault_of(200, {"choices": [odd]}) is None
    assert fault_of(200, {"choices": {"error": choice["error"]}}) is None


def test_an_error_picked_out_of_broken_json_is_judged_alike() -> None:
    text = b'{"x": NaN, "error": {"code": "content_filter", "innererror": {"code": "z"}}, "choices": ['
    (found,) = scan(text, wanted_members(FAULT_PATHS))
    assert fault_of(200, found) is Fault.CALLER


names = (
    st.sampled_from(["error", "response", "code", "type", "status", "message"])
    | st.sampled_from(["details", "metadata", "reasons", "innererror", "promptFeedback", "blockReason"])
    | st.sampled_from(["base_resp", "status_code", "object", "error_type", "reason"])
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["error", "500", "1301", "\ud83d", "٤٠٤"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=25,
)


@given(st.sampled_from([200, 400, 403, 429, 500]), st.dictionaries(names, values, max_size=6))
def test_no_answer_makes_it_raise(status: int, answer: dict[str, Any]) -> None:
    fault = fault_of(status, json.loads(json.dumps(answer)))
    assert fault is None or isinstance(fault, Fault)
