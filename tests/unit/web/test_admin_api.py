"""What the admin API answers to a request that is a plain value, wherever that came from."""

from __future__ import annotations

import json

import pytest

from gateway.app.gateway import Gateway
from gateway.app.snapshot_builder import loaded_snapshot
from gateway.core.errors import AdminForbidden, KeyUnknown
from gateway.telemetry.log import Log
from gateway.web.admin_access import check_token
from gateway.web.admin_routes import AdminRequest, AdminResponse
from tests.whole_gateway import configuration, settings_of

TOKEN = {"authorization": "Bearer operators-token"}


def admin_api_of(token: str | None = "operators-token") -> Gateway:
    admin = {"listen": "127.0.0.1:0", **({"token": token} if token else {})}
    settings = settings_of(configuration("http://127.0.0.1:1/v1", admin=admin))
    return Gateway(loaded_snapshot(settings), Log(lambda line: None))


async def answer(request: AdminRequest) -> AdminResponse:
    return await admin_api_of().admin.admin_api(request)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (AdminRequest("GET", "/admin/v1/keys"), 401, "invalid_api_key"),
        (AdminRequest("GET", "/admin/v1/keys", headers={"authorization": "Bearer \ufffd"}), 401, "invalid_api_key"),
        (AdminRequest("GET", "/admin/v1/nothing", headers=TOKEN), 404, "unknown_url"),
        (AdminRequest("DELETE", "/admin/v1/keys", headers=TOKEN), 405, "method_not_allowed"),
        (AdminRequest("GET", "/admin/v1/reload", headers=TOKEN), 405, "method_not_allowed"),
        (AdminRequest("POST", "/admin/v1/reload", headers=TOKEN), 400, "invalid_value"),
        (AdminRequest("GET", "/admin/v1/limits", {"team": "nobody"}, TOKEN), 400, "invalid_value"),
        (AdminRequest("GET", "/admin/v1/upstreams", {"nothing": "1"}, TOKEN), 400, "invalid_value"),
    ],
)
async def test_what_it_does_not_give_is_an_error_as_json(request_: AdminRequest, status: int, code: str) -> None:
    response = await answer(request_)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (status, code)
    assert ("content-type", "application/json") in response.headers


async def test_a_page_is_json() -> None:
    response = await answer(AdminRequest("GET", "/admin/v1/keys", headers=TOKEN))
    assert response.status == 200
    assert json.loads(response.body)["data"][0]["name"] == "search-test"


@pytest.mark.parametrize(("problems", "status"), [([], 200), (["gateway.yaml:1: x"], 400)])
async def test_a_reload_answers_with_the_problems_of_the_file(problems: list[str], status: int) -> None:
    gateway = admin_api_of()

    async def reload(asked_by: str) -> list[str]:
        assert asked_by == "the admin API, from 192.0.2.1"
        return problems

    gateway.on_reload(reload)
    response = await gateway.admin.admin_api(
        AdminRequest("POST", "/admin/v1/reload", headers=TOKEN, client_ip="192.0.2.1")
    )
    assert (response.status, json.loads(response.body)) == (
        status,
        {"taken_up": not problems, "problems": problems},
    )


async def test_a_reload_with_an_unknown_parameter_is_refused_and_reloads_nothing() -> None:
    gateway = admin_api_of()
    asked: list[str] = []

    async def reload(asked_by: str) -> list[str]:
        asked.append(asked_by)
        return []

    gateway.on_reload(reload)
    response = await gateway.admin.admin_api(AdminRequest("POST", "/admin/v1/reload", {"dry_run": "1"}, TOKEN))
    error = json.loads(response.body)["error"]
    assert (response.status, error["param"]) == (400, "dry_run")
    assert error["message"].endswith("there are no parameters.")
    assert asked == []


def test_a_token_is_asked_for_where_one_is_configured_and_nothing_goes_where_none_is() -> None:
    check_token(TOKEN, "operators-token")
    check_token({"authorization": "bearer  operators-token"}, "operators-token")
    with pytest.raises(KeyUnknown, match="Send the admin token"):
        check_token({}, "operators-token")
    with pytest.raises(KeyUnknown, match="Send the admin token"):
        check_token({"authorization": "operators-token"}, "operators-token")
    with pytest.raises(KeyUnknown, match="This is not the admin token"):
        check_token({"authorization": "Bearer another-token"}, "operators-token")
    with pytest.raises(AdminForbidden):
        check_token(TOKEN, "")
