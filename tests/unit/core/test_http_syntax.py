from __future__ import annotations

import pytest

from gateway.core.http_syntax import (
    BaseUrl,
    is_request_line,
    operator_header_fault,
    read_base_url,
)


def test_a_base_url_is_read_into_what_a_connection_and_a_request_need() -> None:
    assert read_base_url("https://b\u00fccher.example:8443/v1/?a=1") == BaseUrl(
        tls=True,
        host="xn--bcher-kva.example",
        port=8443,
        authority="xn--bcher-kva.example:8443",
        path="/v1",
        query="a=1",
    )


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://h", "h/v1", "http://u@h", "http://h#f", "http://h/a b", "http://h:99999"),
        *("http://a..b/v1", "http://-a/v1", "http://" + "a" * 64),
    ],
)
def test_what_is_no_base_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|must)"):
        read_base_url(text)


@pytest.mark.parametrize("host", ["h", "model_server", "a.b.", "_srv.x", "1.2.3.4", "[::1]", "a" * 63 + ".b"])
def test_every_name_that_can_be_looked_up_is_a_host(host: str) -> None:
    assert read_base_url(f"http://{host}/v1").host == host.strip("[]")


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("x-a", "b", ""),
        ("Upgrade", "h2c", "is a header that the gateway sets itself"),
        ("x a", "b", "is not a valid name of a header"),
        ("x-a", "b\r\nc: d", "contains a line break or control character"),
    ],
)
def test_a_header_of_an_operator_has_at_most_one_fault(name: str, value: str, fault: str) -> None:
    assert operator_header_fault(name, value) == fault


def test_a_request_line_has_no_space_in_it() -> None:
    assert is_request_line("POST", "/v1/models?a=1")
    assert not is_request_line("POST", "/v1 HTTP/1.1")
    assert not is_request_line("PO ST", "/")
