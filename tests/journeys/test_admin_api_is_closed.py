"""The admin API answers nobody but operators, whatever is asked of it."""

from __future__ import annotations

import json

import pytest

from gateway.web.admin_openapi import PREFIX, admin_document
from tests.whole_gateway import KEY, whole_gateway

NOWHERE = "http://127.0.0.1:1/v1"
TOKEN = "operators-token-2f8c1d"
SIGN_IN = f"{PREFIX}session"
"""Where an operator's token is exchanged for a cookie: it is in the body there."""

PAGES = [
    (method.upper(), path.replace("{id}", "000000000000"))
    for path, methods in json.loads(admin_document())["paths"].items()
    for method in methods
    if path.startswith(PREFIX) and path != SIGN_IN
]
REFUSED = {
    "no token": {},
    "a wrong token": {"authorization": "Bearer another"},
    "the beginning of the token": {"authorization": f"Bearer {TOKEN[:-1]}"},
    "a key of the data plane": {"authorization": f"Bearer {KEY}"},
    "a key where clients may send it": {"x-api-key": KEY},
    "the token where clients may send it": {"x-api-key": TOKEN},
    "the token by another scheme": {"authorization": f"Basic {TOKEN}"},
    "an empty token": {"authorization": "Bearer "},
}


async def test_every_page_refuses_who_has_no_operator_s_token() -> None:
    async with whole_gateway(NOWHERE, admin={"listen": "127.0.0.1:0", "token": TOKEN}) as gateway:
        for method, path in PAGES:
            for what, headers in REFUSED.items():
                reply = await gateway.request(method, path, admin=True, headers=headers, data=b"{}")
                code = reply.error["code"] if method != "HEAD" else "invalid_api_key"
                assert (reply.status, code) == (401, "invalid_api_key"), (method, path, what)
        audit = await gateway.request("GET", f"{PREFIX}audit", admin=True, headers={"authorization": f"Bearer {TOKEN}"})
        assert audit.json["data"] == []


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
async def test_without_a_configured_token_every_page_is_closed(headers: dict[str, str]) -> None:
    async with whole_gateway(NOWHERE) as gateway:
        for method, path in PAGES:
            reply = await gateway.request(method, path, admin=True, headers=headers, data=b"{}")
            code = reply.error["code"] if method != "HEAD" else "admin_forbidden"
            assert (reply.status, code) == (403, "admin_forbidden"), (method, path)


async def test_the_operator_s_token_is_no_key_of_the_data_plane() -> None:
    async with whole_gateway(NOWHERE, admin={"listen": "127.0.0.1:0", "token": TOKEN}) as gateway:
        for header in ({"authorization": f"Bearer {TOKEN}"}, {"x-api-key": TOKEN}):
            assert (await gateway.request("GET", "/v1/models", headers=header)).status == 401
        assert (
            await gateway.request("GET", "/admin/v1/keys", headers={"authorization": f"Bearer {TOKEN}"})
        ).status == 404
