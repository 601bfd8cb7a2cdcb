"""The owner of each object that an upstream keeps: one string for each, which is written once and expires.

The command that writes it is sent together with the script of the settlement, in the same round trip: on a cluster they
are in different slots, and both may be repeated.
"""

from __future__ import annotations

import msgspec

from gateway.core.stored_objects import ObjectName, StoredObject
from gateway.store.contract import OBJECT_LIFE_MS
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import StoreKeys


class _Owner(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of an object beside its name. A later version may add to it."""

    team: str
    upstream: str
    model: str


_DECODER = msgspec.json.Decoder(_Owner)


class ObjectRows:
    """Both methods raise StoreUnavailable."""

    def __init__(self, client: Router, keys: StoreKeys) -> None:
        self._client = client
        self._keys = keys

    async def keep(self, made: StoredObject) -> None:
        """Write whose it is, unless that is known."""
        key = self._keys.stored_object(made.name)
        owner = msgspec.json.encode(_Owner(made.team, made.upstream, made.model))
        await self._client.ask(key, ("SET", key, owner, "NX", "PX", OBJECT_LIFE_MS[made.name.kind]))

    async def find(self, name: ObjectName) -> StoredObject | None:
        key = self._keys.stored_object(name)
        text: bytes | None = await self._client.ask(key, ("GET", key))
        if text is None:
            return None
        owner = _DECODER.decode(text)
        return StoredObject(name, owner.team, owner.upstream, owner.model)
