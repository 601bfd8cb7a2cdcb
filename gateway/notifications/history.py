"""What operators can see of the outbox: what waits, what was delivered last, and what fails and why.

`GET /admin/v1/notifications` and `gateway notify list` give the same. A waiting entry shows the problem of its last
attempt while the store still keeps that attempt.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec

from gateway.core.json_object import JsonObject
from gateway.core.notifications import EventType
from gateway.core.parameters import number_of, refuse_unknown
from gateway.core.time_format import rfc3339
from gateway.identity.requests import AdministrationRequest, nothing_at, refuse_method
from gateway.notifications.crossings import Crossing, shown_entry
from gateway.notifications.messages import Notification, text_of
from gateway.store.contract import OUTBOX_PAST, NotificationOutbox, WaitingEntry

LIST = "notifications"
METHODS = {LIST: ("GET",)}
"""By path below /admin/v1."""


class DeliveryAttempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt as the store keeps it. `at_ms` is the time of the event, `tried_ms` that of the attempt; `outcome` is
    `sent`, `failed`, `given_up` or `parked`. For a parked entry `text` is its beginning, and there is no id."""

    id: str
    channel: str
    type: str
    at_ms: int
    tried_ms: int
    outcome: str
    problem: str = ""
    text: str = ""


_ATTEMPT = msgspec.json.Decoder(DeliveryAttempt)
_ENTRY = msgspec.json.Decoder(Notification)


class NotificationList:
    """Answers operators. `outbox` follows the configuration in force."""

    def __init__(self, outbox: NotificationOutbox) -> None:
        self._outbox = outbox

    async def answer(self, request: AdministrationRequest) -> JsonObject:
        """Raises FieldInvalid, UrlUnknown, MethodNotAllowed, StoreUnavailable."""
        if request.path != LIST:
            raise nothing_at(request.path)
        refuse_method(request.method, METHODS[LIST])
        refuse_unknown(request.query, ("limit",))
        most = number_of(request.query, "limit", most=OUTBOX_PAST, default=OUTBOX_PAST)
        report = await self._outbox.report(most)
        problems = _attempts(report.problems)
        latest = {attempt.id: attempt for attempt in reversed(problems) if attempt.id}
        waiting = [_waiting_object(entry, latest) for entry in report.waiting]
        ended = [attempt for attempt in problems if attempt.outcome in ("given_up", "parked")]
        past = sorted([*ended, *_attempts(report.delivered)], key=lambda attempt: -attempt.tried_ms)[:most]
        return {"data": [*waiting, *map(_past_object, past)], "next": None, "waiting": report.total}


def _attempts(written: Iterable[str]) -> list[DeliveryAttempt]:
    """Without those that another version has written in a different form."""
    found: list[DeliveryAttempt] = []
    for each in written:
        with suppress(msgspec.DecodeError):
            found.append(_ATTEMPT.decode(each))
    return found


def _waiting_object(waiting: WaitingEntry, latest: dict[str, DeliveryAttempt]) -> JsonObject:
    shown = _object("waiting", due_at=rfc3339(waiting.due_ms))
    try:
        message = _ENTRY.decode(waiting.entry)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return shown | _crossing_members(waiting.entry)
    shown |= {"id": message.id, "type": message.type.value, "channel": message.channel, "at": rfc3339(message.at_ms)}
    with suppress(KeyError):
        shown["message"] = text_of(message.type, message.data)
    failed = latest.get(message.id)
    if failed is not None:
        shown |= {"state": "failing", "tried_at": rfc3339(failed.tried_ms), "problem": failed.problem}
    return shown


def _crossing_members(entry: str) -> JsonObject:
    try:
        crossing = Crossing.read(entry)
    except ValueError:
        return {"problem": "it cannot be read", "message": shown_entry(entry)}
    is_quota = entry.startswith("quota")
    kind = EventType.QUOTA_THRESHOLD if is_quota else EventType.QUOTA_USERS
    whose = "The counter" if is_quota else "End users' counters below"
    message = f"{whose} {crossing.counter}: {crossing.percent} % is used. It is not made into notifications yet."
    return {"type": kind.value, "at": rfc3339(crossing.at_ms) if crossing.at_ms else None, "message": message}


def _past_object(attempt: DeliveryAttempt) -> JsonObject:
    shown = _object(attempt.outcome, due_at=None)
    return shown | {
        "id": attempt.id or None,
        "type": attempt.type or None,
        "channel": attempt.channel or None,
        "at": rfc3339(attempt.at_ms),
        "tried_at": rfc3339(attempt.tried_ms),
        "problem": attempt.problem or None,
        "message": attempt.text,
    }


def _object(state: str, due_at: str | None) -> JsonObject:
    members = ("id", "type", "channel", "at", "tried_at", "problem")
    return {"state": state, **dict.fromkeys(members), "due_at": due_at, "message": ""}
