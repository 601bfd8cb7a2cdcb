"""Request records in memory: the newest of each team, each for a limited time."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.request_record import ALIKE_MAX, KeptRecord, RequestRecord


class _Alike(NamedTuple):
    """The records of one team under one request id, the newest last."""

    records: list[RequestRecord]
    expires_ms: int


class InMemoryRecords:
    def __init__(self) -> None:
        self._teams: dict[str, dict[str, _Alike]] = {}
        """By team, then by request id in the order of the last writing."""

    def keep(self, kept: KeptRecord, now_ms: int) -> None:
        record = kept.record
        team = self._teams.setdefault(record.team, {})
        self._forget_old(team, now_ms)
        before = team.pop(record.request_id, None)
        records = [*before.records, record][-ALIKE_MAX:] if before is not None else [record]
        team[record.request_id] = _Alike(records, now_ms + kept.keep_ms)
        while len(team) > kept.most:
            del team[next(iter(team))]

    def find(self, request_id: str, now_ms: int) -> list[RequestRecord]:
        found = [team[request_id] for team in self._teams.values() if request_id in team]
        records = [record for alike in found if alike.expires_ms > now_ms for record in alike.records]
        return sorted(records, key=lambda record: record.at_ms, reverse=True)

    def _forget_old(self, team: dict[str, _Alike], now_ms: int) -> None:
        while team:
            oldest = next(iter(team))
            if team[oldest].expires_ms > now_ms:
                return
            del team[oldest]
