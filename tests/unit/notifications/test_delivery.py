"""Delivery from an outbox in memory, by receivers that play a script, on a clock that is moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from zoneinfo import ZoneInfo

import msgspec
import pytest

from gateway.core.buckets import Window
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, Scope
from gateway.core.notifications import EventType, NotificationChannel
from gateway.core.reservation import LimitStatus
from gateway.core.snapshot import Caller, ConfigSnapshot, KeyTerms, TeamTerms
from gateway.notifications.crossings import QuotaReader
from gateway.notifications.delivery import (
    GIVE_UP_S,
    LEASE_S,
    POLL_S,
    DeliveryReports,
    NotificationDelivery,
    pause_s,
)
from gateway.notifications.history import DeliveryAttempt
from gateway.notifications.messages import Notification
from gateway.notifications.sending import TIMEOUTS, NotificationSender, Sent
from gateway.store.contract import USERS_PACE_MS, USERS_WAIT_MS
from gateway.store.in_memory.notifications import InMemoryNotificationOutbox
from tests.contract.store.asking import limit
from tests.contract.store.keepers import FalseClock, sure_tasks

QUOTA = limit("tokens", "day", 100, notify_at=(50, 100))
OF_KEY = limit("tokens", "day", 70, name="own", scope=Scope.KEY, subject="k", team="red", notify_at=(50,))
OF_USERS = limit("tokens", "day", 40, name="each", scope=Scope.USER, subject="", notify_at=(50, 100))
A = NotificationChannel("a", "json", "https://a.test/", "whsec_", at=(50, 100))
B = NotificationChannel("b", "json", "https://b.test/", "whsec_", at=(100,))


class Script(NotificationSender):
    """Answers with what is left of `answers`, then with success. `sent` has what each channel was sent."""

    def __init__(self, *answers: Sent) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, Notification]] = []

    async def send(self, message: Notification, channel: NotificationChannel, now_s: int) -> Sent:
        self.sent.append((channel.name, message))
        return self.answers.pop(0) if self.answers else Sent()


class World:
    """A delivery by itself; `round` is one of its loop's."""

    def __init__(self, *answers: Sent, channels: tuple[NotificationChannel, ...] = (A,)) -> None:
        self.clock = FalseClock()
        self.outbox = InMemoryNotificationOutbox(self.clock)
        self.sender = Script(*answers)
        caller = Caller("", "", "red", limits=(QUOTA,), user_limits=(OF_USERS,))
        self.snapshot = ConfigSnapshot({}, {}, {"red": TeamTerms(caller, owner="leads")}, channels=channels)
        self.stored: dict[str, list[Caller]] = {}
        """Those that are counted under an id, the newest first."""
        self.looked_up: list[str] = []
        self.counted: list[tuple[str, str]] = []
        self.problems: list[str] = []
        self.parked: list[str] = []
        self.outage: StoreUnavailable | None = None
        self.delivery = self.another()

    def another(self) -> NotificationDelivery:
        """As another gateway has it, which knows the same."""
        return NotificationDelivery(
            self.outbox,
            self.sender,
            lambda: self.snapshot,
            QuotaReader(self._counted_as, self._statuses),
            self.clock,
            DeliveryReports(
                lambda _message, problem: self.problems.append(problem),
                lambda entry, _error: self.parked.append(entry),
                lambda channel, outcome: self.counted.append((channel, outcome)),
            ),
            sure_tasks(),
        )

    async def round(self, seconds: float = 0.0) -> float:
        self.clock.at_ms += round(seconds * 1000)
        return await self.delivery._round()

    async def rounds(self) -> list[Notification]:
        """What is sent until nothing is due."""
        before = len(self.sender.sent)
        while await self.delivery._round() == 0.0:
            pass
        return [message for _, message in self.sender.sent[before:]]

    def cross(self, of: Limit, percent: int, used: int) -> None:
        figures = (0, percent, used, self.clock.at_ms)
        self.outbox._put_in(["\n".join(("quota", self.outbox.counter_name(of), *map(str, figures)))])

    def cross_as(self, *users: str, percent: int = 50) -> None:
        counter = Window(OF_USERS, ZoneInfo("UTC"))
        counter.used = OF_USERS.amount * percent // 100
        for user in users:
            counter.noted_percent = percent - 1
            self.outbox.note_crossings(OF_USERS.for_user(user), counter, self.clock.at_ms)

    async def attempts(self) -> list[DeliveryAttempt]:
        report = await self.outbox.report(100)
        return [msgspec.json.decode(each, type=DeliveryAttempt) for each in (*report.delivered, *report.problems)]

    async def _counted_as(self, key_id: str) -> list[Caller]:
        self.looked_up.append(key_id)
        return self.stored.get(key_id, [])

    async def _statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        if self.outage is not None:
            raise self.outage
        return [LimitStatus(one, 60, 0, one.amount - 60, 1_793_923_200_000) for one in limits]


async def test_a_crossing_becomes_a_message_for_each_channel_that_wants_it() -> None:
    world = World(channels=(A, B))
    world.cross(QUOTA, 50, 55)
    world.cross(QUOTA, 100, 100)
    messages = await world.rounds()
    sent = [(name, message.data["percent"]) for name, message in world.sender.sent]
    assert sent == [("a", 50), ("a", 100), ("b", 100)]
    assert messages[0].type is EventType.QUOTA_THRESHOLD
    assert (messages[0].data["used"], messages[1].data["used"]) == (60, 100)
    assert messages[0].data["owner"] == "leads"
    assert world.outbox.waiting == 0


async def test_the_same_crossing_has_the_same_id_in_every_gateway() -> None:
    world = World()
    world.cross(QUOTA, 50, 55)
    first = await world.rounds()
    world.clock.at_ms += 5_000
    world.cross(QUOTA, 50, 58)
    assert [each.id for each in await world.rounds()] == [each.id for each in first]


async def test_a_limit_of_a_stored_key_is_found_in_the_store() -> None:
    world = World()
    world.stored["k"] = [Caller("k", "k", "red", limits=(QUOTA, OF_KEY))]
    world.cross(OF_KEY, 50, 35)
    (message,) = await world.rounds()
    assert (message.data["name"], world.looked_up) == ("own", ["k"])


async def test_of_a_key_that_was_rotated_the_newest_one_says_how_much_it_has() -> None:
    world = World()
    newest = msgspec.structs.replace(OF_KEY, amount=90)
    world.stored["k"] = [Caller("l", "l", "red", limits=(newest,)), Caller("k", "k", "red", limits=(OF_KEY,))]
    world.cross(OF_KEY, 50, 35)
    (message,) = await world.rounds()
    assert message.data["amount"] == 90


@pytest.mark.parametrize("of", [QUOTA, limit("tokens", "day", 5, scope=Scope.MODEL, subject="m", notify_at=(50,))])
async def test_a_limit_that_is_not_of_a_key_asks_for_no_stored_key(of: Limit) -> None:
    world = World()
    world.cross(of, 50, 3)
    await world.rounds()
    assert world.looked_up == []


async def test_a_limit_of_a_key_of_the_configuration_asks_for_no_stored_key() -> None:
    world = World()
    callers = {"x": Caller("other", "other", "red"), "y": Caller("k", "k", "red", limits=(QUOTA, OF_KEY))}
    world.snapshot = msgspec.structs.replace(world.snapshot, callers=callers)
    world.cross(OF_KEY, 50, 35)
    (message,) = await world.rounds()
    assert (message.data["name"], world.looked_up) == ("own", [])


async def test_a_limit_that_tokens_have_in_common_is_found_by_the_counter_s_name() -> None:
    world = World()
    terms = msgspec.structs.replace(world.snapshot.teams["red"], key_limits=(OF_KEY,), notify_at=(50,))
    world.snapshot = msgspec.structs.replace(world.snapshot, teams={"red": terms})
    key = KeyTerms("jwt-0123abcd", "jwt-idp.test", subject="jwt-0123abcd")
    world.cross(terms.caller_of(key).limits[-1], 50, 35)
    (message,) = await world.rounds()
    assert (message.data["name"], message.data["subject"]) == ("own", "jwt-0123abcd")


async def test_a_limit_that_is_not_known_here_waits_for_another_gateway() -> None:
    world = World()
    world.cross(OF_KEY, 50, 35)
    assert await world.rounds() == []
    assert world.outbox.waiting == 1
    world.stored["k"] = [Caller("k", "k", "red", limits=(OF_KEY,))]
    world.clock.at_ms += 2_000
    assert len(await world.rounds()) == 1


async def test_a_crossing_that_no_channel_wants_is_taken_out() -> None:
    world = World(channels=(B,))
    world.cross(QUOTA, 50, 55)
    assert await world.rounds() == []
    assert world.outbox.waiting == 0


async def test_what_fails_is_repeated_after_its_age_with_the_same_id() -> None:
    world = World(*[Sent("it was answered with 500")] * 6)
    world.cross(QUOTA, 50, 55)
    await world.round()
    waits = [await world.round()]
    while world.outbox.waiting:
        waits.append(await world.round(waits[-1]))
    # Until more is looked for at the latest, though it is due later.
    assert waits[:4] == [1.0, 1.0, 2.0, 4.0]
    assert set(waits[4:]) == {POLL_S}
    assert len({message.id for _, message in world.sender.sent}) == 1
    assert world.counted == [*[("a", "failed")] * 6, ("a", "sent")]
    assert world.problems == ["it was answered with 500"] * 6


def test_pauses_double_up_to_an_hour() -> None:
    assert [pause_s(age_s) for age_s in (0, 1, 2, 4, 100, 5_000)] == [1, 1, 2, 4, 100, 3_600]


async def test_a_receiver_that_asks_for_a_pause_gets_it() -> None:
    world = World(Sent("it was answered with 429", retry_after_s=30.0))
    world.cross(QUOTA, 50, 55)
    await world.rounds()
    await world.round(29)
    assert len(world.sender.sent) == 1
    await world.round(2)
    assert len(world.sender.sent) == 2


async def test_what_fails_for_three_days_is_given_up() -> None:
    world = World(*[Sent("no answer: not_reached")] * 9)
    world.cross(QUOTA, 50, 55)
    await world.rounds()
    await world.round(GIVE_UP_S + 1)
    assert world.counted[-1] == ("a", "given_up")
    assert world.outbox.waiting == 0


async def test_a_deliverer_that_dies_leaves_its_entries_to_others() -> None:
    world = World()
    world.cross(QUOTA, 50, 55)
    assert len(await world.outbox.claim(9, round(LEASE_S * 1000))) == 1
    assert await world.rounds() == []
    world.clock.at_ms += round(LEASE_S * 1000) + 1
    assert len(await world.rounds()) == 1


async def test_the_lease_is_longer_than_an_attempt() -> None:
    assert 2 * (TIMEOUTS.total + TIMEOUTS.connect) <= LEASE_S


async def test_a_channel_that_a_reload_has_renamed_waits_for_who_knows_it() -> None:
    world = World()
    await world.delivery.post(EventType.UPSTREAM_DOWN, {"upstream": "u"}, "flag", 1_000)
    world.snapshot = msgspec.structs.replace(world.snapshot, channels=(B,))
    await world.round()
    assert world.sender.sent == []
    world.snapshot = msgspec.structs.replace(world.snapshot, channels=(A, B))
    await world.round(2)
    assert [name for name, _ in world.sender.sent] == ["a"]


async def test_an_outage_of_the_store_loses_nothing() -> None:
    world = World()
    world.cross(QUOTA, 50, 55)
    world.outage = StoreUnavailable("It is out.")
    await world.round()
    world.outage = None
    world.clock.at_ms += round(LEASE_S * 1000) + 1
    assert len(await world.rounds()) == 1


async def test_what_is_posted_is_for_one_process_to_say() -> None:
    world = World()
    for delivery in (world.delivery, world.another()):
        await delivery.post(EventType.UPSTREAM_DOWN, {"upstream": "u"}, "flag", 60_000)
    assert len(await world.rounds()) == 1
    await world.delivery.clear(EventType.UPSTREAM_UP, {"upstream": "u"}, "flag")
    assert [message.type for message in await world.rounds()] == [EventType.UPSTREAM_UP]


async def test_what_is_about_the_store_is_sent_without_it() -> None:
    world = World(channels=(A, B))
    await world.delivery.send_now(EventType.STORE_AVAILABLE, {})
    assert sorted(name for name, _ in world.sender.sent) == ["a", "b"]
    assert world.outbox.waiting == 0


@asynccontextmanager
async def delivering(world: World) -> AsyncIterator[None]:
    world.delivery.start()
    try:
        yield
    finally:
        await world.delivery.close()


async def test_the_loop_wakes_for_what_this_process_puts_in() -> None:
    world = World()
    async with delivering(world):
        world.cross(QUOTA, 50, 55)
        async with asyncio.timeout(5):
            while not world.sender.sent:
                await asyncio.sleep(0)


@pytest.mark.parametrize("dropped", [1, 3])
async def test_what_does_not_fit_is_counted(dropped: int) -> None:
    world = World()
    world.delivery._noted(0, dropped)
    assert world.counted == [("", "dropped")] * dropped


async def test_ten_thousand_end_users_are_one_message() -> None:
    world = World()
    world.cross_as(*[f"user {number}" for number in range(10_000)])
    assert await world.rounds() == []
    world.clock.at_ms += USERS_WAIT_MS
    (message,) = await world.rounds()
    assert (message.type, message.data["users"]) == (EventType.QUOTA_USERS, 10_000)
    assert message.data["named"] == [f"user {number}" for number in range(5)]
    assert (message.data["name"], message.data["team"], message.data["owner"]) == ("each", "red", "leads")
    assert world.outbox.waiting == 0


async def test_more_end_users_of_a_window_are_gathered_for_an_hour() -> None:
    world = World()
    world.cross_as("ada")
    world.clock.at_ms += USERS_WAIT_MS
    first = await world.rounds()
    world.cross_as("grace", "linus")
    world.clock.at_ms += USERS_PACE_MS - 1
    assert await world.rounds() == []
    world.clock.at_ms += 1
    second = await world.rounds()
    assert [each.data["named"] for each in (*first, *second)] == [["ada"], ["grace", "linus"]]
    assert first[0].id != second[0].id


async def test_end_users_go_to_the_channels_that_want_the_part() -> None:
    world = World(channels=(A, B))
    world.cross_as("ada", percent=50)
    world.cross_as("ada", percent=100)
    world.clock.at_ms += USERS_WAIT_MS
    await world.rounds()
    assert sorted((name, message.data["percent"]) for name, message in world.sender.sent) == [
        ("a", 50),
        ("a", 100),
        ("b", 100),
    ]


BROKEN = ("no JSON", "quota\nonly", "users\nc\n0\n50\nmore", "crossed\nc\n0\n50\n1\nmany", '{"id": 7}', "\udcff")


async def test_entries_that_cannot_be_read_are_parked_and_the_others_go_on() -> None:
    world = World()
    await world.outbox.post(BROKEN, "flag", 60_000)
    world.cross(QUOTA, 50, 55)
    async with delivering(world):
        async with asyncio.timeout(5):
            while not world.sender.sent or world.outbox.waiting:
                await asyncio.sleep(0)
    assert sorted(world.parked) == sorted([*BROKEN[:-1], "\\udcff"]), "each is logged once"
    assert world.counted.count(("", "parked")) == len(BROKEN)
    parked = [each for each in await world.attempts() if each.outcome == "parked"]
    assert len(parked) == len(BROKEN)
    assert all(each.problem.startswith("it cannot be delivered: ") for each in parked)


async def test_what_fails_in_a_way_nobody_thought_of_is_parked_too() -> None:
    world = World()
    incomplete = Notification("msg_1", "a", EventType.KEY_EXPIRING, world.clock.at_ms, {})
    await world.outbox.post([msgspec.json.encode(incomplete).decode()], "flag", 60_000)
    world.cross(QUOTA, 50, 55)
    assert len(await world.rounds()) == 2
    assert (len(world.parked), world.outbox.waiting) == (1, 0)


async def test_what_became_of_attempts_is_kept() -> None:
    world = World(Sent("it was answered with 500"), Sent(), Sent("it was answered with 404"))
    world.cross(QUOTA, 50, 55)
    await world.rounds()
    await world.round(2)
    world.cross(QUOTA, 100, 100)
    await world.rounds()
    await world.round(GIVE_UP_S + 1)
    found = sorted(await world.attempts(), key=lambda each: each.tried_ms)
    assert [(each.outcome, each.problem) for each in found] == [
        ("failed", "it was answered with 500"),
        ("sent", ""),
        ("failed", "it was answered with 404"),
        ("sent", ""),
    ]
    assert found[0].text.startswith("50 % of limit tokens-day of team red is used: ")
