"""What operators see and find in the log where an answer of the admin listener fails in a way that was not expected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.core.address import Address
from gateway.runtime.listening import address_taken, listen
from gateway.runtime.turn import Turn
from gateway.web.admin_routes import AdminHandlers, AdminRequest, AdminResponse, AdminRoutes, json_response
from gateway.web.listener import ADMIN_CLIENTS, Listener
from tests.raw_client import RawClient, http_head, raw_client

Noted = list[tuple[str, BaseException]]


async def _fail(*_given: Any) -> Any:
    raise KeyError("a defect")


async def _healthy() -> list[str]:
    return []


async def _echo(request: AdminRequest) -> AdminResponse:
    return json_response(200, {"bytes": len(request.body)})


async def _let_pass(_request: AdminRequest) -> None:
    return None


@asynccontextmanager
async def admin_listener(handlers: AdminHandlers, noted: Noted) -> AsyncIterator[RawClient]:
    routes = AdminRoutes(handlers, lambda what, error: noted.append((what, error)))
    listener = Listener(routes.handle, lambda: "id", ADMIN_CLIENTS, Turn())
    server = await listen(listener, Address("127.0.0.1", 0))
    try:
        async with raw_client(address_taken(Address("127.0.0.1", 0), server).port) as client:
            yield client
    finally:
        server.close()
        await listener.close()


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/admin/v1/usage"])
async def test_a_defect_is_in_the_log_and_leaves_the_connection_usable(path: str) -> None:
    noted: Noted = []
    async with admin_listener(AdminHandlers(*[_fail] * len(AdminHandlers._fields)), noted) as client:
        for _ in range(2):
            client.send(http_head(f"GET {path} HTTP/1.1", {"host": "g"}))
            reply = await client.answer()
            assert (reply.status, reply.error["code"]) == (500, "internal_error")
            assert "defect" not in reply.error["message"]
    assert [(path in what, type(error)) for what, error in noted] == [(True, KeyError)] * 2


async def test_a_body_that_is_not_as_its_head_says_is_the_clients_fault() -> None:
    noted: Noted = []
    handlers = AdminHandlers(_fail, _healthy, _healthy, _echo, _let_pass)
    async with admin_listener(handlers, noted) as client:
        client.send(http_head("POST /admin/v1/keys HTTP/1.1", {"host": "g", "transfer-encoding": "chunked"}))
        client.send(b"2\r\n{}\r\nno chunk\r\n")
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (400, "invalid_request")
    assert noted == []
