"""Answers questions about this process, of other processes and of its own admin API: which requests run in it, and what
it has lost."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex

import msgspec

from gateway.core.clock import Clock
from gateway.core.exchange import Exchange
from gateway.core.losses import ProcessLosses
from gateway.core.requests_in_flight import ProcessQuestion, ProcessReply, asks_about, oldest, request_in_flight
from gateway.pipeline import Pipeline
from gateway.telemetry.log import Log

_QUESTION = msgspec.msgpack.Decoder(ProcessQuestion)
_ENCODER = msgspec.msgpack.Encoder()


class RequestsInFlight:
    """`process` says where they run, for people. `losses` gives what the process has lost."""

    def __init__(
        self, pipeline: Pipeline, clock: Clock, process: str, log: Log, losses: Callable[[], ProcessLosses]
    ) -> None:
        self._losses = losses
        self._pipeline = pipeline
        self._clock = clock
        self._id = token_hex(8)
        self._process = process
        self._log = log

    def answer(self, packed: bytes) -> bytes:
        """A ProcessQuestion, answered with a ProcessReply or ProcessLosses, all encoded."""
        question = _QUESTION.decode(packed)
        if question.about == "losses":
            return _ENCODER.encode(self._losses())
        asked = [each for each in self._pipeline.running if asks_about(question, each.request, _team(each))]
        if question.cancel_for:
            asked = [each for each in asked if self._cancel(each, question.cancel_for)]
        now_ms, now = self._clock.now_ms(), self._clock.monotonic()
        seen = [request_in_flight(each, now_ms, now) for each in oldest(asked)]
        return _ENCODER.encode(ProcessReply(self._id, self._process, len(asked), seen))

    def _cancel(self, exchange: Exchange, actor: str) -> bool:
        ended = self._pipeline.cancel(exchange)
        if ended:
            self._log.info(
                "request cancelled", request_id=exchange.request.request_id, team=_team(exchange), actor=actor
            )
        return ended


def _team(exchange: Exchange) -> str:
    return exchange.caller.team if exchange.caller is not None else ""
