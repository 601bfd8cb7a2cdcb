"""What receivers read: Standard Webhooks, and sentences for Slack."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.core.notifications import EventType, NotificationChannel
from gateway.notifications.messages import (
    Notification,
    notification,
    request_body,
    request_headers,
    signature,
    text_of,
)

JSON = NotificationChannel("ops", "json", "https://ops.example/", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
SLACK = NotificationChannel("slack-1", "slack", "https://hooks.example/")
NOON_MS = 1_793_880_000_000
QUOTA: dict[str, Any] = {
    "name": "tokens-per-month",
    "scope": "team",
    "subject": "search",
    "meter": "tokens",
    "per": "month",
    "amount": 50_000_000,
    "used": 47_600_000,
    "held": 0,
    "resets_at": "2026-12-01T00:00:00.000Z",
    "left": 2_400_000,
    "mode": "enforce",
    "runs_out_at": "2026-11-27T14:05:09.123Z",
    "percent": 95,
    "crossed_at": "2026-11-26T10:00:00.000Z",
    "team": "search",
    "owner": None,
}


def message(event: EventType, channel: NotificationChannel = JSON, **data: Any) -> Notification:
    return notification(channel, event, data, "now", NOON_MS)


def test_the_signature_is_that_of_the_specifications_example() -> None:
    # As the libraries of Standard Webhooks test themselves.
    signed = signature(JSON.secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_body_has_type_time_and_facts_with_the_sentence() -> None:
    body = msgspec.json.decode(request_body(message(EventType.UPSTREAM_UP, upstream="main"), JSON))
    assert body == {
        "type": "upstream.up",
        "timestamp": "2026-11-05T12:00:00.000Z",
        "data": {"upstream": "main", "message": "Upstream main is up again."},
    }


def test_headers_name_the_id_and_the_time_that_are_signed() -> None:
    told = notification(JSON, EventType.TEST, {"channel": "ops"}, "now", NOON_MS)
    body = request_body(told, JSON)
    headers = dict(request_headers(told, JSON, body, 1_700_000_000))
    assert headers["webhook-id"] == told.id
    assert headers["webhook-timestamp"] == "1700000000"
    assert headers["webhook-signature"] == signature(JSON.secret, told.id, 1_700_000_000, body)


def test_slack_gets_text_without_a_signature_and_names_are_no_markup() -> None:
    told = message(EventType.UPSTREAM_UP, SLACK, upstream="<!channel> & co")
    body = request_body(told, SLACK)
    assert msgspec.json.decode(body) == {"text": "Upstream &lt;!channel&gt; &amp; co is up again."}
    assert dict(request_headers(told, SLACK, body, 0)).keys() == {"content-type", "user-agent"}


def test_names_that_clients_choose_call_nobody_and_are_on_one_line() -> None:
    limit = {"name": "each", "scope": "user", "meter": "tokens", "per": "day", "amount": 100, "mode": "enforce"}
    named = ["@channel", "ada@example.com", "x (@here)", "a\r\nKey b expires"]
    data = {**limit, "users": 4, "named": named, "percent": 80, "team": "red", "owner": None}
    told = Notification("msg_1", SLACK.name, EventType.QUOTA_USERS, 0, data)
    text = msgspec.json.decode(request_body(told, SLACK))["text"]
    assert "@channel" not in text
    assert "@here" not in text
    assert "ada@example.com" in text
    assert "a\ufffd\ufffdKey b expires" in text


def test_the_id_is_that_of_the_event_and_the_channel() -> None:
    first = notification(JSON, EventType.TEST, {}, "a", NOON_MS)
    assert notification(JSON, EventType.TEST, {"more": 1}, "a", NOON_MS + 5).id == first.id
    assert notification(SLACK, EventType.TEST, {}, "a", NOON_MS).id != first.id
    assert notification(JSON, EventType.TEST, {}, "b", NOON_MS).id != first.id


def test_a_quota_says_how_much_is_used_until_when() -> None:
    assert text_of(EventType.QUOTA_THRESHOLD, QUOTA) == (
        "95 % of limit tokens-per-month of team search is used: 47,600,000 of 50,000,000 tokens."
        " It resets at 2026-12-01 00:00 UTC. At the present pace it is used up at 2026-11-27 14:05 UTC."
    )


def test_a_quota_that_is_spent_says_no_more_when_it_will_be() -> None:
    spent = {**QUOTA, "percent": 100, "used": 50_000_000, "owner": "leads@example.com", "resets_at": None}
    assert text_of(EventType.QUOTA_THRESHOLD, spent) == (
        "100 % of limit tokens-per-month of team search is used: 50,000,000 of 50,000,000 tokens."
        " Owner: leads@example.com."
    )


def test_a_quota_of_money_in_shadow_of_the_organisation_says_so() -> None:
    told = {
        **QUOTA,
        "scope": "organisation",
        "subject": "",
        "meter": "usd",
        "amount": 500,
        "used": 475.25,
        "mode": "shadow",
        "runs_out_at": None,
    }
    assert text_of(EventType.QUOTA_THRESHOLD, told).startswith(
        "95 % of limit tokens-per-month of the organisation is used (shadow: it does not refuse): 475.25 of 500 USD."
    )


@pytest.mark.parametrize(
    ("event", "data", "sentence"),
    [
        (EventType.UPSTREAM_DOWN, {"upstream": "main"}, "Upstream main is down"),
        (
            EventType.STORE_UNAVAILABLE,
            {"gateway": "gw-1", "reason": "does not answer", "on_outage": "refuse"},
            "The store of gateway gw-1 is out: it does not answer. Meanwhile requests are refused.",
        ),
        (EventType.STORE_AVAILABLE, {}, "The store is back."),
        (
            EventType.CONFIGURATION_REFUSED,
            {"problems": [f"line {number}" for number in range(7)]},
            "stays in force:\nline 0\nline 1\nline 2\nline 3\nline 4\n… and 2 more",
        ),
        (
            EventType.KEY_EXPIRING,
            {"name": "prod", "key": "0123", "team": "search", "expires_at": "2026-12-01T00:00:00.000Z", "owner": "me"},
            "Key prod (0123) of team search expires at 2026-12-01 00:00 UTC. Owner: me.",
        ),
        (EventType.TEST, {"channel": "ops"}, "This is a test of channel ops."),
    ],
)
def test_every_event_has_a_sentence(event: EventType, data: dict[str, Any], sentence: str) -> None:
    assert sentence in text_of(event, data)


@pytest.mark.parametrize("event", list(EventType))
def test_every_event_but_the_test_has_a_kind_that_channels_can_choose(event: EventType) -> None:
    channel = NotificationChannel("one", "json", "", teams=("sea*",))
    assert channel.wants(event, "search")
    assert channel.wants(event, "ops") == (event is EventType.TEST)
    assert channel.wants(event, "") == (event is EventType.TEST)


@pytest.mark.parametrize(
    ("users", "named", "expected"),
    [
        (1, ["ada"], "1 end user of team red reached 80 % of limit each (100 tokens per day for each): ada."),
        (7, ["ada", "bo"], "7 end users of team red reached 80 % of limit each (100 tokens per day for each): ada, bo"),
        (7, [], "7 end users of team red reached 80 % of limit each (100 tokens per day for each)."),
    ],
)
def test_end_users_are_counted_and_some_are_named(users: int, named: list[str], expected: str) -> None:
    limit = {"name": "each", "scope": "user", "meter": "tokens", "per": "day", "amount": 100, "mode": "enforce"}
    data = {**limit, "users": users, "named": named, "percent": 80, "team": "red", "owner": None}
    text = text_of(EventType.QUOTA_USERS, data)
    assert text.startswith(expected)
    assert ("and 5 more" in text) == (users == 7 and bool(named))
    assert text.endswith("`gateway usage --team red --by user` says what each has used.")
