"""The console and /me in a real browser while the gateway fails, hangs, or has very little or very much to say.

The script gives the answers itself and moves the page's clock, so that nothing depends on how fast the machine is.
"""

from __future__ import annotations

from tests.console.test_pages import pytestmark as needs_a_browser
from tests.console.test_pages import run
from tests.console.world import TOKEN
from tests.whole_gateway import KEY, whole_gateway

NOWHERE = "http://127.0.0.1:1/v1"
pytestmark = needs_a_browser


async def test_every_state_of_a_page_is_shown_as_what_it_is() -> None:
    async with whole_gateway(NOWHERE, admin={"listen": "127.0.0.1:0", "token": TOKEN}) as gateway:
        failures = await run("states.mjs", gateway.admin_url, TOKEN)
    assert failures == []


async def test_every_state_of_the_page_of_a_key_is_shown_as_what_it_is() -> None:
    async with whole_gateway(NOWHERE) as gateway:
        failures = await run("me_states.mjs", f"http://127.0.0.1:{gateway.port}", KEY)
    assert failures == []
