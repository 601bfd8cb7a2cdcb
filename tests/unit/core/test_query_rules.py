from __future__ import annotations

import msgspec
import pytest

from gateway.core.endpoints import CHAT, MESSAGES, STREAM_GENERATE_CONTENT
from gateway.core.query_rules import asks_events, key_in_query, parameter, passed_query
from gateway.core.snapshot import Upstream
from tests.unit.fakes import incoming_of

UPSTREAM = Upstream("up", "https://up.test/v1?team=a", query="api-version=2024-10-21&Region=eu")


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("", ""),
        ("beta=true", "beta=true"),
        ("b=2&a=%C3%A4&b=1&c", "b=2&a=%C3%A4&b=1&c"),
        ("region=us", "region=us"),
        ("Region=us&team=b&x=1", "x=1"),
        ("api-version=2023-01-01", ""),
        ("API-Version=2023-01-01", ""),
        ("key=K&api_key=K&access_token=K&sig=K&X-Api-Key=K", ""),
        ("model=other&MODEL=other&model[]=x&messages.0=x&max_tokens=1", ""),
        ("%6dodel=other", ""),
        ("a=\x80&b= &c=1", "c=1"),
    ],
)
def test_of_a_query_passes_what_cannot_change_the_request(sent: str, passed: str) -> None:
    assert passed_query(sent, MESSAGES, UPSTREAM, MESSAGES.names_read) == passed


@pytest.mark.parametrize("sent", ["fields=candidates", "alt=json", "alt=proto", "$alt=sse", "%24alt=json", "key=K"])
def test_to_geminis_api_passes_the_form_of_a_stream_alone(sent: str) -> None:
    row = STREAM_GENERATE_CONTENT
    assert passed_query(sent, row, UPSTREAM, row.names_read) == ""
    assert passed_query(f"{sent}&x=1&alt=sse", row, UPSTREAM, row.names_read) == (
        "" if sent[:4] == "alt=" else "alt=sse"
    )


def test_the_first_of_equal_parameters_counts() -> None:
    assert parameter("a=1&b=%202&b=3", "b") == " 2"
    assert parameter("a=b", "b") == ""
    assert not asks_events("alt=json&alt=sse")


def test_a_key_is_read_from_the_query_of_geminis_clients_alone() -> None:
    for endpoint, key in ((STREAM_GENERATE_CONTENT, "K"), (CHAT, "")):
        request = msgspec.structs.replace(incoming_of(b"", endpoint=endpoint), query="alt=sse&key=K")
        assert key_in_query(request) == key
