"""How the commands that serve end where the configuration cannot be loaded."""

from __future__ import annotations

import sys

from gateway.app.first_load import FirstLoad
from gateway.app.loaded_snapshot import LoadedSnapshot, LoadFailed
from gateway.cli.config_option import EXIT_INVALID, print_problems

_EXIT_NOT_READ = 1


def loaded_or_end(reading: FirstLoad) -> LoadedSnapshot:
    """One with errors ends the command."""
    try:
        return reading.loaded()
    except LoadFailed as failed:
        print_problems(failed.problems)
        sys.exit(EXIT_INVALID if failed.is_invalid else _EXIT_NOT_READ)
