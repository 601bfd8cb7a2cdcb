"""What keeps a gateway from starting is found by a child process, and ends the command as if it was found here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT
from tests.whole_gateway import configuration

PATIENCE_S = 60

KILLED = """
import os, signal, sys
from gateway.app.first_load import FirstLoad
from gateway.cli.first_load import loaded_or_end

reading = FirstLoad(sys.argv[1])  # A pipe that nobody writes to: the child waits for it.
os.kill(reading._child, signal.SIGKILL)
loaded_or_end(reading)
"""

LATE = """
import os, sys
from gateway.app.first_load import FirstLoad

reading = FirstLoad(sys.argv[1])
loaded = reading.loaded()
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print(len(loaded.snapshot.callers), loaded.settings.text.count("sha256"))
"""


def ended(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def written(folder: Path, **changes: object) -> str:
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(configuration("http://127.0.0.1:1/v1", **changes), indent=1))
    return str(file)


@pytest.mark.parametrize("command", [("serve",), ("worker", '{"worker":1,"ports":[0]}')], ids=["serve", "worker"])
def test_errors_of_the_configuration_are_those_of_gateway_check(command: tuple[str, ...], tmp_path: Path) -> None:
    path = written(tmp_path, listn="x", keepalive="soon", limits=[{"requests": 5}])
    name, *arguments = command
    refused = ended("-m", "gateway", name, "-c", path, *arguments)
    checked = ended("-m", "gateway", "check", "-c", path)
    assert refused.stderr.count("\n") == 3
    assert (refused.returncode, refused.stdout) == (2, "")
    assert set(refused.stderr.splitlines()) <= set(checked.stderr.splitlines())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = ended("-m", "gateway", "serve", "-c", str(tmp_path / "none.yaml"))
    assert refused.returncode == 2
    assert "none.yaml: cannot be read: No such file or directory; name a configuration with -c FILE" in refused.stderr


def test_a_reading_process_that_is_killed_ends_the_start(tmp_path: Path) -> None:
    pipe = tmp_path / "gateway.yaml"
    os.mkfifo(pipe)
    refused = ended("-c", KILLED, str(pipe))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"{pipe} cannot be read: the process that reads it ended with SIGKILL\n"


def test_a_configuration_that_does_not_fit_into_a_pipe_is_read_whole(tmp_path: Path) -> None:
    keys = [{"name": f"k{number}", "sha256": f"{number:064x}"} for number in range(1, 1501)]
    whole = ended("-c", LATE, written(tmp_path, team={"keys": keys}))
    assert (whole.stdout, whole.stderr) == ("1500 1500\n", "")
