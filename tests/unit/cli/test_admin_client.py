from __future__ import annotations

import pytest

from gateway.cli.admin_client import AdminClient, AdminUnavailable
from gateway.core.address import Address
from tests.free_ports import free_port
from tests.whole_gateway import configuration, settings_of


@pytest.mark.parametrize(
    ("admin", "why"),
    [
        ({"listen": "127.0.0.1:9090"}, "Set admin.token"),
        ({"listen": "127.0.0.1:9090", "token": ""}, "Set admin.token"),
        ({"listen": "127.0.0.1:0", "token": "t"}, "Give it a port of its own"),
    ],
)
def test_a_gateway_that_cannot_be_asked_is_told_apart_before_anything_is_sent(admin: dict[str, str], why: str) -> None:
    settings = settings_of(configuration("http://127.0.0.1:1/v1", admin=admin))
    with pytest.raises(AdminUnavailable, match=why):
        AdminClient.for_settings(settings)


def test_where_no_gateway_listens_the_error_names_the_address() -> None:
    port = free_port()
    with pytest.raises(AdminUnavailable, match=rf"No gateway answers at http://127\.0\.0\.1:{port}/admin/v1/usage"):
        AdminClient(Address("0.0.0.0", port), "t").get("usage", {})
