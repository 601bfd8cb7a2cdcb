"""`gateway reload`: what an operator sees of a reload, whether the file is accepted or refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from tests.gateway_process import gateway_process
from tests.whole_gateway import Json, configuration

NOWHERE = "http://127.0.0.1:1/v1"
TOKEN = "operators-token-2f8c1d"


def written(file: Path, **changes: object) -> Json:
    config = configuration(NOWHERE, **changes)
    file.write_text(json.dumps(config))
    return config


async def reload(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, ["reload", *words])


@pytest.mark.slow
async def test_a_good_file_is_in_force_afterwards_and_a_bad_one_is_refused_with_its_problems(tmp_path: Path) -> None:
    file, operators = tmp_path / "gateway.yaml", str(tmp_path / "operators.yaml")
    admin: Json = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with gateway_process(config=written(file, admin=admin), folder=tmp_path) as gateway:
        written(Path(operators), admin={**admin, "listen": f"127.0.0.1:{gateway.admin_port}"})
        written(file, admin=admin, keepalive="3s")
        accepted = await reload("-c", operators)
        assert (accepted.exit_code, accepted.stderr) == (0, "")
        assert accepted.stdout.startswith("The configuration is reloaded.")
        written(file, admin=admin, keepalive="soon")
        refused = await reload("-c", operators)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "gateway.yaml:1: keepalive: must be a duration" in refused.stderr
        as_json = await reload("-c", operators, "--json")
        report = json.loads(as_json.stdout)
        assert (as_json.exit_code, report["taken_up"], len(report["problems"])) == (1, False, 1)


@pytest.mark.parametrize(
    ("admin", "says"),
    [
        ({}, "Set admin.token"),
        ({"listen": "127.0.0.1:1", "token": TOKEN}, "No gateway answers at http://127.0.0.1:1/admin/v1/reload"),
    ],
)
async def test_a_gateway_that_cannot_be_asked_is_an_error_in_one_line(
    admin: dict[str, str], says: str, tmp_path: Path
) -> None:
    written(tmp_path / "gateway.yaml", admin=admin)
    result = await reload("-c", str(tmp_path / "gateway.yaml"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
