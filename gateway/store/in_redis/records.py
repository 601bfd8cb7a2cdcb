"""Request records in Redis: a hash and its order for each team, as lua/request_records.lua writes them.

A record is looked up by its request id, which does not say its team, so all teams are asked, in a few pipelined calls.
Only an operator waits for that, so no index has to be written with each record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from gateway.core.request_record import KeptRecord, RequestRecord
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import StoreKeys
from gateway.store.in_redis.scripts import KEEP_RECORDS, bulk

_TEAMS_AT_ONCE = 200

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(RequestRecord)


def record_arguments(kept: KeptRecord) -> bytes:
    """The last arguments of settle.lua, as parts of a command."""
    return bulk(kept.record.request_id, _ENCODER.encode(kept.record), kept.keep_ms, kept.most)


class RecordRows:
    def __init__(self, client: Router, keys: StoreKeys) -> None:
        self._client = client
        self._keys = keys

    async def keep(self, kept: Sequence[KeptRecord]) -> None:
        """By one call for each team. Raises StoreUnavailable."""
        teams: dict[str, list[KeptRecord]] = {}
        for one in kept:
            teams.setdefault(one.record.team, []).append(one)
        await asyncio.gather(*[self._keep(team, of_team) for team, of_team in teams.items()])

    async def find(self, request_id: str, teams: Sequence[str]) -> list[RequestRecord]:
        """The newest first. Raises StoreUnavailable."""
        known: set[str] = {"", *teams}
        async for batch in self._client.scan("SSCAN", self._keys.teams()):
            known.update(team.decode() for team in batch)
        asked = sorted(known)
        # A record that was written twice, since the first reply was lost, is one.
        found: dict[str, RequestRecord] = {}
        for at in range(0, len(asked), _TEAMS_AT_ONCE):
            rows = await asyncio.gather(*[self._row(team, request_id) for team in asked[at : at + _TEAMS_AT_ONCE]])
            for line in [line for row in rows if row is not None for line in row.split(b"\n")]:
                # What a newer gateway wrote before it was put back to this one may have what is not known here.
                with suppress(msgspec.DecodeError):
                    record = _DECODER.decode(line)
                    found[record.id] = record
        return sorted(found.values(), key=lambda record: record.at_ms, reverse=True)

    async def _keep(self, team: str, kept: Sequence[KeptRecord]) -> None:
        names = self._keys.request_records(team)
        arguments: list[str | bytes | int] = [kept[-1].keep_ms, kept[-1].most]
        for one in kept:
            arguments += (one.record.request_id, _ENCODER.encode(one.record))
        await self._client.run(KEEP_RECORDS, names[0], KEEP_RECORDS.command(names, arguments))

    async def _row(self, team: str, request_id: str) -> bytes | None:
        key = self._keys.request_records(team)[0]
        row: bytes | None = await self._client.ask(key, ("HGET", key, request_id))
        return row
