"""Read this first: a request's whole way, one line a stage.

authenticate → receive → read → admit → pick → forward → relay, then always, exactly once: part → settle → record.
The stages are in `stages/`, the words they speak in `core/`; docs/life-of-a-request.md tells the story.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from gateway.core.arrival import Arrival
from gateway.core.caller import Caller
from gateway.core.catalogue import Catalogue
from gateway.core.clock import Clock
from gateway.core.errors import ClientGone, GatewayError, InternalError, ShuttingDown
from gateway.core.estimate import Estimates
from gateway.core.exchange import Exchange
from gateway.core.sink import Sink
from gateway.core.standing import limit_headers
from gateway.stages.admit import admit
from gateway.stages.authenticate import authenticate
from gateway.stages.forward import Way, forward
from gateway.stages.part import Parting
from gateway.stages.pick import pick
from gateway.stages.read import read
from gateway.stages.receive import receive
from gateway.stages.record import Complain, Recorder, record
from gateway.stages.relay import relay
from gateway.stages.settle import settle
from gateway.store.contract import Store

Page = Callable[[Exchange, Sink], Awaitable[None]]
"""What the door answers by itself. Raises a GatewayError for what it does not have."""


@dataclass(slots=True)
class Rooms:
    """What the journey passes through. A reload swaps `catalogue`; a request keeps the one it began with."""

    catalogue: Catalogue
    store: Store
    way: Way
    zone: tzinfo
    recorders: Sequence[Recorder]
    complain: Complain
    clock: Clock
    new_id: Callable[[], str]
    estimates: Estimates
    keepalive_s: float


class Journey:
    """Answers requests, and owns what must still happen after an answer has ended."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self._running: set[asyncio.Task[Any]] = set()
        self._parting = Parting(rooms.clock)
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        return len(self._running)

    async def answer(self, arrival: Arrival, sink: Sink) -> None:
        """Give `sink` an answer, whatever happens. Raises nothing but the cancellation by a client that left."""
        await self._carry(Exchange(self.rooms.new_id(), arrival), sink, self._answer)

    async def answer_here(self, arrival: Arrival, sink: Sink, page: Page) -> None:
        """Let the door answer by itself, with the same errors, drain and record as a journey."""
        await self._carry(Exchange(self.rooms.new_id(), arrival, status=200), sink, page)

    async def _carry(self, exchange: Exchange, sink: Sink, work: Page) -> None:
        task = asyncio.current_task()
        assert task is not None, "a journey runs in a task"
        self._running.add(task)
        try:
            await work(exchange, sink)
        except GatewayError as error:
            self._refuse(exchange, sink, error)
        except asyncio.CancelledError:
            if sink.gone:
                self._refuse(exchange, sink, ClientGone("The client left."))
                raise
            # `cut_short` cancels the work alone: the door must still be able to send what it is told.
            task.uncancel()
            self._refuse(exchange, sink, ShuttingDown("The gateway is shutting down."))
        except Exception as defect:  # noqa: BLE001 # A defect of ours: the client learns that much, the log all of it.
            self.rooms.complain(f"request {exchange.arrival.request_id} failed", defect)
            self._refuse(
                exchange, sink, InternalError("The gateway failed. Its operators find the request id in the log.")
            )
        finally:
            self._running.discard(task)
            # In a task of the process, so that no second cancellation can lose a settlement.
            self._own(self._close(exchange))

    def caller(self, arrival: Arrival) -> Caller:
        """Whose key the arrival carries. Raises KeyMissing, KeyUnknown, KeyExpired."""
        return authenticate(arrival.headers, self.rooms.catalogue, self.rooms.clock)

    async def _answer(self, exchange: Exchange, sink: Sink) -> None:
        rooms, arrival, catalogue = self.rooms, exchange.arrival, self.rooms.catalogue
        exchange.caller = caller = authenticate(arrival.headers, catalogue, rooms.clock)
        body = await receive(arrival)
        exchange.envelope = envelope = read(body, arrival.endpoint, caller, catalogue)
        exchange.reservation = reservation = await admit(exchange, caller, envelope, rooms.estimates, rooms.store)
        if envelope.stream:
            sink.keep_alive(rooms.keepalive_s, limit_headers(reservation.standings, reservation.at_ms))
        targets = pick(envelope, rooms.way.traffic, rooms.clock)
        exchange.answer = answer = await forward(exchange, envelope, targets, rooms.way, sink)
        await relay(exchange, envelope, answer, sink, rooms.clock)

    async def _close(self, exchange: Exchange) -> None:
        rooms, name = self.rooms, f"request {exchange.arrival.request_id}"
        exchange.ended = rooms.clock.monotonic()
        await self._tried(self._parting.part(exchange), f"{name} did not leave its upstream well")
        await self._tried(settle(exchange, rooms.estimates, rooms.zone, rooms.store), f"{name} is not settled")
        record(exchange, rooms.recorders, rooms.complain)

    async def _tried(self, work: Coroutine[Any, Any, None], complaint: str) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 # Whatever it is, what comes after must still be done.
            self.rooms.complain(complaint, error)

    def _refuse(self, exchange: Exchange, sink: Sink, error: GatewayError) -> None:
        exchange.error = error
        reservation = exchange.reservation
        if not sink.begun:
            exchange.status = error.status
        if reservation is not None:
            error.headers = limit_headers(reservation.standings, reservation.at_ms)
        sink.refuse(error)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def cut_short(self) -> None:
        """Cancel what is still running: its clients are told that the gateway shuts down."""
        for task in self._running:
            task.cancel()
        self._parting.cut_short()

    async def idle(self) -> None:
        """Wait until nothing runs, and all that ended is settled and recorded."""
        while self._running:
            await asyncio.wait(self._running)
        await self.closed()

    async def closed(self) -> None:
        """Wait until every answer that has ended is settled and recorded."""
        while self._closing:
            await asyncio.wait(self._closing)
