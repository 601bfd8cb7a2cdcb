from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.refusals import Fault
from gateway.core.upstream_json import (
    SCANNED_MAX,
    Nullable,
    ends_choice,
    error_message,
    fault_of_body,
    has_choice,
    object_of,
    reported_fault,
)


def of(text: str) -> dict[str, Any]:
    members = object_of(text.encode())
    assert members is not None
    return members


@pytest.mark.parametrize(
    ("text", "null"),
    [
        (b'{"a":1}', True),
        (b'{"usage":null}', True),
        (b'{"usage": null}', True),
        (b'{"usage":null}{"usage":null}', True),
        (b'{"usage":{}}', False),
        (b'{"usage":null}{"usage":{}}', False),
        (b'{"usage" :null}', False),
        (b'{"a":"\\"usage\\":1"}', True),
    ],
)
def test_a_member_without_a_value_is_told_from_one_with(text: bytes, null: bool) -> None:
    assert Nullable("usage").is_null(text) is null


@pytest.mark.parametrize(
    ("choices", "chosen", "ends"),
    [
        ("[]", False, False),
        ("null", False, False),
        ('[{"finish_reason":null}]', True, False),
        ('[{"finish_reason":""}]', True, False),
        ("[{}]", True, False),
        ('[{"finish_reason":"stop"}]', True, True),
        ('[{"finish_reason":null},{"finish_reason":"length"}]', True, True),
        ('["stop"]', True, False),
        ('{"finish_reason":"stop"}', True, False),
        ("5", True, False),
    ],
)
def test_choices_tell_whether_one_ends(choices: str, chosen: bool, ends: bool) -> None:
    chunk = of(f'{{"choices":{choices}}}')
    assert (has_choice(chunk), ends_choice(chunk)) == (chosen, ends)


def test_a_chunk_without_choices_has_none() -> None:
    assert (has_choice(of("{}")), ends_choice(of("{}"))) == (False, False)


@pytest.mark.parametrize(
    "text", ['{"a":"\\ud83d"}', '{"a":-Infinity}', '{"a":NaN}', '{"a":"b\tc"}', '\ufeff{"a":1}'], ids=range(5)
)
def test_what_servers_send_beyond_json_is_read(text: str) -> None:
    assert list(of(text)) == ["a"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long"}}', "too long"),
        (b'{"message":"too long"}', "too long"),
        (b'{"error":"too long"}', "it gave no reason."),
        (b'{"error":{"message":5}}', "it gave no reason."),
        (b"<html>", "it gave no reason."),
        (b"", "it gave no reason."),
    ],
)
def test_an_error_body_says_what_it_can(body: bytes, message: str) -> None:
    assert error_message(body) == message


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_report_nothing(body: bytes) -> None:
    members = object_of(body)
    assert members is None or isinstance(members, dict)
    error_message(body)
    error_message(b'{"error":' + body + b"}")


POLICY = b'{"error":{"code":"content_policy_violation","message":"flagged"}'


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (POLICY + b"}", Fault.CALLER),
        (b"\xef\xbb\xbf" + POLICY + b"}", Fault.CALLER),
        (b"[" + POLICY + b"}]", Fault.CALLER),
        (POLICY + b',"more":"\\ud800"}', Fault.CALLER),
        (POLICY + b',"more":"is cut', Fault.CALLER),
        (POLICY + b',"more":[' + b"1," * SCANNED_MAX, Fault.CALLER),
        (b"[]", Fault.PROVIDER),
        (b"[1]", Fault.PROVIDER),
        (b"<html>", Fault.PROVIDER),
        (b"", Fault.PROVIDER),
        (b"[" * 100_000, Fault.PROVIDER),
    ],
)
def test_the_body_of_an_error_says_whose_fault_it_is_as_far_as_it_can_be_read(body: bytes, fault: Fault) -> None:
    assert fault_of_body(500, body) is fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (POLICY.decode() + "}", Fault.CALLER),
        ('{"type":"error","code":"server_error"}', Fault.PROVIDER),
        ('{"object":"error","type":"BadRequestError","code":400}', Fault.CALLER),
        ('{"type":"response.failed","response":{"error":{"code":"invalid_prompt"}}}', Fault.CALLER),
        ('{"type":"response.failed","response":{"error":null}}', Fault.UNKNOWN),
        ('{"type":"response.done","response":{"status":"failed","error":null}}', Fault.UNKNOWN),
        ('{"promptFeedback":{"blockReason":"SAFETY"}}', Fault.CALLER),
        ('{"base_resp":{"status_code":1026}}', Fault.CALLER),
        ('{"base_resp":{"status_code":0},"choices":[]}', None),
        ('{"promptFeedback":{},"candidates":[]}', None),
        ('{"type":"response.completed","response":{"error":null}}', None),
        ('{"object":"response","error":null,"code":"x"}', None),
        ('{"choices":[]}', None),
    ],
)
def test_an_event_says_whose_fault_its_failure_is(text: str, fault: Fault | None) -> None:
    assert reported_fault(of(text)) is fault
