"""Scripts as they are sent: constants are in their places, and everything else is as it is in the files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.store.in_redis.scripts import SCRIPTS, LuaScript

SCRIPT = """-- RATE is a kind.
local RATE = 0
local FORMAT = '<dd'
local UNIT = 2 ^ -53
local DAY_MS = 24 * 3600000
local now = redis.call('TIME')
if kind == RATE then
  return pack(FORMAT, used / UNIT, DAY_MS - RATES)
end
"""


def test_a_constant_is_put_in_wherever_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "script.lua"
    file.write_text(SCRIPT, encoding="utf-8")
    text = LuaScript("script", file).text
    assert "if kind == 0 then" in text
    assert "return pack('<dd', used / (2 ^ -53), (24 * 3600000) - RATES)" in text
    assert "local now = redis.call('TIME')" in text
    assert text.count("\n") == SCRIPT.count("\n")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_no_function_takes_a_constant_from_outside(script: LuaScript) -> None:
    assert re.findall(r"^local [A-Z][A-Z_]* = .*$", script.text, re.MULTILINE) == []
