"""What was lost or is at risk, for operators: `GET /admin/v1/losses`, `gateway losses` and a part of the overview.

The store has what every process has given it, each minute. The processes are asked for the rest, and for the state of
this moment. While the store is out, the process that is asked reports what it has counted itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.clock import Clock
from gateway.core.errors import StoreUnavailable
from gateway.core.json_object import JsonObject
from gateway.core.losses import (
    CHARGED,
    LOSSES,
    LossClass,
    LossReport,
    LossSlot,
    ProcessLosses,
    slot_of,
    with_unsaved,
)
from gateway.core.parameters import refuse_unknown
from gateway.core.requests_in_flight import ProcessQuestion, understood
from gateway.core.time_format import rfc3339
from gateway.identity.requests import AdministrationRequest, nothing_at, refuse_method
from gateway.store.contract import LossStore, ProcessCalls

LIST = "losses"
METHODS = {LIST: ("GET",)}
"""By path below /admin/v1."""

_ENCODER = msgspec.msgpack.Encoder()
_REPLY = msgspec.msgpack.Decoder(ProcessLosses)


class OwnLosses(Protocol):
    """What the process that is asked has counted itself."""

    @property
    def slots(self) -> list[LossSlot]: ...

    @property
    def totals(self) -> dict[str, int]: ...


class LossView(NamedTuple):
    """What is known at `now_ms`. `processes` have replied, of `asked`; `problem` says why it may be incomplete."""

    now_ms: int
    report: LossReport
    processes: Collection[ProcessLosses]
    asked: int
    problem: str

    def as_json(self) -> JsonObject:
        since_ms = self.now_ms if self.report.since_ms is None else self.report.since_ms
        kinds = [self._kind(kind) for kind in LOSSES]
        return {
            "at": rfc3339(self.now_ms),
            "counted_since": rfc3339(since_ms),
            "last_day_since": rfc3339(max(since_ms, slot_of(self.now_ms - DAY_MS))),
            "lost": _of_class(kinds, LossClass.LOST),
            "waiting": self._waiting(),
            "store": self._store(),
            "journal_fails": any(each.journal_fails for each in self.processes),
            "data": kinds,
            "next": None,
            "charged_tokens": self._counted(CHARGED),
            "processes": {"asked": max(self.asked, len(self.processes)), "answered": len(self.processes)},
            "problem": self.problem or None,
        }

    def _kind(self, kind: str) -> JsonObject:
        about = LOSSES[kind]
        times = [(slot.at_ms, slot.counts[kind]) for slot in self.report.slots if slot.counts.get(kind)]
        return {
            "kind": kind,
            "class": about.loss_class.value,
            "what": about.what,
            "meaning": about.meaning,
            **self._counted(kind),
            "last_at": rfc3339(times[-1][0]) if times else None,
            "times": [{"at": rfc3339(at_ms), "number": number} for at_ms, number in times],
        }

    def _counted(self, kind: str) -> JsonObject:
        last_day = sum(slot.counts.get(kind, 0) for slot in self.report.slots)
        return {"last_day": last_day, "total": self.report.totals.get(kind, 0)}

    def _waiting(self) -> JsonObject:
        now = sum(each.waiting for each in self.processes)
        highest = max(self.report.slots, key=lambda slot: slot.most_waiting, default=None)
        if highest is None or highest.most_waiting < max(now, 1):
            return {"now": now, "highest": now, "highest_at": rfc3339(slot_of(self.now_ms)) if now else None}
        return {"now": now, "highest": highest.most_waiting, "highest_at": rfc3339(highest.at_ms)}

    def _store(self) -> JsonObject:
        times = [(slot.at_ms, slot.longest_out_s) for slot in self.report.slots if slot.longest_out_s]
        return {
            "problem": next((each.store_trouble for each in self.processes if each.store_trouble), None),
            "out_s": sum(seconds for _, seconds in times),
            "times": [{"at": rfc3339(at_ms), "seconds": seconds} for at_ms, seconds in times],
        }


class LossAdministration:
    """`here` is what this process replies, and `own` what it has counted; None for a command, which counts nothing."""

    def __init__(
        self,
        store: LossStore,
        calls: ProcessCalls,
        clock: Clock,
        here: Callable[[], ProcessLosses] | None = None,
        own: OwnLosses | None = None,
    ) -> None:
        self._store = store
        self._calls = calls
        self._clock = clock
        self._here = here
        self._own = own

    async def answer(self, request: AdministrationRequest) -> JsonObject:
        """Raises FieldInvalid, UrlUnknown, MethodNotAllowed, StoreUnavailable."""
        if request.path != LIST:
            raise nothing_at(request.path)
        refuse_method(request.method, METHODS[LIST])
        refuse_unknown(request.query, ())
        try:
            # The store comes first: what a process gives it meanwhile is missed once, and not counted twice.
            stored = await self._stored()
            answered = await self._calls.ask_processes(_ENCODER.encode(ProcessQuestion(about=LIST)))
        except StoreUnavailable:
            return self._without_store().as_json()
        processes = {reply.id: reply for reply in understood(answered.replies, _REPLY)}
        if self._here is not None:
            here = self._here()
            processes.setdefault(here.id, here)
        silent = answered.asked - len(processes)
        problem = (
            f"{silent} of {answered.asked} gateway processes did not answer in time: what they counted in the last"
            " minute, and what waits in them, is missing here."
            if silent > 0
            else ""
        )
        return self._view(stored, list(processes.values()), answered.asked, problem).as_json()

    async def summary(self) -> JsonObject:
        """The same without asking other processes: what they counted in the last minute, and what waits in them, is
        missing."""
        here = [] if self._here is None else [self._here()]
        try:
            view = self._view(await self._stored(), here, len(here), "")
        except StoreUnavailable:
            view = self._without_store()
        return view.as_json()

    async def _stored(self) -> LossReport:
        now_ms = self._clock.now_ms()
        return await self._store.losses(now_ms - DAY_MS, now_ms)

    def _view(self, stored: LossReport, processes: Sequence[ProcessLosses], asked: int, problem: str) -> LossView:
        report = with_unsaved(stored, [slot for each in processes for slot in each.unsaved])
        return LossView(self._clock.now_ms(), report, processes, asked, problem)

    def _without_store(self) -> LossView:
        """Raises StoreUnavailable for a command."""
        if self._here is None or self._own is None:
            raise StoreUnavailable("The store does not answer.")
        here = self._here()
        report = LossReport(here.began_ms, self._own.totals, self._own.slots)
        problem = "The store does not answer: only what the process that was asked has counted is shown."
        return LossView(self._clock.now_ms(), report, [here], 1, problem)


def _of_class(kinds: Sequence[JsonObject], loss_class: LossClass) -> JsonObject:
    """The sums of the kinds of a class."""
    return {span: sum(kind[span] for kind in kinds if kind["class"] == loss_class) for span in ("last_day", "total")}
