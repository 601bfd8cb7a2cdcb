from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.clients.programs.side_by_side")
