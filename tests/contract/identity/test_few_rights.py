"""Keys in Redis with the rights that docs/store.md gives the gateway, and without those for messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from tests.contract.identity.conftest import keys_in_redis
from tests.contract.identity.test_keys import entry_of, grant_of, key_of
from tests.redis_servers import RedisServer, redis_server

RIGHTS = "~gw:* resetchannels -@all +@read +@write +@scripting -@dangerous +time +ping +select +cluster|slots +asking"
MESSAGES = "&gw:* +publish +subscribe"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server(tcp=True) as server:
        yield server


def url_of(server: RedisServer, *rights: str) -> str:
    with contextlib.closing(server.client()) as client:
        words = " ".join((RIGHTS, *rights)).split()
        client.execute_command("ACL", "SETUSER", "gateway", "on", ">secret", *words)
    return server.url.replace("redis://", "redis://gateway:secret@")


async def test_the_rights_of_the_documentation_are_enough(server: RedisServer) -> None:
    heard = asyncio.Event()
    async with keys_in_redis(url_of(server, MESSAGES)) as keys, asyncio.timeout(10):
        keys.subscribe(heard.set)
        await heard.wait()
        heard.clear()
        assert await keys.write([key_of(1)], entry_of()) is not None
        await heard.wait()
        await keys.touch({key_of(1).id: 5})
        assert await keys.last_used([key_of(1).id]) == [5]
        assert (await keys.page("search", "", 5)).keys == await keys.get([key_of(1).id])
        assert len((await keys.audit("", 5)).entries) == 1
        await keys.write_grant(grant_of(1), entry_of())
        assert await keys.grants() == [grant_of(1)]
        assert await keys.remove_grant(grant_of(1).id, entry_of()) is not None
        await keys.write([key_of(2, revoked_ms=1)], entry_of())
        assert await keys.forget_revoked(5, 5) == 1


async def test_without_the_rights_for_messages_changes_are_written_and_followed(server: RedisServer) -> None:
    async with keys_in_redis(url_of(server)) as keys, asyncio.timeout(10):
        keys.subscribe(lambda: pytest.fail("there are no messages"))
        position = (await keys.changes("")).position
        assert await keys.write([key_of(1)], entry_of()) is not None
        assert (await keys.changes(position)).ids == [key_of(1).id]


def test_a_month_that_is_closed_without_a_line_in_the_audit_is_reported_as_that(
    server: RedisServer, tmp_path: Path
) -> None:
    with contextlib.closing(server.client()) as client:
        client.execute_command("ACL", "SETUSER", "gateway", "on", ">secret", "+@all", "~gw:*{o}*", "%R~*")
    config = tmp_path / "gateway.yaml"
    config.write_text(
        f"store: {{url: '{server.url.replace('redis://', 'redis://gateway:secret@')}'}}\n"
        "upstreams: {a: {base_url: 'http://127.0.0.1:1/v1'}}\nmodels: {m: {routes: [{upstream: a}]}}\n"
    )
    closing = ("usage", "-c", str(config), "--month", "2020-03")
    ended = CliRunner().invoke(main, [*closing, "--final"])
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.endswith(". 2020-03 is closed, but this is not in the audit.\n")
    assert CliRunner().invoke(main, list(closing)).stderr == "2020-03 is final: it does not change any more.\n"
