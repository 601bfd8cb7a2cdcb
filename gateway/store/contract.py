"""What a store promises. Every backend runs the suite in tests/contract/store.

1. `admit` checks every charge and holds all of them or none; a refusal changes nothing.
2. `settle` is idempotent: it replaces what is held by what was used, once, whatever is retried.
3. A reservation that is neither renewed nor settled gives back its holds within HOLD_TTL_MS.
4. Time is the store's own: callers pass none. If its clock is set, limits go on from the new time.
5. A grant counts from its creation until its end by the store's clock, for every process and to the millisecond.
6. A shadow limit refuses nothing and counts what it would have refused: it is charged as if only it had been enforced.
7. A settlement's record is kept with it, in the same step; a record that cannot be kept never delays a settlement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.errors import StoreUnavailable
from gateway.core.estimate import EstimateSubject, LearnedEstimate
from gateway.core.grants import Grant
from gateway.core.limits import Limit
from gateway.core.losses import LossReport, LossSlot
from gateway.core.request_record import KeptRecord, RequestRecord
from gateway.core.reservation import AdmissionRequest, LimitStatus, Refusal, Reservation, Settlement
from gateway.core.stored_objects import ObjectKind, ObjectName, StoredObject

HOLD_TTL_MS = 60_000
"""The longest life of a hold that is not renewed."""

HOLD_STEPS = 6
"""Holds end together, at whole sixths of HOLD_TTL_MS by the store's clock: each lives for five sixths at least."""

LEDGER_DAYS = 400
"""How long the ledger keeps a day."""


OUTBOX_MAX = 10_000
"""The most notifications that wait in one slot of the store; settle.lua repeats it."""

LOSS_DAYS = 3

OUTBOX_DAYS = 7
"""How long notifications are kept after the last one was put in; settle.lua repeats it."""

OUTBOX_PAST = 100
"""Attempts that are kept, separately of those that delivered and of the others."""

QUOTA_ENTRY, USERS_ENTRY, CROSSED_ENTRY = "quota\n", "users\n", "crossed\n"
"""The beginnings of entries of settlements."""

USERS_WAIT_MS, USERS_PACE_MS = 60_000, 3_600_000
"""How long end users that cross a threshold are gathered, and the least time until more of the same limit, window and
threshold are; settle.lua repeats them."""

USERS_NAMED = 5
"""The number of gathered end users that are named; settle.lua repeats it."""

ESTIMATES_DAYS = 30
"""How long what a process has learned is kept after it was last shared."""

ASKED_S = 0.8
"""How long a question waits for the replies of other processes."""

ESTIMATES_MERGED = 8
"""The number of processes whose estimates about one subject are kept, those that shared last."""


OBJECT_LIFE_MS = {ObjectKind.RESPONSE: 30 * DAY_MS, ObjectKind.CONVERSATION: 400 * DAY_MS}
"""How long the owner of an object is known. OpenAI keeps a response for 30 days, and a conversation until it is deleted
(https://platform.openai.com/docs/guides/conversation-state)."""


class CallRefused(StoreUnavailable):
    """The store answers and refuses this call; it may accept others."""


class UsageQuery(msgspec.Struct, frozen=True):
    """Which rows of the ledger, and grouped by what. Days are YYYY-MM-DD, `until` is exclusive; `by` is any of the
    first fields of a UsageRow; empty filters let everything through."""

    by: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    team: str = ""
    key: str = ""
    model: str = ""
    upstream: str = ""
    cost_center: str = ""
    user: str = ""

    @property
    def is_about_users(self) -> bool:
        return bool(self.user) or "user" in self.by


class UsageRow(msgspec.Struct, gc=False):
    """Sums over one group; the fields that are not grouped by are empty. `cost` is in micro-dollars,
    `estimated` the tokens (input and output) that no upstream reported. The other figures are those of `Usage`."""

    day: str = ""
    month: str = ""
    team: str = ""
    key: str = ""
    model: str = ""
    upstream: str = ""
    cost_center: str = ""
    late: str = ""
    user: str = ""
    requests: int = 0
    input: int = 0
    cached_input: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: int = 0
    cost: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0
    image_output: int = 0
    images: int = 0
    searches: int = 0
    audio_ms: int = 0
    characters: int = 0
    estimated_ms: int = 0


Admission = Coroutine[Any, Any, Reservation | Refusal]
"""The verdict on a request, to come."""

SettlementRest = Coroutine[Any, Any, None]
"""What a settlement still takes: it is settled once this was awaited."""

SettlementEnd = Callable[[SettlementRest | None], None]
"""Gets None once a settlement is settled, or what is left to be awaited. Raises nothing."""


class Counters(Protocol):
    """Every method raises StoreUnavailable if the store does not answer in time."""

    def repeated_refusal(self, request: AdmissionRequest) -> Refusal | None:
        """The refusal of a request that needs at least as much as one that the store has just refused and would refuse
        again. To be asked for before `admit`, which it spares; None: ask the store."""
        ...

    def admit(self, request: AdmissionRequest) -> Admission:
        """Hold what the request asks, or refuse it. The store may be asked at once; its verdict comes as this is
        awaited, which it must be in every case."""
        ...

    async def settle(self, settlement: Settlement) -> None: ...

    def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
        """Settle without being awaited, which nearly always suffices. `then` is called once, now or later. If it is
        given a rest, that has to be awaited in every case, and raises what `settle` would raise."""
        ...

    @property
    def open_ids(self) -> Collection[str]:
        """The reservations of this process that are not settled, by age, as they are whenever this is read."""
        ...

    async def renew(self, ids: Sequence[str]) -> None:
        """Keep the holds of these reservations for another HOLD_TTL_MS, and restore those that ended while the store
        was out; unknown ids are no error."""
        ...

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        """The status of these limits now, in the same order; charges nothing."""
        ...

    async def grant(self, limit: Limit, grant: Grant) -> None:
        """Raise the limit from now until the grant's end; repeating it changes nothing. The limit is known by its
        identity: its amounts are the caller's."""
        ...

    async def withdraw(self, limit: Limit, grant: Grant) -> None:
        """End the grant now; an unknown one is no error."""
        ...


async def settled(counters: Counters, settlement: Settlement) -> None:
    """Implements `settle` by `begin_settlement`."""
    ended: asyncio.Future[SettlementRest | None] = asyncio.get_running_loop().create_future()

    def end(rest: SettlementRest | None) -> None:
        if not ended.cancelled():
            ended.set_result(rest)
        elif rest is not None:
            rest.close()

    counters.begin_settlement(settlement, end)
    rest = await ended
    if rest is not None:
        await rest


class Ledger(Protocol):
    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sums of what was settled, one row a group, sorted by the group. Raises StoreUnavailable."""
        ...

    async def close_ledger(self, until: str) -> bool:
        """Let the days before this one change no more: what is settled for them from now on goes to the first open day,
        marked as `late`. False where the store's clock does not have the next day yet, so that days before `until` may
        still be going on somewhere. Nothing can be opened again. To be repeated where it fails. Raises
        StoreUnavailable."""
        ...

    async def closed_until(self) -> str:
        """The first open day, YYYY-MM-DD; empty where none is closed. Raises StoreUnavailable."""
        ...


class SharedEstimates(Protocol):
    """What processes have learned about requests, so that one that starts need not learn again. A lost estimate loses
    nothing that is charged. Raises StoreUnavailable."""

    async def share_estimates(self, learned: Mapping[EstimateSubject, LearnedEstimate]) -> None:
        """Replace what this process has shared about these."""
        ...

    async def shared_estimates(self) -> dict[EstimateSubject, LearnedEstimate]:
        """The estimates that all processes have shared within ESTIMATES_DAYS, merged; of each subject the newest
        ESTIMATES_MERGED."""
        ...


class StoredObjects(Protocol):
    """The owners of what upstreams keep. `Counters.settle` writes them: of several settlements that name the same
    object the first one counts, for `OBJECT_LIFE_MS`."""

    async def stored_object(self, name: ObjectName) -> StoredObject | None:
        """The owner; None if no team has made it, or its time is over. Raises StoreUnavailable."""
        ...


class RecordStore(Protocol):
    """The records of requests, which are kept for a while, team by team. Raises StoreUnavailable."""

    async def keep_records(self, kept: Sequence[KeptRecord]) -> None:
        """Keep records of requests that have no settlement, by one call for each team."""
        ...

    async def request_records(self, request_id: str, teams: Sequence[str]) -> list[RequestRecord]:
        """The records under a request id, of these teams and of those that the ledger knows, the newest first. Clients
        can choose the id, so there can be several: of one team the newest ALIKE_MAX."""
        ...


class ProcessReplies(msgspec.Struct, frozen=True):
    """The replies of processes, and how many were asked: one that is stuck does not reply."""

    replies: list[bytes]
    asked: int


class ProcessCalls(Protocol):
    """Questions to every gateway process of the store. Nothing is written while no process asks."""

    def answer_processes(self, answer: Callable[[bytes], bytes]) -> None:
        """Answer what others ask, from now on until `close`."""
        ...

    async def ask_processes(self, question: bytes) -> ProcessReplies:
        """Ask every process, including this one if it answers. Returns the replies that come within ASKED_S. Raises
        StoreUnavailable."""
        ...


class Store(Counters, Ledger, SharedEstimates, StoredObjects, RecordStore, ProcessCalls, Protocol):
    async def ping(self) -> None:
        """Return if the store answers. Raises StoreUnavailable."""
        ...

    async def close(self) -> None: ...


class LossStore(Protocol):
    """What all gateways count of losses (core/losses.py), for LOSS_DAYS by time. Raises StoreUnavailable: a part may
    have been added all the same, and counts twice if it is added again."""

    async def add_losses(self, now_ms: int, slots: Sequence[LossSlot]) -> None:
        """Add counts, and replace what is kept by process. The first call of all, also without slots, is when counting
        begins."""
        ...

    async def losses(self, since_ms: int, now_ms: int) -> LossReport:
        """What was counted: the sums, and the slots from the one of `since_ms` on."""
        ...


class WaitingEntry(NamedTuple):
    entry: str
    due_ms: int


class OutboxReport(NamedTuple):
    """The entries that are due first, the number of all that wait, and the last attempts, the newest first."""

    waiting: list[WaitingEntry]
    total: int
    delivered: list[str]
    problems: list[str]


class CounterOwner(NamedTuple):
    """A limit's scope, empty for a name that no counter has; `subject` is that of the limit where it is a key's."""

    scope: str
    subject: str


class NotificationOutbox(Protocol):
    """Notifications that wait to be delivered, for all gateways together.

    An entry is text. Settlements put in that a quota has crossed a threshold, in the same step that charges it:
    `quota`, what `counter_name` calls the counter, the first millisecond of its window, the percent, what is used and
    the time, a line each. Of limits of end users they put in one entry for all who cross a threshold within a while,
    due at its end: `users`, the counter's name with an empty user, the window and the percent. `gather` replaces it by
    `crossed`, the same three, the time, how many users there are, and up to USERS_NAMED of them, a line each.
    Everything else is put in by `post`. An entry is claimed by one deliverer, and free again
    once the lease is over; it stays until it is `done`. OUTBOX_MAX entries wait at most, new ones are dropped then.
    Every method raises StoreUnavailable.
    """

    def counter_name(self, limit: Limit) -> str:
        """The name of this limit's counter in entries of settlements."""
        ...

    def counter_owner(self, counter: str) -> CounterOwner:
        """Whose limit has the counter of this name."""
        ...

    def follow(self, teams: Iterable[str], models: Iterable[str]) -> None:
        """Claim from now on what settlements add for limits of these, and for those of the organisation."""
        ...

    def subscribe(self, note: Callable[[int, int], None]) -> None:
        """Call this with the number of entries that this process has added, and of those that were dropped."""
        ...

    async def claim(self, most: int, lease_ms: int) -> list[str]:
        """Entries that are due. No other deliverer gets them until the lease is over."""
        ...

    async def done(self, entry: str) -> None:
        """Remove it."""
        ...

    async def defer(self, entry: str, wait_ms: int) -> None:
        """Make it due again after this long."""
        ...

    async def replace(self, entry: str, by: Sequence[str]) -> None:
        """Replace it by these, unless it has been removed."""
        ...

    async def gather(self, entry: str) -> None:
        """Replace an entry `users` by what was gathered, unless it has been removed."""
        ...

    async def note(self, attempt: str, *, delivered: bool) -> None:
        """Keep the result of an attempt among the last OUTBOX_PAST of its kind, for operators."""
        ...

    async def report(self, most: int) -> OutboxReport:
        """What waits and the last attempts, at most so many of each."""
        ...

    async def post(self, entries: Sequence[str], flag: str, keep_ms: int) -> bool:
        """Add these and raise the flag for this long. If it is raised already, it is kept for this long again, and
        nothing is added. Returns whether they were added."""
        ...

    async def clear(self, flag: str, entries: Sequence[str]) -> bool:
        """Lower the flag and add these, if it is raised."""
        ...

    @property
    def waiting(self) -> int:
        """The number that waited when entries were last claimed."""
        ...
