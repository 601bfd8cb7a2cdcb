"""What everybody knows opens nothing that other machines can reach."""

from __future__ import annotations

import pytest

from gateway.settings.demo_credentials import DEMO_ADMIN_TOKEN, DEMO_KEY, listens_on_loopback
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.loading import parse

CONFIG = """
listen: {listen}
admin: {{listen: "{admin}", token: "${{TOKEN}}"}}
upstreams: {{main: {{base_url: "http://10.0.0.1/v1"}}}}
models: {{small: {{routes: [{{upstream: main}}]}}}}
teams: {{search: {{keys: [{{name: prod, key: "${{KEY}}"}}]}}}}
"""


def load(listen: str, admin: str) -> None:
    environ = {"TOKEN": DEMO_ADMIN_TOKEN, "KEY": DEMO_KEY}
    parse(CONFIG.format(listen=listen, admin=admin), "gateway.yaml", environ)


def test_the_demos_key_works_on_this_machine() -> None:
    load("127.0.0.1:8080", "localhost:9090")


@pytest.mark.parametrize(
    ("listen", "admin", "place"),
    [
        ("0.0.0.0:8080", "127.0.0.1:9090", "teams.search.keys"),
        ("127.0.0.1:8080", "10.0.0.1:9090", "admin.token"),
    ],
)
def test_the_demos_credentials_are_refused_where_others_reach_them(listen: str, admin: str, place: str) -> None:
    with pytest.raises(SettingsInvalid, match=place) as invalid:
        load(listen, admin)
    assert "which is public" in str(invalid.value)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("gateway.internal", False)],
)  # fmt: skip
def test_only_a_loopback_address_is_this_machines_own(host: str, local: bool) -> None:
    assert listens_on_loopback(host) is local
