from __future__ import annotations

import pytest

from gateway.core.address import Address
from gateway.core.limits import Meter
from gateway.settings import DEMO_MODEL, SettingsInvalid, demo_settings

URL = "http://127.0.0.1:9000/v1"


def test_the_demo_has_one_key_one_model_and_limits_to_be_seen() -> None:
    settings = demo_settings("gw_1", URL)
    assert list(settings.models) == [DEMO_MODEL]
    assert settings.models[DEMO_MODEL].price is not None
    (team,) = settings.teams.values()
    (key,) = team.keys
    assert key.key is not None
    assert key.key.get_secret_value() == "gw_1"
    assert {limit.meter for limit in team.limits} >= {Meter.REQUESTS, Meter.TOKENS, Meter.CONCURRENT, Meter.USD}
    assert settings.upstreams["demo"].credential is None
    assert settings.listen == Address("127.0.0.1", 8080)


def test_a_named_server_gets_its_key_and_every_model_that_it_lists() -> None:
    settings = demo_settings("gw_1", URL, api_key="sk-1", models=["tiny.gguf", "a/b"], listen="127.0.0.1:0")
    assert list(settings.models) == ["tiny.gguf", "a/b"]
    assert settings.upstreams["demo"].credential == ("authorization", "Bearer sk-1")
    assert settings.listen.port == 0
    assert all(limit.meter is not Meter.USD for limit in settings.teams["demo"].limits)


def test_what_cannot_be_used_is_told_like_any_configuration() -> None:
    with pytest.raises(SettingsInvalid, match=r"^upstreams\.demo\.base_url: must be an http:// or https:// URL"):
        demo_settings("gw_1", "localhost:9000")
