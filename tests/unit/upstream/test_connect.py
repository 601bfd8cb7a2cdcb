from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.header_rules import HeaderLines
from gateway.core.http_syntax import RESERVED_HEADERS
from gateway.core.snapshot import Upstream
from gateway.upstream.connect import UpstreamOrigin
from gateway.upstream.contract import UpstreamRequest


def origin(base_url: str = "https://api.example/v1", *headers: tuple[str, str]) -> UpstreamOrigin:
    return UpstreamOrigin(Upstream("inducta", base_url, headers=headers))


def outgoing(*headers: tuple[str, str], path: str = "/chat/completions", body: bytes = b"{}") -> UpstreamRequest:
    return UpstreamRequest(path=path, headers=HeaderLines.of(headers), body=body)


@pytest.mark.parametrize(
    ("base_url", "line", "host"),
    [
        ("https://api.example/v1", "POST /v1/chat/completions HTTP/1.1", "api.example"),
        ("https://api.example/v1/", "POST /v1/chat/completions HTTP/1.1", "api.example"),
        ("http://api.example", "POST /chat/completions HTTP/1.1", "api.example"),
        ("http://api.example:8000/a/b", "POST /a/b/chat/completions HTTP/1.1", "api.example:8000"),
        ("https://api.example:443/v1", "POST /v1/chat/completions HTTP/1.1", "api.example"),
        ("http://[2001:db8::1]:8000", "POST /chat/completions HTTP/1.1", "[2001:db8::1]:8000"),
        ("https://x.example/o?api-version=1", "POST /o/chat/completions?api-version=1 HTTP/1.1", "x.example"),
        ("https://bücher.example/v1", "POST /v1/chat/completions HTTP/1.1", "xn--bcher-kva.example"),
    ],
)
def test_a_base_url_becomes_a_request_line_and_a_host(base_url: str, line: str, host: str) -> None:
    lines = origin(base_url).head(outgoing()).decode().split("\r\n")
    assert lines[0] == line
    assert lines[1] == f"host: {host}"


@pytest.mark.parametrize(
    ("base_url", "query", "target"),
    [
        ("http://host/v1", "api-version=2024-10-21", "/v1/chat/completions?api-version=2024-10-21"),
        ("http://host/v1?a=b", "", "/v1/chat/completions?a=b"),
        ("http://host/v1?a=b", "c=d%20e", "/v1/chat/completions?a=b&c=d%20e"),
    ],
)
def test_an_upstreams_query_is_added_to_every_request(base_url: str, query: str, target: str) -> None:
    head = UpstreamOrigin(Upstream("inducta", base_url, query=query)).head(outgoing())
    assert head.startswith(f"POST {target} HTTP/1.1\r\n".encode())


def test_a_query_in_the_path_joins_that_of_the_base_url() -> None:
    head = origin("https://api.example/v1?a=1").head(outgoing(path="/models?b=2"))
    assert head.startswith(b"POST /v1/models?b=2&a=1 HTTP/1.1\r\n")


def test_the_operators_headers_replace_the_clients() -> None:
    head = origin("http://h", ("Authorization", "Bearer upstream"), ("User-Agent", "gateway")).head(
        outgoing(("authorization", "Bearer client"), ("USER-AGENT", "curl"), ("accept", "*/*"))
    )
    assert head == (
        b"POST /chat/completions HTTP/1.1\r\nhost: h\r\naccept-encoding: identity\r\n"
        b"authorization: Bearer upstream\r\nuser-agent: gateway\r\naccept: */*\r\ncontent-length: 2\r\n\r\n"
    )


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS - {"host", "accept-encoding"}))
def test_a_clients_framing_never_passes(name: str) -> None:
    head = origin().head(outgoing((name.title(), "chunked")))
    assert head.lower().count(name.encode() + b":") == (name == "content-length")


def test_a_header_that_is_not_utf8_leaves_with_the_bytes_that_it_came_with() -> None:
    value = b"caf\xe9 \xc3\xa9".decode("utf-8", "surrogateescape")
    assert b"user-agent: caf\xe9 \xc3\xa9\r\n" in origin().head(outgoing(("user-agent", value)))


@pytest.mark.parametrize(
    "base_url",
    [
        "ftp://api.example",
        "api.example/v1",
        "https:///v1",
        "https://user:password@api.example",
        "https://api.example/v1#part",
        "https://api.example/a b",
        "https://api.example/é",
        "https://api.example/v1?a=b c",
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url of upstream 'inducta'"):
        origin(base_url)


@pytest.mark.parametrize("port", ["0x1", "99999"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match="base_url of upstream 'inducta' is not a URL"):
        origin(f"http://api.example:{port}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-a", "s3cret\r\nx-b: 1"),
        ("x-a", "s3cret\n"),
        ("x-a", "s3cret\x00"),
        ("x a", "s3cret"),
        ("x-a:", "s3cret"),
        ("", "s3cret"),
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
    ],
)
def test_an_operators_header_that_cannot_be_sent_is_refused_without_its_value(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="'inducta'") as refused:
        origin("http://h", (name, value))
    assert "s3cret" not in str(refused.value)


@given(
    name=st.text(min_size=1, max_size=6),
    value=st.text(max_size=12),
    path=st.text(max_size=8),
)
def test_no_header_and_no_path_can_add_a_line(name: str, value: str, path: str) -> None:
    try:
        head = origin("http://h").head(outgoing((name, value), path=f"/{path}"))
    except ValueError:
        return
    lines = head.split(b"\r\n")
    added = [line for line in lines if line.lower().startswith(name.lower().encode() + b": ")]
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert len(lines) == 6 + (len(added) > 0 and name.lower() not in RESERVED_HEADERS)


def test_a_get_without_a_body_has_no_length() -> None:
    head = origin().head(UpstreamRequest(path="/models", headers=HeaderLines(), body=b"", method="GET"))
    assert b"content-length" not in head


def test_a_post_without_a_body_says_so() -> None:
    assert b"content-length: 0\r\n" in origin().head(outgoing(body=b""))
