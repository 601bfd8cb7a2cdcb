from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.free_ports import free_port

pytest.register_assert_rewrite("tests.clients.programs.side_by_side")

WEIGHTS = Path(__file__).parents[3] / "shared" / "models" / "tiny.gguf"
"""It lies beside a development checkout; a clone has none."""


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Where llama.cpp's own server answers, which says the same few words to everybody."""
    with _serving("answers") as origin:
        yield origin


@pytest.fixture(scope="session")
def embedder() -> Iterator[str]:
    """The same, giving embeddings in place of words."""
    with _serving("embeddings") as origin:
        yield origin


@contextmanager
def _serving(what: str) -> Iterator[str]:
    if not WEIGHTS.exists():
        pytest.skip("needs the tiny model in ../shared/models")
    port = free_port()
    script = Path(__file__).with_name("llama_server.py")
    command = [sys.executable, str(script), str(WEIGHTS), str(port), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"serving\n"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
