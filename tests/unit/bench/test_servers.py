"""A process under measurement is the one that was started: no stranger on its port is measured in its place."""

import socket
import sys
from pathlib import Path

import pytest

from bench.servers import Server


def test_a_port_that_another_program_has_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        begun = Server([sys.executable, "-c", "import time; time.sleep(60)"], port, {0}, tmp_path / "log")
        with pytest.raises(RuntimeError, match=f"Another program listens on port {port}"), begun:
            pytest.fail("the stranger would be measured")
    assert not (tmp_path / "log").exists()
