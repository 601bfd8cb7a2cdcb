from __future__ import annotations

import json

import pytest

from gateway.core.end_users import OTHER_USERS, EndUserCounts, EndUserRule, account_in, unnamed_user, user_in_header
from gateway.core.errors import FieldInvalid
from tests.unit.fakes import NOW_MS

SHA, ACCOUNT, SESSION = "0f" * 32, "1a2b3c4d-0000-4000-8000-000000000001", "9f8e7d6c-0000-4000-8000-000000000002"


@pytest.mark.parametrize(
    ("user_id", "user"),
    [
        (f"user_{SHA}_account_{ACCOUNT}_session_{SESSION}", ACCOUNT),
        (f"user_{SHA}_account__session_{SESSION}", SHA),
        (json.dumps({"device_id": SHA, "account_uuid": ACCOUNT, "session_id": SESSION}), ACCOUNT),
        (json.dumps({"device_id": SHA, "account_uuid": "", "session_id": SESSION}), SHA),
        (json.dumps({"device_id": SHA, "account_uuid": None, "session_id": SESSION}), SHA),
        (json.dumps({"device_id": SHA, "session_id": SESSION, "new": [1]}), SHA),
        ("ada@example.com", "ada@example.com"),
        ("user_42", "user_42"),
        (f"user_{SHA}_account_{ACCOUNT}", f"user_{SHA}_account_{ACCOUNT}"),
        ('{"name": "ada"}', '{"name": "ada"}'),
        ('{"account_uuid": 7}', '{"account_uuid": 7}'),
        ("{ada", "{ada"),
        ("", ""),
    ],
)
def test_of_claude_code_s_user_the_account_counts_and_never_the_session(user_id: str, user: str) -> None:
    assert account_in(user_id) == user


def test_a_header_names_the_end_user_where_the_team_has_one() -> None:
    rule = EndUserRule(header="x-user")
    assert user_in_header(rule, {"x-user": " ada@example.com "}) == "ada@example.com"
    assert user_in_header(rule, {"x-user": "\u0430\u0434\u0430"}) == "\u0430\u0434\u0430"
    assert user_in_header(rule, {"x-user": "ada\udcff"}) == "ada\ufffd"
    assert user_in_header(rule, {}) == ""
    assert user_in_header(EndUserRule(), {"x-user": "ada"}) == ""
    with pytest.raises(FieldInvalid, match="at most 512") as refused:
        user_in_header(rule, {"x-user": "a" * 513})
    assert refused.value.param == "x-user"


def test_a_missing_end_user_is_told_where_to_be() -> None:
    with pytest.raises(FieldInvalid, match="the header 'x-user', or 'user' in the body"):
        unnamed_user(EndUserRule(header="x-user", required=True))
    with pytest.raises(FieldInvalid, match="Send 'user' in the body"):
        unnamed_user(EndUserRule(required=True))
    assert unnamed_user(EndUserRule(header="x-user")) == ""


def test_so_many_users_of_a_team_are_counted_by_themselves_until_midnight() -> None:
    counts = EndUserCounts()

    def counted(user: str, team: str = "search", now_ms: int = NOW_MS) -> str:
        return counts.counted_as(user, team, 2, now_ms)

    assert [counted(user) for user in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER_USERS, "a", OTHER_USERS]
    assert counted("c", "sales") == "c"
    tomorrow = NOW_MS + 86_400_000
    assert [counted(user, now_ms=tomorrow) for user in ("c", "d", "a")] == ["c", "d", OTHER_USERS]
