"""An upgrade of the chart keeps what the first installation made: helm asks a cluster that knows one Secret."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import yaml
from aiohttp import web

from tests.deploy.processes import Json, run
from tests.deploy.test_chart_renders import one, template, template_command

NAME = "gateway-redis"
KEPT = base64.b64encode(b"made by the first installation").decode()


@asynccontextmanager
async def cluster(secret: Mapping[str, str]) -> AsyncIterator[str]:
    """The URL of an API server that has this Secret."""
    resources = [{"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}]
    found = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "data": dict(secret)}
    answers: dict[str, Json] = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": resources},
        f"/api/v1/namespaces/default/secrets/{NAME}": found,
    }

    async def answer(request: web.BaseRequest) -> web.Response:
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        given = answers.get(request.path)
        return web.json_response(given or missing, status=200 if given else 404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def upgraded(secret: Mapping[str, str], *sets: str) -> list[Json]:
    async with cluster(secret) as url:
        flags = ("--is-upgrade", "--dry-run=server", "--kube-apiserver", url, "--kube-token", "any")
        text = await run(*template_command(), *flags, *(flag for each in sets for flag in ("--set", each)))
    return [each for each in yaml.safe_load_all(text) if each]


def password_uses(resources: list[Json]) -> set[tuple[str, str]]:
    """Secret and key, wherever a container reads the password."""
    pods = [each["spec"]["template"]["spec"] for each in resources if each["kind"] in {"Deployment", "StatefulSet"}]
    variables = [variable for pod in pods for each in pod["containers"] for variable in each.get("env", ())]
    keys = [each["valueFrom"]["secretKeyRef"] for each in variables if each["name"] == "REDIS_PASSWORD"]
    assert len(keys) == len(("gateway", "redis"))
    return {(each["name"], each["key"]) for each in keys}


async def test_the_password_of_the_bundled_redis_is_kept() -> None:
    resources = await upgraded({"password": KEPT})
    assert one(resources, "Secret", NAME)["data"] == {"password": KEPT}
    assert password_uses(resources) == {(NAME, "password")}


async def test_it_is_kept_under_another_key_too() -> None:
    resources = await upgraded({"password": KEPT}, "redis.passwordSecret.key=redis-password")
    assert one(resources, "Secret", NAME)["data"] == {"redis-password": KEPT}
    assert password_uses(resources) == {(NAME, "redis-password")}


async def test_a_secret_without_entries_gets_a_password() -> None:
    made = one(await upgraded({}), "Secret", NAME)["data"]["password"]
    assert len(base64.b64decode(made)) == 32


@pytest.mark.parametrize("flags", [(), ("--is-upgrade",)])
async def test_without_a_cluster_each_rendering_has_another_password_and_nothing_else_differs(
    flags: tuple[str, ...],
) -> None:
    first, second = [(await run(*template_command(), *flags)).splitlines() for _ in range(2)]
    differing = [lines for lines in zip(first, second, strict=True) if lines[0] != lines[1]]
    assert [line.partition(":")[0].strip() for line, _ in differing] == ["password"]


async def test_a_password_of_ones_own_makes_every_rendering_the_same() -> None:
    sets = ("redis.passwordSecret.name=mine", "redis.passwordSecret.key=p")
    first = await template(*sets)
    assert await template(*sets) == first
    resources = [each for each in yaml.safe_load_all(first) if each]
    assert password_uses(resources) == {("mine", "p")}
    assert not [each for each in resources if each["kind"] == "Secret" and each["metadata"]["name"] == NAME]
