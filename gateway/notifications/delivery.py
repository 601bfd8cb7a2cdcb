"""Delivers what waits in the outbox, beside requests and never in their way.

Each process of each gateway claims a few entries at a time, for as long as an attempt can take and some more: an entry
whose deliverer dies is free again then. What a settlement has put in is a counter's name and figures. The process that
claims it finds the limit in its configuration, and replaces it by one entry for each channel that wants it, in one
step. So each receiver is tried by itself, and what is lost between any two steps is found again.

    crossing ──► outbox ──► claim ──► one entry a channel ──► claim ──► send ──► taken: done
                                                                          └────► else: due later, with the same id

An attempt that fails is repeated after a second, then after twice the notification's age until an hour, for three
days. A receiver that took one and answered with an error gets it again under the same id.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import StoreUnavailable
from gateway.core.limit_status import limit_status_object, rfc3339
from gateway.core.limits import Limit
from gateway.core.notifications import EventType, NotificationChannel
from gateway.core.reservation import LimitStatus
from gateway.core.snapshot import ConfigSnapshot, KeyTerms
from gateway.notifications.messages import Data, Notification, notification
from gateway.notifications.sending import TIMEOUTS, NotificationSender
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import NotificationOutbox

QUOTA_ENTRY = "quota\n"
"""What entries of settlements begin with."""

AT_ONCE = 8
"""Entries that a process delivers at a time."""

_TOKENS = re.compile(r"jwt-[0-9a-f]{8}")
"""What tokens of an identity provider have in the place of a key's id."""

_ENTRY = msgspec.json.Decoder(Notification)


class DeliveryPace(msgspec.Struct, frozen=True):
    """Seconds. The lease is longer than everything that is done with a claimed entry."""

    poll_s: float = 5.0
    first_retry_s: float = 1.0
    longest_retry_s: float = 3_600.0
    give_up_s: float = 3 * 86_400.0
    lease_s: float = 3 * TIMEOUTS.total

    def wait_s(self, age_s: float) -> float:
        """Until the next attempt of what is so old: the age doubles each time."""
        return min(max(self.first_retry_s, age_s), self.longest_retry_s)


DELIVERY_PACE = DeliveryPace()


class DeliveryReports(NamedTuple):
    """Reports of how it goes: the log of a channel's problem, and metrics by channel and outcome (`sent`, `failed`,
    `given_up`, `dropped`)."""

    log: Callable[[Notification, str], None]
    counted: Callable[[str, str], None]


class QuotaReader(NamedTuple):
    """Where the limits are found that settlements speak of: in the configuration, with the stored keys of a store, and
    how they are now."""

    with_stored_keys: Callable[[], Awaitable[ConfigSnapshot]]
    statuses: Callable[[Sequence[Limit]], Awaitable[list[LimitStatus]]]


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
        pace: DeliveryPace = DELIVERY_PACE,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._serving = serving
        self._quotas = quotas
        self._clock = clock
        self._reports = reports
        self._tasks = tasks
        self._pace = pace
        self._wakeup = asyncio.Event()
        outbox.subscribe(self._noted)

    @property
    def channels(self) -> tuple[NotificationChannel, ...]:
        return self._serving().channels

    def start(self) -> None:
        self._tasks.keep_running("deliver notifications", self._run)

    async def close(self) -> None:
        """What waits is delivered by another process, or after the next start."""
        await self._tasks.close()

    def entries(self, event: EventType, team: str, data: Data, occasion: str) -> list[str]:
        """One for each channel that wants to know."""
        wanting = [each for each in self.channels if each.wants(event, team)]
        return [_encoded(notification(each, event, data, occasion, self._clock.now_ms())) for each in wanting]

    async def post(self, event: EventType, data: Data, flag: str, keep_ms: int, team: str = "") -> None:
        """Notify of this, once for as long as the flag is raised, over all gateways. Raises StoreUnavailable."""
        if entries := self.entries(event, team, data, f"{flag}\n{self._clock.now_ms()}"):
            await self._outbox.post(entries, flag, keep_ms)

    async def clear(self, event: EventType, data: Data, flag: str) -> None:
        """Notify that what the flag says is over, if it is raised. Raises StoreUnavailable."""
        if entries := self.entries(event, "", data, f"{flag}\n{self._clock.now_ms()}"):
            await self._outbox.clear(flag, entries)

    async def is_first(self, flag: str, keep_ms: int) -> bool:
        """Whether this process is the one to do something that all could do. Raises StoreUnavailable."""
        return await self._outbox.post([], flag, keep_ms)

    async def send_now(self, event: EventType, data: Data) -> None:
        """Without the outbox, once to each channel: for what is about the store itself."""
        entries = self.entries(event, "", data, f"{self._clock.now_ms()}")
        await asyncio.gather(*[self._attempt(_ENTRY.decode(entry)) for entry in entries])

    def _noted(self, put_in: int, dropped: int) -> None:
        if put_in:
            self._wakeup.set()
        for _ in range(dropped):
            self._reports.counted("", "dropped")

    async def _run(self) -> None:
        while True:
            self._wakeup.clear()
            wait_s = self._pace.poll_s
            if self.channels:
                with suppress(StoreUnavailable):
                    wait_s = await self._round()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wakeup.wait()

    async def _round(self) -> float:
        """Seconds until there may be more. Raises StoreUnavailable."""
        lease_ms = round(self._pace.lease_s * 1000)
        claimed = await self._outbox.claim(AT_ONCE, lease_ms)
        waits = await asyncio.gather(*[self._handle(entry) for entry in claimed])
        return min([self._pace.poll_s, *waits]) if len(claimed) < AT_ONCE else 0.0

    async def _handle(self, entry: str) -> float:
        """Seconds until there may be more."""
        try:
            if entry.startswith(QUOTA_ENTRY):
                return await self._fan_out(entry)
            message = _ENTRY.decode(entry)
            age_s = self._age_s(message.at_ms)
            problem_wait_s = await self._attempt(message)
            if problem_wait_s is None:
                await self._outbox.done(entry)
                return self._pace.poll_s
            return await self._retry(entry, message.channel, age_s, problem_wait_s)
        except StoreUnavailable:
            # The lease ends, and a process tries again.
            return self._pace.poll_s

    async def _attempt(self, message: Notification) -> float | None:
        """None where it was taken, else how long the receiver wants to be left alone."""
        channel = next((each for each in self.channels if each.name == message.channel), None)
        if channel is None:
            # Another gateway may have it already, or still.
            return 0.0
        sent = await self._sender.send(message, channel, self._clock.now_ms() // 1000)
        if not sent.problem:
            self._reports.counted(channel.name, "sent")
            return None
        self._reports.counted(channel.name, "failed")
        self._reports.log(message, sent.problem)
        return sent.retry_after_s

    async def _retry(self, entry: str, channel: str, age_s: float, least_s: float) -> float:
        if age_s > self._pace.give_up_s:
            self._reports.counted(channel, "given_up")
            await self._outbox.done(entry)
            return self._pace.poll_s
        wait_s = min(max(self._pace.wait_s(age_s), least_s), self._pace.longest_retry_s)
        await self._outbox.defer(entry, round(wait_s * 1000))
        return wait_s

    async def _fan_out(self, entry: str) -> float:
        _, counter, begins, percent, used, at_ms = entry.split("\n")
        limit = await self._limit_called(counter)
        if limit is None:
            # A gateway with another configuration may know it.
            return await self._retry(entry, "", self._age_s(int(at_ms)), 0.0)
        data = await self._quota_data(limit, int(percent), int(used), int(at_ms))
        wanting = [
            each
            for each in self.channels
            if each.wants(EventType.QUOTA_THRESHOLD, limit.team) and int(percent) in each.at
        ]
        occasion = f"{counter}\n{begins}\n{percent}"
        made = [notification(each, EventType.QUOTA_THRESHOLD, data, occasion, int(at_ms)) for each in wanting]
        await self._outbox.replace(entry, [_encoded(each) for each in made])
        return 0.0

    async def _quota_data(self, limit: Limit, percent: int, used: int, at_ms: int) -> Mapping[str, object]:
        (status,) = await self._quotas.statuses([limit])
        terms = self._serving().teams.get(limit.team)
        # The window may be over by now: the message has what was used then.
        shown = limit_status_object(msgspec.structs.replace(status, used=max(used, status.used)))
        return {
            **shown,
            "percent": percent,
            "crossed_at": rfc3339(at_ms),
            "team": limit.team or None,
            "owner": (terms.owner if terms is not None else "") or None,
        }

    async def _limit_called(self, counter: str) -> Limit | None:
        """Raises StoreUnavailable."""
        found = await asyncio.to_thread(_find, self._serving(), counter, self._outbox.counter_name)
        if found is None:
            snapshot = await self._quotas.with_stored_keys()
            found = await asyncio.to_thread(_find, snapshot, counter, self._outbox.counter_name)
        return found

    def _age_s(self, at_ms: int) -> float:
        return max(0.0, (self._clock.now_ms() - at_ms) / 1000)


def _find(snapshot: ConfigSnapshot, counter: str, counter_name: Callable[[Limit], str]) -> Limit | None:
    """In a thread: there may be many keys, and the snapshot never changes."""
    quotas = (limit for limit in chain(snapshot.limits_of(), _limits_of_tokens(snapshot, counter)) if limit.is_quota)
    return next((limit for limit in quotas if counter_name(limit) == counter), None)


def _limits_of_tokens(snapshot: ConfigSnapshot, counter: str) -> Iterator[Limit]:
    """Those of the tokens of an identity provider that the counter names: no configuration and no store lists them."""
    for key_id in set(_TOKENS.findall(counter)):
        for terms in snapshot.teams.values():
            yield from terms.caller_of(KeyTerms(key_id, "", subject=key_id)).limits


def _encoded(message: Notification) -> str:
    return msgspec.json.encode(message).decode()
