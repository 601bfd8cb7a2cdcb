"""Browser sessions in both stores of keys."""

from __future__ import annotations

import asyncio

from gateway.identity.contract import KeyStore


async def test_a_session_is_kept_until_it_is_ended(keys: KeyStore) -> None:
    await keys.keep_session("console:a", "a holder", 60_000)
    await keys.keep_session("console:b", "another", 60_000)
    assert await keys.session("console:a") == "a holder"
    await keys.end_session("console:a")
    assert await keys.session("console:a") is None
    assert await keys.session("console:b") == "another"
    await keys.end_session("console:a")


async def test_a_session_expires(keys: KeyStore) -> None:
    await keys.keep_session("console:a", "a holder", 1)
    async with asyncio.timeout(10):
        while await keys.session("console:a") is not None:
            await asyncio.sleep(0)
