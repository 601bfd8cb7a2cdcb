"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says more about the machine than about the code: tests of speed measure it themselves.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")
