"""The systemd unit, by systemd's own checker."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.processes import ROOT, gateway_command, run, tool

UNIT = ROOT / "deploy" / "systemd" / "inducta-gateway.service"


async def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    installed = "/opt/inducta-gateway/bin/gateway"
    unit = UNIT.read_text(encoding="utf-8")
    assert installed in unit
    file = tmp_path / UNIT.name
    file.write_text(unit.replace(installed, gateway_command()), encoding="utf-8")
    said = await run(tool("systemd-analyze"), "verify", "--man=no", str(file))
    assert UNIT.name not in said


def test_systemd_waits_as_long_as_the_drain_takes() -> None:
    assert "TimeoutStopSec=615" in UNIT.read_text(encoding="utf-8")
