"""`python -m tests.console.pictures`: draws the pictures of the console for the documentation."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.console.test_pages import run
from tests.console.world import TOKEN, busy_gateway, key_of, long_stream

DOCS = Path(__file__).parents[2] / "docs" / "pictures"
TAKEN = {
    "console": "overview-1440-light",
    "console-dark": "teams-search-1440-dark",
    "console-losses": "losses-1440-light",
    "console-usage": "usage-1440-light",
    "me": "me-1440-light",
}
"""By their names in the documentation."""


async def take(folder: Path) -> None:
    async with busy_gateway(days=5) as gateway:
        await run("look.mjs", gateway.admin_url, "/console", TOKEN, str(folder), "losses")
    async with busy_gateway(away=False) as gateway, long_stream(gateway):
        pages = ("overview", "teams/search", "usage")
        await run("look.mjs", gateway.admin_url, "/console", TOKEN, str(folder), *pages)
        await run("look.mjs", f"http://127.0.0.1:{gateway.port}", "/me", key_of("search"), str(folder), "me")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="console-") as folder:
        asyncio.run(take(Path(folder)))
        for name, taken in TAKEN.items():
            picture = DOCS / f"{name}.png"
            picture.write_bytes((Path(folder) / f"{taken}.png").read_bytes())
            if shutil.which("pngquant"):
                subprocess.run(["pngquant", "--force", "--skip-if-larger", "--ext", ".png", "64", picture], check=False)


if __name__ == "__main__":
    main()
