from __future__ import annotations

import pytest

from gateway.web.representations import accepts_coding, names_tag


@pytest.mark.parametrize("sent", ['"a"', 'W/"a"', '"b", "a"', 'W/"b",W/"a"', "*"])
def test_a_tag_is_found_however_a_proxy_has_written_it(sent: str) -> None:
    assert names_tag(sent, '"a"')


@pytest.mark.parametrize("sent", ["", "a", '"aa"', '"b", "c"', 'w/"a"'])
def test_another_tag_is_not_taken_for_it(sent: str) -> None:
    assert not names_tag(sent, '"a"')


@pytest.mark.parametrize("sent", ["gzip", "br, gzip;q=0.5", "GZIP", "deflate,gzip ; q=1"])
def test_a_coding_is_accepted_that_is_named(sent: str) -> None:
    assert accepts_coding(sent, "gzip")


@pytest.mark.parametrize("sent", ["", "br", "gzip;q=0", "gzip; q=0.000", "x-gzip-like", "identity"])
def test_a_coding_is_not_accepted_that_is_refused_or_not_named(sent: str) -> None:
    assert not accepts_coding(sent, "gzip")
