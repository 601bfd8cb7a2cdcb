"""The key and the admin token of `gateway serve --demo`.

They are always the same, so that yesterday's commands work today. That makes them public: a listener that other
machines can reach refuses them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import ip_address

from gateway.settings.diagnostics import Diagnostic
from gateway.settings.models import Settings

DEMO_KEY = "gw_demo"
DEMO_ADMIN_TOKEN = "gw_demo_admin"  # noqa: S105 # It is no secret.

_DIGEST = hashlib.sha256(DEMO_KEY.encode()).hexdigest()
_REFUSED = "is that of the demo, which is public, and works only on a loopback address; create one of your own"


def listens_on_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def demo_credential_errors(settings: Settings) -> Iterator[Diagnostic]:
    if not all(listens_on_loopback(address.host) for address in settings.listen):
        for name, team in settings.teams.items():
            places = (place for place, key in enumerate(team.keys) if key.digest == _DIGEST)
            yield from (Diagnostic(("teams", name, "keys", place), _REFUSED) for place in places)
    if settings.admin.secret == DEMO_ADMIN_TOKEN and not listens_on_loopback(settings.admin.listen.host):
        yield Diagnostic(("admin", "token"), _REFUSED)
