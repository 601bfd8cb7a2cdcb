"""Decides whose fault a failure is that an upstream reports. The rules are data.

An upstream's health must not suffer from what callers send, and a caller must not be blamed for the gateway's own key.
Providers report a failure in many places: the status, a code or type in the body, an event of a stream that began with
200. `fault_of` reads first the codes that decide whatever the status is, then the status, then the codes that are too
general to override one. The words of a message decide only if a provider gives no code at all (`_MESSAGES`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from gateway.core.json_object import Path
from gateway.core.usage_report import Members, value_at


class Fault(StrEnum):
    """Who caused a failure. CREDENTIALS: the provider rejects the gateway's own key, or its right to the model."""

    CALLER = "caller"
    CREDENTIALS = "credentials"
    PROVIDER = "provider"
    UNKNOWN = "unknown"


FAULT_PATHS: tuple[Path, ...] = (
    ("type",),
    ("object",),
    ("code",),
    ("message",),
    ("error_type",),
    ("status_code",),
    ("error",),
    ("response", "error"),
    ("response", "status"),
    ("choices", "*", "error"),
    ("promptFeedback",),
    ("base_resp",),
)
"""The members of an answer or event that `fault_of` reads, for a `JsonScanner`."""

_FAILURE_MEMBERS = frozenset({"error", "response", "promptFeedback", "base_resp"})
_FAILURE_TYPES = ("error", "response.failed")

_CODE_PATHS: tuple[Path, ...] = (
    ("code",),
    ("type",),
    ("status",),
    ("innererror", "code"),
    ("inner_error", "code"),
    ("provider_specific_fields", "innererror", "code"),
    ("details", "*", "reason"),
    ("metadata", "error_type"),
)
"""Where an error object has codes: OpenAI's and Anthropic's members, Azure's inner error (also as LiteLLM passes it
on), Google's ErrorInfo, OpenRouter's metadata."""

_STATUS_PATHS: tuple[Path, ...] = (("status_code",), ("code",), ("status",))
"""Where an error in a 200 has the status that it would have had."""

_CALLER_MARKS: tuple[Path, ...] = (("moderation_details",), ("metadata", "reasons"), ("metadata", "flagged_input"))
"""Members of an error that only a moderation refusal has: OpenAI's images, OpenRouter's 403
(https://openrouter.ai/docs/api/reference/errors-and-debugging)."""


def _codes(fault: Fault, *codes: str) -> dict[str, Fault]:
    return dict.fromkeys(codes, fault)


_DECIDING_CODES: dict[str, Fault] = {
    # OpenAI: https://platform.openai.com/docs/guides/error-codes, and of the Responses API's `error.code`.
    **_codes(Fault.CALLER, "content_policy_violation", "content_policy", "moderation_blocked", "invalid_prompt"),
    **_codes(Fault.CALLER, "cyber_policy", "bio_policy", "image_generation_user_error", "safety_violation"),
    **_codes(Fault.CALLER, "context_length_exceeded", "string_above_max_length"),
    **_codes(Fault.CALLER, "invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url"),
    **_codes(Fault.CALLER, "image_too_large", "image_too_small", "image_parse_error", "invalid_image_mode"),
    **_codes(Fault.CALLER, "image_file_too_large", "unsupported_image_media_type", "empty_image_file"),
    **_codes(Fault.CALLER, "failed_to_download_image", "image_file_not_found"),
    **_codes(Fault.CREDENTIALS, "invalid_api_key", "account_deactivated", "invalid_organization", "key_expired"),
    **_codes(Fault.PROVIDER, "insufficient_quota", "billing_hard_limit_reached", "billing_not_active"),
    # Azure: https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter
    **_codes(Fault.CALLER, "content_filter", "responsibleaipolicyviolation"),
    # Anthropic: https://docs.claude.com/en/api/errors
    **_codes(Fault.CREDENTIALS, "authentication_error"),
    **_codes(Fault.PROVIDER, "billing_error", "overloaded_error"),
    # Google: https://cloud.google.com/apis/design/errors and https://ai.google.dev/gemini-api/docs/troubleshooting
    **_codes(Fault.CREDENTIALS, "api_key_invalid", "api_key_expired", "api_key_service_blocked", "unauthenticated"),
    **_codes(Fault.CREDENTIALS, "api_key_http_referrer_blocked", "api_key_ip_address_blocked", "consumer_invalid"),
    **_codes(Fault.PROVIDER, "failed_precondition", "billing_disabled", "service_disabled"),
    # Groq: https://console.groq.com/docs/errors
    **_codes(Fault.CALLER, "tool_use_failed", "json_validate_failed"),
    **_codes(Fault.PROVIDER, "organization_restricted", "blocked_api_access", "model_terms_required"),
    # DashScope: https://help.aliyun.com/zh/model-studio/error-code
    **_codes(Fault.CALLER, "datainspectionfailed", "data_inspection_failed", "ipinfringementsuspect"),
    **_codes(Fault.CREDENTIALS, "invalidapikey"),
    **_codes(Fault.PROVIDER, "arrearage"),
    # Moonshot: https://platform.moonshot.ai/docs/api/chat
    **_codes(Fault.CREDENTIALS, "invalid_authentication_error", "incorrect_api_key_error"),
    **_codes(Fault.PROVIDER, "exceeded_current_quota_error", "engine_overloaded_error"),
    # Z.ai: https://docs.z.ai/api-reference/api-code
    **_codes(Fault.CALLER, "1301"),
    **_codes(Fault.PROVIDER, "1113", "1302", "1305"),
    # LiteLLM's proxy: https://docs.litellm.ai/docs/proxy/users
    **_codes(Fault.PROVIDER, "budget_exceeded"),
    # Portkey: https://portkey.ai/docs/product/guardrails
    **_codes(Fault.CALLER, "hooks_failed"),
    # Fireworks: https://docs.fireworks.ai/guides/inference-error-codes
    **_codes(Fault.PROVIDER, "precondition_failed"),
}
"""Codes that decide whatever the status is, in lower case."""

_GENERAL_CODES: dict[str, Fault] = {
    # OpenAI's, vLLM's and Anthropic's types.
    **_codes(Fault.CALLER, "invalid_request_error", "not_found_error", "request_too_large", "badrequesterror"),
    **_codes(Fault.CALLER, "notfounderror", "invalid_value", "model_not_found", "unprocessableentityerror"),
    **_codes(Fault.CREDENTIALS, "permission_error"),
    **_codes(Fault.PROVIDER, "server_error", "api_error", "internal_server_error", "internalservererror", "overloaded"),
    **_codes(
        Fault.PROVIDER, "rate_limit_error", "rate_limit_exceeded", "timeout_error", "vector_store_timeout", "timeout"
    ),
    **_codes(
        Fault.PROVIDER, "service_unavailable_error", "unavailable_error", "too_many_requests", "capacity_exceeded"
    ),
    # Google's canonical codes.
    **_codes(Fault.CALLER, "invalid_argument", "out_of_range", "not_found"),
    **_codes(Fault.CREDENTIALS, "permission_denied"),
    **_codes(
        Fault.PROVIDER, "resource_exhausted", "internal", "unavailable", "deadline_exceeded", "unknown", "aborted"
    ),
}
"""Codes that decide where there is no status of a failure, in lower case."""

_POLICY_PARTS = (
    *("moderation", "content_filter", "contentfilter", "content_policy", "contentpolicy", "policy_violation"),
    *("policyviolation", "safety", "guardrail", "sensitive", "unsafe", "prohibited_content", "prompt_blocked"),
)
"""What codes of refusals by a policy have in them, in lower case, for providers that are not listed above. They decide
unless the status says that the provider failed: its filter itself may be out."""

_STATUSES: dict[int, Fault] = {
    **dict.fromkeys((400, 404, 405, 406, 409, 410, 411, 413, 414, 415, 416, 422, 431, 451), Fault.CALLER),
    **dict.fromkeys((401, 403, 407), Fault.CREDENTIALS),
    # 402 and 412: the account; 424: a model behind Bedrock; 498: Groq's flex capacity.
    **dict.fromkeys((402, 412, 424, 429, 498), Fault.PROVIDER),
}

_MESSAGES: dict[int, dict[str, Fault]] = {
    400: {
        # Anthropic's code is that of any wrong request (https://docs.claude.com/en/api/errors).
        "your credit balance is too low": Fault.PROVIDER,
        "you have reached your specified api usage limits": Fault.PROVIDER,
        "you have reached your specified workspace api usage limits": Fault.PROVIDER,
        "this organization has been disabled": Fault.PROVIDER,
        # xAI's is that of any wrong argument (https://docs.x.ai/docs/key-information/debugging).
        "incorrect api key provided": Fault.CREDENTIALS,
    },
    # xAI's usage guidelines: its code is that of a key without permission.
    403: {"content violates usage guidelines": Fault.CALLER},
    # LiteLLM gives some of its providers' refusals no other code than the status.
    500: {"litellm.contentpolicyviolationerror": Fault.CALLER},
}
"""Beginnings of messages, in lower case, of providers that give these failures no code of their own."""

_MINIMAX: dict[int, Fault] = {
    **dict.fromkeys((1026, 1027, 1039, 1042, 2013), Fault.CALLER),
    **dict.fromkeys((1004, 2049), Fault.CREDENTIALS),
    **dict.fromkeys((1000, 1001, 1002, 1008, 1013, 1024, 1033, 2056), Fault.PROVIDER),
}
"""`base_resp.status_code` of an answer with status 200 (https://platform.minimax.io/docs/api-reference/errorcode)."""


def fault_of(status: int, answer: Members | None) -> Fault | None:
    """Whose fault an answer's failure is; None where nothing failed.

    `status` is that of the HTTP answer, `answer` its decoded body or the decoded data of one event, as far
    as it is JSON.
    """
    answer = answer or {}
    if status < 400 and _reports_nothing(answer):
        return None
    error = _error_in(answer)
    if error is None:
        if status < 400:
            return _fault_without_error(answer)
        error = answer
    codes = list(_codes_in(error, answer))
    if any(value_at(error, path) for path in _CALLER_MARKS):
        return Fault.CALLER
    decided = next((_DECIDING_CODES[code] for code in codes if code in _DECIDING_CODES), None)
    reported = status if status >= 400 else _status_in(error)
    codes_within = _codes_in_text(value_at(error, ("metadata", "raw")))
    if decided is None and any(_DECIDING_CODES.get(code) is Fault.CALLER for code in codes_within):
        decided = Fault.CALLER
    if decided is None and reported < 500 and reported != 429 and _names_policy([*codes, *codes_within]):
        decided = Fault.CALLER
    decided = decided or _by_message(reported, error, answer) or _by_status(reported)
    general = next((_GENERAL_CODES[code] for code in codes if code in _GENERAL_CODES), Fault.UNKNOWN)
    return decided or general


def _reports_nothing(answer: Members) -> bool:
    """Whether an answer has none of the members by which one without a status reports a failure: nearly every one."""
    if not _FAILURE_MEMBERS.isdisjoint(answer) or answer.get("type") in _FAILURE_TYPES:
        return False
    if answer.get("object") == "error":
        return False
    return "choices" not in answer or _error_of_a_choice(answer["choices"]) is None


def _error_of_a_choice(choices: Any) -> Members | None:
    """OpenRouter's, of a provider that failed (https://openrouter.ai/docs/api/reference/overview)."""
    if type(choices) is list:
        for choice in choices:
            if type(choice) is dict and "error" in choice and type(error := choice["error"]) is dict and error:
                return error
    return None


def _error_in(answer: Members) -> Members | None:
    """The error object of an answer or event. An error that is a text has its codes beside it."""
    for path in (("error",), ("response", "error")):
        error = value_at(answer, path)
        if error:
            return error if isinstance(error, dict) else answer
    if (error := _error_of_a_choice(answer.get("choices"))) is not None:
        return error
    # vLLM's and Mistral's errors are at the top, as are the Responses API's error events.
    return answer if "error" in (answer.get("object"), answer.get("type")) else None


def _fault_without_error(answer: Members) -> Fault | None:
    if value_at(answer, ("promptFeedback", "blockReason")):
        return Fault.CALLER
    number = value_at(answer, ("base_resp", "status_code"))
    if isinstance(number, int) and number:
        return _MINIMAX.get(number, Fault.UNKNOWN)
    has_failed = answer.get("type") == "response.failed" or value_at(answer, ("response", "status")) == "failed"
    return Fault.UNKNOWN if has_failed else None


def _codes_in(error: Members, answer: Members) -> Iterator[str]:
    values = [value_at(error, path) for path in _CODE_PATHS]
    values += [answer.get("code"), answer.get("error_type")]
    yield from (value.lower() for value in values if isinstance(value, str))


def _codes_in_text(raw: Any) -> list[str]:
    """The codes of a provider's error that OpenRouter passes on as the text that it was
    (https://openrouter.ai/docs/api/reference/errors-and-debugging). They can only put it down to the caller:
    a key that OpenRouter has at a provider is not the gateway's."""
    try:
        answer = msgspec.json.decode(raw) if isinstance(raw, str) else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
    error = _error_in(answer) if isinstance(answer, dict) else None
    return list(_codes_in(error, error)) if error is not None else []


def _names_policy(codes: Iterable[str]) -> bool:
    return any(part in code for code in codes for part in _POLICY_PARTS)


def _status_in(error: Members) -> int:
    for path in _STATUS_PATHS:
        value = value_at(error, path)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return 0


def _by_status(status: int) -> Fault | None:
    return Fault.PROVIDER if status >= 500 else _STATUSES.get(status)


def _by_message(status: int, error: Members, answer: Members) -> Fault | None:
    known: Mapping[str, Fault] = _MESSAGES.get(status, {})
    messages: list[Any] = [error.get("message"), answer.get("error")] if known else []
    for message in messages:
        text = message[:64].lower() if isinstance(message, str) else ""
        for beginning, fault in known.items():
            if text.startswith(beginning):
                return fault
    return None
