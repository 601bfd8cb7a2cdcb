"""docker-compose.yml: its own shape, and each service's configuration by that service's own checker."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from bench.free_ports import free_port
from gateway.cli.demo_upstream import demo_upstream
from tests.deploy.processes import ROOT, Json, gateway_command, run, running, tool

COMPOSE = ROOT / "docker-compose.yml"
SECRETS = dict.fromkeys(("REDIS_PASSWORD", "INDUCTA_API_KEY", "GRAFANA_PASSWORD"), "a" * 43)


def services() -> dict[str, Json]:
    found: dict[str, Json] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


async def test_it_has_the_shape_of_a_compose_file() -> None:
    # The rule that is left out forbids `image` beside `build`: here it is the name under which the build is kept.
    await run(tool("dclint"), str(COMPOSE), "--quiet", "--disable-rule", "no-build-and-image")


def test_every_mounted_file_is_there() -> None:
    mounts = [mount for each in services().values() for mount in each.get("volumes", ()) if mount.startswith("./")]
    assert mounts
    assert [mount for mount in mounts if not (ROOT / mount.split(":")[0]).exists()] == []


def test_every_variable_is_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    wanted = set(re.findall(r"(?<!\$)\$\{([A-Z_]+):\?", COMPOSE.read_text(encoding="utf-8")))
    assert wanted == set(SECRETS)
    assert [name for name in wanted if f"\n{name}=\n" not in example] == []


def test_what_depends_on_a_service_waits_until_it_is_well() -> None:
    healthy = {name for name, each in services().items() if "healthcheck" in each} | {"gateway"}
    waits = [(name, on) for name, each in services().items() for on in each.get("depends_on", ())]
    assert [pair for pair in waits if pair[1] not in healthy] == []
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_only_the_data_plane_is_open_to_other_machines() -> None:
    ports = [port for each in services().values() for port in each.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == ["0.0.0.0:${GATEWAY_PORT:-8080}:8080"]


async def test_the_gateway_loads_its_configuration() -> None:
    env = {**SECRETS, "UPSTREAM_URL": "http://demo-upstream:8000/v1", "UPSTREAM_API_KEY": "", "GATEWAY_ADMIN_TOKEN": ""}
    await run(gateway_command(), "check", "-c", str(ROOT / "deploy" / "compose" / "gateway" / "gateway.yaml"), env=env)


def test_the_demo_upstream_knows_its_flags() -> None:
    command = services()["demo-upstream"]["command"]
    assert command[0] == demo_upstream.name
    demo_upstream.make_context("demo-upstream", command[1:])


async def test_redis_starts_with_its_configuration(tmp_path: Path) -> None:
    """The service's own shell command, with its folders put elsewhere."""
    port = str(free_port())
    config = (ROOT / "deploy" / "compose" / "redis.conf").read_text(encoding="utf-8")
    here = (
        config.replace("dir /data", f"dir {tmp_path}")
        .replace("port 6379", f"port {port}")
        .replace("* -::*", "127.0.0.1")
    )
    (tmp_path / "gateway.conf").write_text(here, encoding="utf-8")
    script = services()["redis"]["command"][2].replace("$$", "$")
    script = script.replace("/etc/redis/gateway.conf", "gateway.conf").replace("/run/redis/", "")
    tool("redis-server")
    async with running("sh", "-c", script, env=SECRETS, cwd=tmp_path) as redis:
        await redis.line(lambda line: "Ready to accept connections" in line)
        ask = ("redis-cli", "-p", port)
        assert "NOAUTH" in await run(*ask, "ping")
        health = shlex.split(services()["redis"]["healthcheck"]["test"][1].replace("$$", "$"))
        assert health[1:3] == ["redis-cli", "ping"]
        assert "yes" in await run(*ask, "config", "get", "appendonly", env={"REDISCLI_AUTH": SECRETS["REDIS_PASSWORD"]})


async def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    config = (ROOT / "deploy" / "compose" / "prometheus.yml").read_text(encoding="utf-8")
    rules = ROOT / "helm" / "inducta-gateway" / "alerts.yaml"
    file = tmp_path / "prometheus.yml"
    file.write_text(config.replace("/etc/prometheus/alerts.yaml", str(rules)), encoding="utf-8")
    assert "SUCCESS: 1 rule files found" in await run(tool("promtool"), "check", "config", str(file))


@pytest.mark.parametrize("kind", ["datasources", "dashboards"])
def test_grafana_finds_what_it_is_to_provision(kind: str) -> None:
    (file,) = (ROOT / "deploy" / "compose" / "grafana" / kind).iterdir()
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    mounts = [mount.split(":")[1] for mount in services()["grafana"]["volumes"]]
    assert "/etc/grafana/provisioning" in mounts
    if kind == "dashboards":
        assert told["providers"][0]["options"]["path"] in mounts
    else:
        assert told["datasources"][0]["url"] == "http://prometheus:9090"
