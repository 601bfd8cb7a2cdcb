"""`gateway init`, and then the steps that it prints, as they are."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from bench.free_ports import free_port
from tests.deploy.processes import run, running

STEP = re.compile(r"^\d\. .*?\n\n(.*?)(?=\n\n\d\.|\Z)", re.MULTILINE | re.DOTALL)


async def test_the_steps_that_it_prints_lead_to_an_answer(tmp_path: Path) -> None:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    printed = await run(sys.executable, "-m", "gateway", "init", "my gateway", env=env, cwd=tmp_path)
    listen, admin, upstream = free_port(), free_port(), free_port()
    for file in ("gateway.yaml", ".env"):
        path = tmp_path / "my gateway" / file
        path.write_text(_moved(path.read_text(), listen, admin, upstream))
    load, model, serve, ask = STEP.findall(_moved(printed, listen, admin, upstream))
    folder, values, check = load.splitlines()
    start = f"{folder}\n{values}\n"
    async with running("bash", "-ec", f"{start}exec {model.removesuffix(' &')}", env=env, cwd=tmp_path) as demo:
        await demo.line(lambda line: "listens on" in line)
        async with running("bash", "-ec", f"{start}{check}\nexec {serve}", env=env, cwd=tmp_path) as gateway:
            await gateway.line(lambda line: '"serving"' in line)
            assert await gateway.line(lambda line: "is valid: 1 upstream" in line)
            answer = await run("bash", "-ec", f"{start}{ask}", env=env, cwd=tmp_path)
    assert answer.rstrip().endswith("data: [DONE]")


def _moved(text: str, listen: int, admin: int, upstream: int) -> str:
    text = text.replace(":8080", f":{listen}").replace("127.0.0.1:9090", f"127.0.0.1:{admin}")
    return text.replace("--port 9000", f"--port {upstream}").replace(":9000", f":{upstream}")
