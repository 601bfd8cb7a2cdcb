"""What admission reserves and settlement corrects: charges, verdicts, limit statuses, settlements.

These values are plain data, because they go to the store and a settlement may wait in a file. None of them can be part
of a circle, so that the search for garbage leaves out those that each request has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from gateway.core.limits import Limit
from gateway.core.request_record import KeptRecord
from gateway.core.stored_objects import StoredObject
from gateway.core.usage import Usage

OUTPUT_SHARE_FLOOR = 2_048
"""Tokens of output that a quota grants in any case, as far as so much is asked for and left."""

CHARGE_MAX = 2**60
"""What a request may ask of one limit: more than any limit has, and less than where a store's integers end."""

_OUTPUT_SHARE = 8


def output_share(left: int, enough: int) -> int:
    """What one request may produce at most, where a quota pays for `left` tokens of output: an eighth, so that requests
    at one time do not exhaust a quota of which little is used, but not less than `enough`."""
    return min(left, max(enough, left // _OUTPUT_SHARE))


class Charge(msgspec.Struct, frozen=True):
    """What one limit is charged for one request: `fixed` plus `per_output` for each token of output.

    `fixed` is in the limit's unit (requests: 1; tokens: the estimated input; usd: the input's
    micro-dollars). `per_output` is in millionths of that unit a token (tokens: 1_000_000; usd:
    pico-dollars a token; requests and concurrent: 0).
    """

    limit: Limit
    fixed: int
    per_output: int = 0


class AdmissionRequest(msgspec.Struct, frozen=True, gc=False):
    """One request's question to the store: may it pass, and how much may it produce?

    `limits`, `fixed` and `per_output` are its charges, column by column, none of them more than CHARGE_MAX. `limits` is
    the same tuple for each request that they bind, so that a store can keep by its identity what it has prepared for
    them.

    Outputs are tokens over all choices. Rates hold `likely`. A quota grants of `most` what `output_share` says, and
    refuses where it has less than `least` left: the verdict says how much was granted.
    """

    id: str
    limits: tuple[Limit, ...]
    fixed: Sequence[int]
    per_output: Sequence[int]
    likely: int
    most: int
    least: int = 1
    enough: int = OUTPUT_SHARE_FLOOR
    """What a quota grants, as far as so much is left, where an eighth of it is less. Not less than `least`."""

    @property
    def charges(self) -> tuple[Charge, ...]:
        """The same row by row."""
        return tuple(map(Charge, self.limits, self.fixed, self.per_output))

    @classmethod
    def of(
        cls,
        name: str,
        charges: Sequence[Charge],
        likely: int,
        most: int,
        least: int = 1,
        enough: int = OUTPUT_SHARE_FLOOR,
    ) -> AdmissionRequest:
        """A request of these charges."""
        limits = tuple([charge.limit for charge in charges])
        fixed, per_output = [charge.fixed for charge in charges], [charge.per_output for charge in charges]
        return cls(name, limits, fixed, per_output, likely, most, least, enough)


class LimitStatus(msgspec.Struct, frozen=True):
    """A limit at one moment. `left` is what another request could take now, never negative.

    `limit` is as raised as it is then. `resets_ms` is the wall time, by the store's clock, at which the limit is whole
    again: a bucket full, a window over, 0 for `concurrent`. `runs_out_ms` is when a quota will be used up at the
    present pace, 0 where it will not in this window; only reports have it.
    """

    limit: Limit
    used: int
    held: int
    left: int
    resets_ms: int
    runs_out_ms: int = 0


class LimitStatuses(msgspec.Struct, frozen=True, gc=False):
    """The status of a request's limits, column by column: that of most of them is never read. `used`, `held` and
    `resets_ms` are those of `LimitStatus`."""

    limits: Sequence[Limit] = ()
    used: Sequence[int] = ()
    held: Sequence[int] = ()
    resets_ms: Sequence[int] = ()
    are_raised: bool = False
    """Whether grants raise any of the limits: `limits` then have the raised amounts."""

    def __len__(self) -> int:
        return len(self.used)

    def __getitem__(self, place: int) -> LimitStatus:
        limit, used, held = self.limits[place], self.used[place], self.held[place]
        return LimitStatus(limit, used, held, max(0, limit.burst - used - held), self.resets_ms[place])

    def __iter__(self) -> Iterator[LimitStatus]:
        return map(self.__getitem__, range(len(self.used)))


class RefusalReason(StrEnum):
    """Why a limit refuses: it is used up; what is left is held; or it never holds so much."""

    SPENT = "spent"
    HELD = "held"
    NEVER = "never"


class Hold(msgspec.Struct, frozen=True):
    """What a limit holds for a reservation. `window_ms` is the start of a quota's window, else 0. `capped`: a shadow
    quota would have granted less output than the request got, and holds no more than that."""

    limit: Limit
    amount: int
    window_ms: int = 0
    capped: bool = False


NONE_CAPPED: frozenset[int] = frozenset()
"""Each empty set that is made takes 200 bytes."""


class Holds(msgspec.Struct, frozen=True, gc=False):
    """What limits hold for a reservation, column by column, since few of its rows are ever read. `amounts` and
    `windows_ms` are those of `Hold`; `capped` has the places of the holds that are."""

    limits: tuple[Limit, ...] = ()
    amounts: Sequence[int] = ()
    windows_ms: Sequence[int] = ()
    capped: frozenset[int] = NONE_CAPPED

    def __len__(self) -> int:
        return len(self.limits)

    def __getitem__(self, place: int) -> Hold:
        return Hold(self.limits[place], self.amounts[place], self.windows_ms[place], place in self.capped)

    def __iter__(self) -> Iterator[Hold]:
        return map(self.__getitem__, range(len(self.limits)))

    @classmethod
    def of(cls, holds: Sequence[Hold]) -> Holds:
        return cls(
            tuple([hold.limit for hold in holds]),
            [hold.amount for hold in holds],
            [hold.window_ms for hold in holds],
            frozenset(capped)
            if (capped := [place for place, hold in enumerate(holds) if hold.capped])
            else NONE_CAPPED,
        )


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """An admitted request: what is held for it, until it is settled or its gateway is dead.

    `granted` is the output that it may produce, in tokens over all choices; `capped` says that this is
    less than `most`, so that the upstream must be given the cap. `limit_statuses` count this request in, in the order
    of the charges. `would_refuse` names the shadow limits that would have refused: as if they had, they hold nothing,
    so `holds` leaves them out.
    """

    id: str
    at_ms: int
    granted: int
    capped: bool
    holds: Holds
    limit_statuses: LimitStatuses
    would_refuse: tuple[Limit, ...] = ()


class Refusal(msgspec.Struct, frozen=True):
    """A refused request: nothing was charged. `limit_status` is that of the limit that refuses (the one
    with the longest wait, where several do), `requested` what it would have been charged.
    `retry_after_ms` is 0 where waiting does not help: NEVER, or the quota `total` spent. `repeats` is the refusal that
    this one repeats, with less time left."""

    limit_status: LimitStatus
    requested: int
    why: RefusalReason
    retry_after_ms: int
    at_ms: int
    limit_statuses: LimitStatuses = LimitStatuses()
    would_refuse: tuple[Limit, ...] = ()
    repeats: Refusal | None = None


class LedgerEntry(msgspec.Struct, frozen=True, gc=False):
    """One line of the bill. `day` is YYYY-MM-DD in the configured time zone; `cost` micro-dollars. `upstream` is empty
    where none was chosen, `user` where the request names no end user. `cost_center` is the team's at that time, so that
    a later change of it leaves the past as it was. `late` is the month of the request, YYYY-MM, where that was closed
    before the request was settled: `day` is the first open day then."""

    day: str
    team: str
    key: str
    model: str
    usage: Usage
    cost: int
    upstream: str = ""
    user: str = ""
    cost_center: str = ""
    late: str = ""


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The truth about a reservation, whose `id`, `at_ms` and `holds` it repeats: by these its holds are found.
    `actual` is what each of the limits is charged in the end. Settling it twice is the same as once. `entry` is None
    where there is nothing to bill: the request never got an answer. `record` is what is kept to explain the request,
    written in the same step."""

    id: str
    at_ms: int
    holds: Holds
    actual: Sequence[int]
    entry: LedgerEntry | None
    record: KeptRecord | None = None
    created: StoredObject | None = None
    """What the upstream keeps of the answer."""

    @property
    def charged(self) -> Sequence[int]:
        """What each limit's counter gets: a shadow quota would have cut the answer to what it held."""
        capped = self.holds.capped
        if not capped:
            return self.actual
        held = self.holds.amounts
        return [min(used, held[place]) if place in capped else used for place, used in enumerate(self.actual)]


def unasked_id(request_id: str) -> str:
    """The id under which a request is settled that was let through without an answer of the store. It is another one,
    since the store may have admitted the request all the same: that is taken back under the request's own id."""
    return f"{request_id}/unasked"
