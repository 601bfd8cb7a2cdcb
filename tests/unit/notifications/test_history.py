"""What operators are shown of the outbox: what waits, what fails and why, what was delivered and what was not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.core.errors import FieldInvalid, MethodNotAllowed, UrlUnknown
from gateway.core.notifications import EventType
from gateway.identity.requests import AdministrationRequest
from gateway.notifications.history import DeliveryAttempt, NotificationList
from gateway.notifications.messages import Notification
from gateway.store.in_memory.notifications import InMemoryNotificationOutbox
from tests.contract.store.keepers import FalseClock


class Outbox:
    """An outbox with entries and attempts, and what is shown of it."""

    def __init__(self) -> None:
        self.clock = FalseClock()
        self.outbox = InMemoryNotificationOutbox(self.clock)
        self.list = NotificationList(self.outbox)

    async def put_in(self, *entries: str) -> None:
        await self.outbox.post(list(entries), f"flag {entries}", 60_000)

    async def tried(self, name: str, outcome: str, problem: str = "") -> None:
        self.clock.at_ms += 1_000
        attempt = DeliveryAttempt(name, "slack-1", "upstream.down", 1_000, self.clock.at_ms, outcome, problem, "Down.")
        await self.outbox.note(msgspec.json.encode(attempt).decode(), delivered=outcome == "sent")

    async def shown(self, method: str = "GET", path: str = "notifications", **query: str) -> Any:
        return await self.list.answer(AdministrationRequest(method, path, query))

    async def states(self, **query: str) -> list[tuple[str, str | None, str | None]]:
        found = await self.shown(**query)
        return [(each["state"], each["id"], each["problem"]) for each in found["data"]]


def entry(name: str) -> str:
    message = Notification(name, "slack-1", EventType.UPSTREAM_DOWN, 1_000, {"upstream": "vllm-a"})
    return msgspec.json.encode(message).decode()


async def test_what_waits_says_what_it_is_and_when_it_is_due() -> None:
    outbox = Outbox()
    await outbox.put_in(entry("msg_1"))
    found = await outbox.shown()
    assert (found["next"], found["waiting"]) == (None, 1)
    (waiting,) = found["data"]
    assert waiting["message"].startswith("Upstream vllm-a is down")
    assert (waiting["channel"], waiting["type"], waiting["at"]) == (
        "slack-1",
        "upstream.down",
        "1970-01-01T00:00:01.000Z",
    )
    assert waiting["due_at"] is not None


async def test_what_has_failed_says_why_by_its_last_attempt() -> None:
    outbox = Outbox()
    await outbox.put_in(entry("msg_1"), entry("msg_2"))
    await outbox.tried("msg_1", "failed", "it was answered with 500")
    await outbox.tried("msg_1", "failed", "no answer: not_reached")
    assert await outbox.states() == [("failing", "msg_1", "no answer: not_reached"), ("waiting", "msg_2", None)]


async def test_what_was_delivered_in_the_end_is_shown_once_and_the_latest_first() -> None:
    outbox = Outbox()
    await outbox.tried("msg_1", "failed", "it was answered with 500")
    await outbox.tried("msg_1", "sent")
    await outbox.tried("msg_2", "given_up", "it was answered with 404")
    await outbox.tried("", "parked", "it cannot be delivered: …")
    assert await outbox.states() == [
        ("parked", None, "it cannot be delivered: …"),
        ("given_up", "msg_2", "it was answered with 404"),
        ("sent", "msg_1", None),
    ]
    assert len(await outbox.states(limit="1")) == 1


async def test_what_cannot_be_read_is_shown_too() -> None:
    outbox = Outbox()
    crossings = ("quota\nc:k\n0\n80\n90\n2000", "users\nc:u\n0\n80", "crossed\nc:u\n0\n80\n2000\n3\nada")
    await outbox.put_in("\udcff no entry", *crossings)
    await outbox.outbox.note("written by another version", delivered=False)
    data = (await outbox.shown())["data"]
    assert [each["type"] for each in data] == [None, "quota.threshold", "quota.users", "quota.users"]
    assert data[0]["problem"] == "it cannot be read"
    assert "80 % is used" in data[1]["message"]
    msgspec.json.encode(data)


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"limit": "9" * 5_000}, {"colour": "red"}]
)
async def test_a_question_that_means_nothing_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(FieldInvalid):
        await Outbox().shown(**query)


async def test_another_method_and_another_path_are_refused() -> None:
    with pytest.raises(MethodNotAllowed):
        await Outbox().shown("POST")
    with pytest.raises(UrlUnknown):
        await Outbox().shown(path="notifications/1")
