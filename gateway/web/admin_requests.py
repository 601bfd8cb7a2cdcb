"""Single requests for operators: which are in flight, what happened to one, and how to end one.

One implementation for the admin API and the command line. Requests in flight are in the processes that serve them, of
this gateway and of others: all are asked by way of the store. While the store is out, a gateway still shows what runs
in the process that was asked, and says that this is not all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple, Protocol

import msgspec

from gateway.core.errors import FieldInvalid, StoreUnavailable, UrlUnknown
from gateway.core.json_object import JsonObject
from gateway.core.parameters import refuse_unknown
from gateway.core.request_explanation import explained, record_object
from gateway.core.request_record import RequestRecord
from gateway.core.requests_in_flight import (
    LISTED_MAX,
    ProcessQuestion,
    ProcessReply,
    RequestInFlight,
    in_flight_object,
    understood,
)
from gateway.identity.contract import AuditEntry
from gateway.identity.requests import AdministrationRequest, nothing_at, refuse_method
from gateway.store.contract import ProcessCalls, RecordStore

LIST, MEMBER = "requests", "requests/{id}"
METHODS: Mapping[str, tuple[str, ...]] = {LIST: ("GET",), MEMBER: ("GET", "DELETE")}
"""The methods, by path below /admin/v1."""

_ENCODER = msgspec.msgpack.Encoder()
_REPLY = msgspec.msgpack.Decoder(ProcessReply)


class RequestSources(RecordStore, ProcessCalls, Protocol):
    """The part of a store that is about single requests."""


class LocatedRequest(NamedTuple):
    """A request in flight, and the process that serves it."""

    process: str
    request: RequestInFlight

    def as_json(self) -> JsonObject:
        return in_flight_object(self.process, self.request)


class _Asked(NamedTuple):
    """The replies of processes. `problem` says why they may be incomplete; empty if they are not."""

    found: list[LocatedRequest]
    total: int
    processes: JsonObject
    problem: str


class RequestAdministration:
    """`teams` gives the names of those that are configured. `note` adds to the audit. `answer_here` answers for this
    process, None where it serves no requests."""

    def __init__(
        self,
        sources: RequestSources,
        teams: Callable[[], Collection[str]],
        note: Callable[[AuditEntry], Awaitable[None]],
        answer_here: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._sources = sources
        self._teams = teams
        self._note = note
        self._answer_here = answer_here

    async def answer(self, request: AdministrationRequest) -> JsonObject:
        """Raises FieldInvalid, UrlUnknown, MethodNotAllowed, StoreUnavailable."""
        _, _, request_id = request.path.partition("/")
        refuse_unknown(request.query, ("team",))
        team = request.query.get("team", "")
        if "/" in request_id or request.path.endswith("/"):
            raise nothing_at(request.path)
        if not request_id:
            refuse_method(request.method, METHODS[LIST])
            return await self._list(self._configured(team))
        refuse_method(request.method, METHODS[MEMBER])
        if request.method == "GET":
            return await self._show(request_id, team)
        return await self._cancel(request_id, team, request.actor)

    def _configured(self, team: str) -> str:
        """The team of the query, if it is configured, so that a typing error is not taken for a team without requests.
        A single request may be of a team that a reload has removed. Raises FieldInvalid."""
        known = self._teams()
        if team and team not in known:
            named = ", ".join(sorted(known)) or "none"
            raise FieldInvalid(f"There is no team {team[:64]!r}; there are {named}.", param="team")
        return team

    async def _list(self, team: str) -> JsonObject:
        asked = await self._ask(ProcessQuestion(team))
        found = sorted(asked.found, key=lambda served: served.request.began_ms)[:LISTED_MAX]
        return {
            "data": [served.as_json() for served in found],
            "next": None,
            "total": asked.total,
            "processes": asked.processes,
            "problem": asked.problem or None,
        }

    async def _show(self, request_id: str, team: str) -> JsonObject:
        asked = await self._ask(ProcessQuestion(team, request_id))
        records: list[RequestRecord] = []
        problem = asked.problem
        try:
            records = await self._sources.request_records(request_id, tuple(self._teams()))
        except StoreUnavailable:
            if not asked.found:
                raise
            problem = "The store does not answer, so records of requests that have ended are not shown."
        records = [record for record in records if team in ("", record.team)]
        if not asked.found and not records:
            raise UrlUnknown(_unknown(request_id, asked))
        return {
            "id": request_id,
            "in_flight": [served.as_json() for served in asked.found],
            "records": [{**record_object(record), "explanation": explained(record)} for record in records],
            "problem": problem or None,
        }

    async def _cancel(self, request_id: str, team: str, actor: str) -> JsonObject:
        asked = await self._ask(ProcessQuestion(team, request_id, actor or "an operator"))
        if not asked.found:
            raise UrlUnknown(await self._not_in_flight(request_id, team, asked))
        problem = asked.problem
        ended = [served.as_json() for served in asked.found]
        try:
            for shown in ended:
                await self._note(AuditEntry(actor, "request.cancel", request_id, before=shown))
        except StoreUnavailable:
            problem = "The store does not answer: this is in the log, but not in the audit."
        return {"data": ended, "next": None, "processes": asked.processes, "problem": problem or None}

    async def _not_in_flight(self, request_id: str, team: str, asked: _Asked) -> str:
        try:
            records = await self._sources.request_records(request_id, tuple(self._teams()))
        except StoreUnavailable:
            records = []
        newest = next((record for record in records if team in ("", record.team)), None)
        if newest is None:
            return _unknown(request_id, asked)
        shown = record_object(newest)
        return (
            f"The request {request_id[:128]!r} has ended already: it began at {shown['at']} and ended after"
            f" {newest.duration_s:.1f} s with status {newest.status}. 'gateway explain' says more."
        )

    async def _ask(self, question: ProcessQuestion) -> _Asked:
        packed, problem, asked, replies = _ENCODER.encode(question), "", 0, list[bytes]()
        try:
            answered = await self._sources.ask_processes(packed)
            asked, replies = answered.asked, answered.replies
        except StoreUnavailable:
            if self._answer_here is None:
                raise
            problem = "The store does not answer: only the process that was asked is shown."
        answers = understood(replies, _REPLY)
        by_process = {reply.id: reply for reply in answers}
        if self._answer_here is not None:
            own = _REPLY.decode(self._answer_here(packed))
            # What was cancelled is in the first reply alone.
            by_process.setdefault(own.id, own)
        silent = asked - len(answers)
        if silent > 0:
            problem = f"{silent} of {asked} gateway processes did not answer in time: their requests are missing here."
        found = [LocatedRequest(reply.process, each) for reply in by_process.values() for each in reply.requests]
        processes = {"asked": max(asked, len(by_process)), "answered": len(by_process)}
        return _Asked(found, sum(reply.total for reply in by_process.values()), processes, problem)


def _unknown(request_id: str, asked: _Asked) -> str:
    answered = asked.processes["answered"]
    processes = "the gateway process" if answered == 1 else f"any of the {answered} gateway processes"
    running = f"It is not in flight in {processes} that answered"
    if not asked.processes["asked"]:
        running = "No gateway process runs with this store"
    return (
        f"No request {request_id[:128]!r} is known. {running}, and there is no record of it. Unless the setting"
        " 'record' says otherwise, only requests that failed have one, for a day; where very many are refused at once,"
        " some have none. The log has a line of every request." + (f" {asked.problem}" if asked.problem else "")
    )
