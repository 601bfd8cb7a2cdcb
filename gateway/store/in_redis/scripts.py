"""The Lua scripts as they are sent: each file with counter.lua in front of it, known by the SHA-1 of the whole."""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path

_FOLDER = Path(__file__).with_name("lua")


class LuaScript:
    def __init__(self, name: str) -> None:
        self.name = name
        text = "\n".join((_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in ("counter", name))
        self.text = text
        # Redis names scripts by SHA-1; nothing is proven by it.
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


SCRIPTS = tuple(LuaScript(name) for name in ("admit", "settle", "renew", "give_back", "close"))
ADMIT, SETTLE, RENEW, GIVE_BACK, CLOSE = SCRIPTS

LOADING = tuple(("SCRIPT", "LOAD", script.text) for script in SCRIPTS)
"""The commands that a new connection begins with, so that the server knows every script."""
