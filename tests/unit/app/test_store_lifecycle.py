from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.store_lifecycle import state_folder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/gateway:/var/lib/other", "XDG_STATE_HOME": "/x"}, Path("/var/lib/gateway")),
        ({"XDG_STATE_HOME": "/x"}, Path("/x/inducta-gateway")),
        ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/inducta-gateway"),
        ({}, Path.home() / ".local/state/inducta-gateway"),
    ],
)
def test_a_journal_lies_where_the_system_keeps_state(environment: dict[str, str], folder: Path) -> None:
    assert state_folder(environment) == folder
