"""Delivers the entries of the outbox in the background.

Each process of each gateway claims a few entries at a time, for a little longer than an attempt can take: if the
process dies, they are free again then. The entry of a settlement (crossings.py) is replaced by one entry for each
channel that wants it, in one step. So each receiver is tried by itself, and nothing is lost between two steps.

    crossing ──► outbox ──► claim ──► one entry a channel ──► claim ──► send ──► accepted: done
                                                                          └────► else: due later, with the same id

A failed attempt is repeated after a second, then after twice the notification's age up to an hour, for three days. A
receiver that accepted one and answered with an error gets it again under the same id.

An entry that cannot be read, or that fails in an unexpected way, is parked: removed, logged once, and kept for
operators to see. It delays no other entry. The store also keeps the last attempts (history.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import StoreUnavailable
from gateway.core.notifications import EventType, NotificationChannel
from gateway.core.snapshot import ConfigSnapshot
from gateway.notifications.crossings import (
    CounterNames,
    Crossing,
    CrossingNotifications,
    QuotaReader,
    as_text,
    shown_entry,
)
from gateway.notifications.history import DeliveryAttempt
from gateway.notifications.messages import Data, Notification, notification, text_of
from gateway.notifications.sending import TIMEOUTS, NotificationSender
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import CROSSED_ENTRY, QUOTA_ENTRY, USERS_ENTRY, NotificationOutbox

AT_ONCE = 8
"""Entries that a process delivers at a time."""

POLL_S = 5.0
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 3_600.0
GIVE_UP_S = 3 * 86_400.0
LEASE_S = 3 * TIMEOUTS.total
"""Longer than all that happens to a claimed entry."""

_ENTRY = msgspec.json.Decoder(Notification)


def pause_s(age_s: float) -> float:
    """The time until the next attempt for an entry of this age: the age doubles each time."""
    return min(max(FIRST_RETRY_S, age_s), LONGEST_RETRY_S)


class DeliveryReports(NamedTuple):
    """Reports of how it goes: the log of a channel's problem and of a parked entry, and metrics by channel and outcome
    (`sent`, `failed`, `given_up`, `dropped`, `parked`)."""

    log: Callable[[Notification, str], None]
    log_parked: Callable[[str, BaseException], None]
    counted: Callable[[str, str], None]


class NotificationDelivery:
    """`start` once the event loop runs; `tasks` are closed with it. `serving` gives the configuration in force."""

    def __init__(
        self,
        outbox: NotificationOutbox,
        sender: NotificationSender,
        serving: Callable[[], ConfigSnapshot],
        quotas: QuotaReader,
        clock: Clock,
        reports: DeliveryReports,
        tasks: BackgroundTasks,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._serving = serving
        self._crossings = CrossingNotifications(
            serving, quotas, CounterNames(outbox.counter_name, outbox.counter_owner)
        )
        self._clock = clock
        self._reports = reports
        self._tasks = tasks
        self._wakeup = asyncio.Event()
        outbox.subscribe(self._noted)

    @property
    def channels(self) -> tuple[NotificationChannel, ...]:
        return self._serving().channels

    def start(self) -> None:
        self._tasks.keep_running("deliver notifications", self._run)

    async def close(self) -> None:
        """Waiting entries are delivered by another process, or after the next start."""
        await self._tasks.close()

    async def post(self, event: EventType, data: Data, flag: str, keep_ms: int, team: str = "") -> None:
        """Notify of this, once while the flag is raised, over all gateways. Raises StoreUnavailable."""
        if messages := self._wanted(event, team, data, f"{flag}\n"):
            await self._outbox.post(list(map(_encoded, messages)), flag, keep_ms)

    async def clear(self, event: EventType, data: Data, flag: str) -> None:
        """Notify of the end of the flag's condition, if the flag is raised. Raises StoreUnavailable."""
        if messages := self._wanted(event, "", data, f"{flag}\n"):
            await self._outbox.clear(flag, list(map(_encoded, messages)))

    async def is_first(self, flag: str, keep_ms: int) -> bool:
        """Whether this process does something that all processes could do. Raises StoreUnavailable."""
        return await self._outbox.post([], flag, keep_ms)

    async def send_now(self, event: EventType, data: Data) -> None:
        """Send without the outbox, once to each channel: for notifications about the store itself."""
        await asyncio.gather(*[self._attempt(message) for message in self._wanted(event, "", data, "")])

    def _wanted(self, event: EventType, team: str, data: Data, occasion: str) -> list[Notification]:
        """A notification for each channel that wants the event, on the occasion of this name and time."""
        now_ms = self._clock.now_ms()
        wanting = [each for each in self.channels if each.wants(event, team)]
        return [notification(each, event, data, f"{occasion}{now_ms}", now_ms) for each in wanting]

    def _noted(self, put_in: int, dropped: int) -> None:
        if put_in:
            self._wakeup.set()
        for _ in range(dropped):
            self._reports.counted("", "dropped")

    async def _run(self) -> None:
        while True:
            self._wakeup.clear()
            wait_s = POLL_S
            if self.channels:
                with suppress(StoreUnavailable):
                    wait_s = await self._round()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wakeup.wait()

    async def _round(self) -> float:
        """Deliver what is due. Returns the seconds until there may be more. Raises StoreUnavailable."""
        lease_ms = round(LEASE_S * 1000)
        claimed = await self._outbox.claim(AT_ONCE, lease_ms)
        waits = await asyncio.gather(*[self._handle(entry) for entry in claimed])
        return min([POLL_S, *waits]) if len(claimed) < AT_ONCE else 0.0

    async def _handle(self, entry: str) -> float:
        """Seconds until there may be more."""
        try:
            try:
                return await self._deliver(entry)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 # Whatever it is, the other entries go on.
                return await self._park(entry, error)
        except StoreUnavailable:
            # The lease ends, and a process tries again.
            return POLL_S

    async def _deliver(self, entry: str) -> float:
        """Raises StoreUnavailable, and what an entry causes that cannot be read."""
        if entry.startswith(USERS_ENTRY):
            Crossing.read(entry)
            await self._outbox.gather(entry)
            return 0.0
        if entry.startswith((QUOTA_ENTRY, CROSSED_ENTRY)):
            return await self._fan_out(entry, Crossing.read(entry))
        message = _ENTRY.decode(entry)
        age_s = self._age_s(message.at_ms)
        problem = await self._attempt(message)
        if problem is None:
            await self._outbox.done(entry)
            await self._keep(message, "sent")
            return POLL_S
        await self._keep(message, "given_up" if age_s > GIVE_UP_S else "failed", problem.text)
        return await self._retry(entry, message.channel, age_s, problem.wait_s)

    async def _attempt(self, message: Notification) -> _Problem | None:
        """None if the receiver accepted it."""
        channel = next((each for each in self.channels if each.name == message.channel), None)
        if channel is None:
            # Another gateway may have it already, or still.
            return _Problem("no receiver has this name in the configuration of the gateway that tried", 0.0)
        sent = await self._sender.send(message, channel, self._clock.now_ms() // 1000)
        if not sent.problem:
            self._reports.counted(channel.name, "sent")
            return None
        self._reports.counted(channel.name, "failed")
        self._reports.log(message, sent.problem)
        return _Problem(sent.problem, sent.retry_after_s)

    async def _retry(self, entry: str, channel: str, age_s: float, least_s: float) -> float:
        if age_s > GIVE_UP_S:
            self._reports.counted(channel, "given_up")
            await self._outbox.done(entry)
            return POLL_S
        wait_s = min(max(pause_s(age_s), least_s), LONGEST_RETRY_S)
        await self._outbox.defer(entry, round(wait_s * 1000))
        return wait_s

    async def _fan_out(self, entry: str, crossing: Crossing) -> float:
        made = await self._crossings.of(crossing)
        if made is None:
            # A gateway with another configuration may know the limit.
            return await self._retry(entry, "", self._age_s(crossing.at_ms), 0.0)
        await self._outbox.replace(entry, [_encoded(each) for each in made])
        return 0.0

    async def _park(self, entry: str, error: Exception) -> float:
        self._reports.counted("", "parked")
        shown, problem = shown_entry(entry), as_text(f"it cannot be delivered: {error!r}")
        self._reports.log_parked(shown, error)
        now_ms = self._clock.now_ms()
        attempt = DeliveryAttempt("", "", "", now_ms, now_ms, "parked", problem, shown)
        await self._outbox.note(_encoded(attempt), delivered=False)
        await self._outbox.done(entry)
        return POLL_S

    async def _keep(self, message: Notification, outcome: str, problem: str = "") -> None:
        """Keep the attempt for operators."""
        text, now_ms = text_of(message.type, message.data), self._clock.now_ms()
        attempt = DeliveryAttempt(
            message.id, message.channel, message.type, message.at_ms, now_ms, outcome, problem, text
        )
        await self._outbox.note(_encoded(attempt), delivered=outcome == "sent")

    def _age_s(self, at_ms: int) -> float:
        return max(0.0, (self._clock.now_ms() - at_ms) / 1000)


class _Problem(NamedTuple):
    """Why a notification was not accepted, and how long the receiver asks to wait."""

    text: str
    wait_s: float


def _encoded(value: Notification | DeliveryAttempt) -> str:
    return msgspec.json.encode(value).decode()
