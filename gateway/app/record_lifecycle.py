"""The request records of a running gateway: builds what makes and writes them, and follows their settings."""

from __future__ import annotations

import os
from importlib.metadata import version
from socket import gethostname

from gateway.app.process_settings import RecordTerms
from gateway.core.clock import Clock
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import RecordStore
from gateway.store.record_writer import RecordWriter
from gateway.telemetry.request_records import RecordPolicy, RequestRecorder


def process_name() -> str:
    """The place of this process, for people: a container's host name is its name."""
    return f"{gethostname()}:{os.getpid()}"


class RecordLifecycle:
    """`recorder` is what requests use; `start` once the event loop runs."""

    def __init__(self, store: RecordStore, clock: Clock, tasks: BackgroundTasks) -> None:
        self.recorder = RequestRecorder(clock, version("inducta-gateway"), process_name())
        self.writer = RecordWriter(store, self.recorder, tasks)

    def start(self) -> None:
        self.writer.start()

    def follow(self, settings: RecordTerms, teams: int, config: str) -> None:
        """A configuration with this hash and number of teams is in force. Each team, and all requests without a known
        key together, have an equal share of the records, so that none displaces those of another."""
        keep_ms, share = round(settings.keep.total_seconds() * 1000), max(1, settings.most // (teams + 1))
        self.recorder.follow(RecordPolicy(settings.requests, keep_ms, share), config)

    async def close(self) -> None:
        await self.writer.close()
