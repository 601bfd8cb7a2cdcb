"""Hundreds of requests as raw bytes, of which each has its one outcome (raw_requests.py), on one gateway after another.

What one of them does must not be felt by the next: all go to the same process.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from gateway.demo import DemoScript, DemoUpstream
from tests.journeys.raw_requests import ADMIN_TOKEN, MAX_BODY_BYTES, RAW_REQUESTS, Forwarded, RawRequest, get
from tests.raw_client import RawClient, raw_client
from tests.whole_gateway import WholeGateway, whole_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


class _Running(NamedTuple):
    gateway: WholeGateway
    upstream: DemoUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[_Running]:
    admin = {"listen": "127.0.0.1:0", "token": ADMIN_TOKEN}
    async with (
        DemoUpstream(DemoScript(chunks=1)) as upstream,
        whole_gateway(upstream.base_url, max_body=f"{MAX_BODY_BYTES}B", admin=admin) as gateway,
    ):
        yield _Running(gateway, upstream)


@pytest.mark.parametrize("row", RAW_REQUESTS, ids=lambda row: row.name)
async def test_a_raw_request_has_its_outcome(
    row: RawRequest, running: _Running, caplog: pytest.LogCaptureFixture
) -> None:
    gateway, upstream = running
    upstream.truth.reset()
    async with raw_client(gateway.admin_port if row.admin else gateway.port) as client:
        client.send(row.sent)
        outcome = await _outcome(client, row)
        outcome += " and kept" if await _is_kept(client) else " and closed"
        assert outcome == " ".join(
            (str(row.status), row.code, row.param or "", "and", "kept" if row.kept else "closed")
        )
    await upstream.truth.quiet()
    reached = [
        Forwarded(served.path, served.body if row.forwarded is None or row.forwarded.body else b"")
        for served in upstream.truth.requests
    ]
    assert reached == ([row.forwarded] if row.forwarded else [])
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
    assert "internal_error" not in json.dumps(gateway.lines[-1:])


async def test_the_table_has_each_request_once() -> None:
    assert len(RAW_REQUESTS) >= 300
    assert [name for name, count in Counter(row.name for row in RAW_REQUESTS).items() if count > 1] == []


async def _outcome(client: RawClient, row: RawRequest) -> str:
    """Status, code and parameter."""
    if row.sent.startswith(b"HEAD"):
        status, _ = await client.head()
        return f"{status} {row.code} "
    reply = await client.answer()
    if reply.status == 200:
        return "200  "
    error = reply.error
    return f"{reply.status} {error['code']} {error['param'] if row.param else ''}"


async def _is_kept(client: RawClient) -> bool:
    """Whether another request is answered. A connection that is not kept brings nothing more, and ends."""
    client.send(get("/healthz"))
    try:
        said = await client.read(2**16)
    except ConnectionError:
        return False
    assert said == b"" or said.startswith(b"HTTP/1.1 200 "), said
    return said != b""
