"""The text of a notification: as it waits in the outbox, and as each kind of receiver reads it.

A `json` channel gets Standard Webhooks (https://www.standardwebhooks.com, specification 1.0): the id, the time and the
body are signed with the channel's secret, HMAC-SHA-256. The id is the same however often a notification is sent, so
that a receiver that accepted it and answered with an error recognises it. A `slack` channel gets the message format of
Slack's incoming webhooks; Mattermost, Rocket.Chat and Discord (with /slack behind the URL) accept it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.core.notifications import EventType, NotificationChannel
from gateway.core.time_format import rfc3339

SECRET_PREFIX = "whsec_"  # noqa: S105 # What every secret begins with is none.

_PROBLEMS_SHOWN = 5
_MENTION = re.compile(r"(?<![\w.+-])@(?=\w)")
_UNITS = {"usd": "USD", "requests": "requests"}

Data = Mapping[str, Any]
"""The data of a notification, as a receiver of JSON gets it."""


class Notification(msgspec.Struct, frozen=True):
    """One event for one channel, as it waits."""

    id: str
    channel: str
    type: EventType
    at_ms: int
    data: dict[str, Any]


def notification(channel: NotificationChannel, event: EventType, data: Data, occasion: str, at_ms: int) -> Notification:
    """`occasion` distinguishes this event from all others of its type; the id is made from it."""
    digest = hashlib.blake2b(f"{event}\n{occasion}\n{channel.name}".encode(), digest_size=16).hexdigest()
    return Notification(f"msg_{digest}", channel.name, event, at_ms, dict(data))


def text_of(event: EventType, data: Data) -> str:
    """The message for people, in one paragraph."""
    return _TEXTS[event](data)


def request_body(message: Notification, channel: NotificationChannel) -> bytes:
    text = text_of(message.type, message.data)
    if channel.format == "slack":
        return msgspec.json.encode({"text": _escaped(text)})
    data = {**message.data, "message": text}
    return msgspec.json.encode({"type": message.type, "timestamp": rfc3339(message.at_ms), "data": data})


def request_headers(
    message: Notification, channel: NotificationChannel, body: bytes, now_s: int
) -> tuple[tuple[str, str], ...]:
    content = ("content-type", "application/json"), ("user-agent", "inducta-gateway")
    if channel.format == "slack":
        return content
    signed = signature(channel.secret, message.id, now_s, body)
    return (*content, ("webhook-id", message.id), ("webhook-timestamp", str(now_s)), ("webhook-signature", signed))


def signature(secret: str, name: str, now_s: int, body: bytes) -> str:
    """The signature of Standard Webhooks, by a secret that the configuration has accepted."""
    key = b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(key, b"%b.%d.%b" % (name.encode(), now_s, body), "sha256")
    return f"v1,{b64encode(digest).decode()}"


def _quota(data: Data) -> str:
    whose = "the organisation" if data["scope"] == "organisation" else f"{data['scope']} {data['subject']}"
    figures = f"{_figure(data['used'])} of {_figure(data['amount'])} {_unit(data)}"
    parts = [f"{data['percent']} % of limit {data['name']} of {whose} is used{_shadow(data)}: {figures}."]
    if data["resets_at"]:
        parts.append(f"It resets at {_time(data['resets_at'])}.")
    if data["runs_out_at"] and data["used"] < data["amount"]:
        parts.append(f"At the present pace it is used up at {_time(data['runs_out_at'])}.")
    return " ".join([*parts, *_owned(data)])


def _users(data: Data) -> str:
    per = "in total" if data["per"] == "total" else f"per {data['per']}"
    count, named = data["users"], list(data["named"])
    who = "1 end user" if count == 1 else f"{count:,} end users"
    called = ", ".join(map(_on_one_line, named)) + (f" and {count - len(named):,} more" if count > len(named) else "")
    terms = f"({_figure(data['amount'])} {_unit(data)} {per} for each)"
    parts = [f"{who} of team {data['team']} reached {data['percent']} % of limit {data['name']} {terms}{_shadow(data)}"]
    parts[0] += f": {called}." if named else "."
    parts.append(f"`gateway usage --team {data['team']} --by user` says what each has used.")
    return " ".join([*parts, *_owned(data)])


def _upstream_down(data: Data) -> str:
    return (
        f"Upstream {data['upstream']} is down: its checks fail, or the circuits of all its models are open."
        " `gateway upstreams` says why."
    )


def _upstream_up(data: Data) -> str:
    return f"Upstream {data['upstream']} is up again."


def _store_unavailable(data: Data) -> str:
    effect = "requests are refused" if data["on_outage"] == "refuse" else "requests are let through and charged later"
    return f"The store of gateway {data['gateway']} is out: it {data['reason']}. Meanwhile {effect}."


def _store_available(_data: Data) -> str:
    return "The store is back."


def _configuration_refused(data: Data) -> str:
    problems = list(data["problems"])
    more = f"\n… and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
    listed = "\n".join(problems[:_PROBLEMS_SHOWN])
    return f"A configuration was refused, and the one before stays in force:\n{listed}{more}"


def _key_expiring(data: Data) -> str:
    said = f"Key {data['name']} ({data['key']}) of team {data['team']} expires at {_time(data['expires_at'])}."
    return " ".join([said, *_owned(data)])


def _test(data: Data) -> str:
    return f"This is a test of channel {data['channel']}. Nothing has happened."


def _owned(data: Data) -> list[str]:
    return [f"Owner: {data['owner']}."] if data.get("owner") else []


def _unit(data: Data) -> str:
    meter: str = data["meter"]
    return _UNITS.get(meter, meter.replace("_", " "))


def _shadow(data: Data) -> str:
    return " (shadow: it does not refuse)" if data["mode"] == "shadow" else ""


def _figure(amount: int | float) -> str:
    text = f"{amount:,.6f}" if isinstance(amount, float) else f"{amount:,}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(written: str) -> str:
    """Of 2026-11-05T12:00:00.000Z the minute: 2026-11-05 12:00 UTC."""
    return f"{written[:16].replace('T', ' ')} UTC"


def _escaped(text: str) -> str:
    """Names are not markup (https://docs.slack.dev/messaging/formatting-message-text), nor mentions: clients choose
    those of end users, and Mattermost and Discord notify a whole channel for a word such as @channel."""
    text = _MENTION.sub("@\u200b", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _on_one_line(name: str) -> str:
    return name if name.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in name)


_TEXTS: Mapping[EventType, Callable[[Data], str]] = {
    EventType.QUOTA_THRESHOLD: _quota,
    EventType.QUOTA_USERS: _users,
    EventType.UPSTREAM_DOWN: _upstream_down,
    EventType.UPSTREAM_UP: _upstream_up,
    EventType.STORE_UNAVAILABLE: _store_unavailable,
    EventType.STORE_AVAILABLE: _store_available,
    EventType.CONFIGURATION_REFUSED: _configuration_refused,
    EventType.KEY_EXPIRING: _key_expiring,
    EventType.TEST: _test,
}
