"""The head of an answer in bytes."""

from __future__ import annotations

import re

import pytest

from gateway.web.response_head import CHUNKED, field_lines, response_head

DATE = rb"date: (Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n"


def test_it_has_its_headers_in_order_then_the_framing_and_the_date() -> None:
    head = response_head(
        200, field_lines([("a", "1"), ("b", "2")]), "content-length: 5\r\n", version=(1, 1), closes=False
    )
    expected = rb"HTTP/1\.1 200 OK\r\na: 1\r\nb: 2\r\ncontent-length: 5\r\n"
    expected += rb"server: inducta-gateway\r\n" + DATE + rb"\r\n"
    assert re.fullmatch(expected, head)


@pytest.mark.parametrize(
    ("version", "closes", "line"),
    [((1, 1), False, b""), ((1, 1), True, b"close"), ((1, 0), False, b"keep-alive"), ((1, 0), True, b"close")],
)
def test_it_says_what_becomes_of_the_connection(version: tuple[int, int], closes: bool, line: bytes) -> None:
    head = response_head(200, field_lines([("a", "1")]), CHUNKED, version=version, closes=closes)
    assert head.startswith(b"HTTP/%d.%d 200 OK\r\n" % version)
    assert re.findall(rb"connection: (.*)\r\n", head) == ([line] if line else [])


def test_a_connection_header_of_its_own_is_left_alone() -> None:
    head = response_head(426, field_lines([("connection", "upgrade, close")]), "", version=(1, 1), closes=True)
    assert re.findall(rb"connection: (.*)\r\n", head) == [b"upgrade, close"]


@pytest.mark.parametrize("before", [[], [("b", "1")]])
@pytest.mark.parametrize("value", ["1\r\nset-cookie: x", "1\nb: 2", "1\r", "\n"])
def test_a_value_with_a_line_break_is_refused(value: str, before: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="line break"):
        field_lines([*before, ("a", value)])


def test_bytes_that_are_not_utf_8_leave_as_they_came() -> None:
    fields = field_lines([("a", b"\xff".decode("utf-8", "surrogateescape"))])
    head = response_head(200, fields, "", version=(1, 1), closes=False)
    assert b"a: \xff\r\n" in head


def test_a_status_without_a_name_has_an_empty_reason() -> None:
    assert response_head(599, field_lines([("a", "1")]), "", version=(1, 1), closes=False).startswith(
        b"HTTP/1.1 599 \r\n"
    )
