from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.core.address import Address
from gateway.settings import types
from gateway.settings.value_readers import MAX_WHOLE

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
UNITS_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def value(kind: Any, given: Any) -> Any:
    return TypeAdapter(kind).validate_python(given)


def refused(kind: Any, given: Any) -> str:
    with pytest.raises(ValidationError) as invalid:
        value(kind, given)
    (error,) = invalid.value.errors()
    return str(error["msg"]).removeprefix("Value error, ")


@given(st.integers(0, 3650), st.sampled_from(sorted(UNITS_MS)))
def test_a_duration_is_its_number_of_its_unit(number: int, unit: str) -> None:
    expected = timedelta(milliseconds=number * UNITS_MS[unit])
    assert value(types.Duration, f"{number}{unit}") == expected
    assert value(types.Duration, f"{number:_}{unit}") == expected


@given(st.integers(1, 2**20), st.sampled_from(sorted(UNITS_BYTES)))
def test_a_size_is_its_number_of_its_unit_in_bytes(number: int, unit: str) -> None:
    assert value(types.ByteSize, f"{number}{unit}") == number * UNITS_BYTES[unit]
    assert value(types.ByteSize, f"{number:_}{unit}") == number * UNITS_BYTES[unit]


@given(st.integers(1, MAX_WHOLE))
def test_a_count_is_its_digits_however_they_are_grouped(number: int) -> None:
    assert value(types.Count, str(number)) == value(types.Count, f"{number:_}") == value(types.Count, number) == number


@given(st.integers(0, 10**12))
def test_a_price_is_exactly_what_is_written(millionths: int) -> None:
    written = f"{millionths // 10**6}.{millionths % 10**6:06}"
    assert value(types.DollarsPerMillion, written) * 10**6 == millionths


@given(st.text(max_size=20))
def test_text_of_any_kind_is_read_or_refused_with_what_is_allowed(text: str) -> None:
    for kind in (types.Duration, types.ByteSize, types.Count, types.Amount, types.ListenAddress, types.Moment):
        with suppress(ValidationError):
            assert value(kind, text) is not None
            continue
        assert refused(kind, text).startswith("must be ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5 s",
        "s",
        "-5s",
        "+5s",
        "1.5s",
        "5S",
        "5sec",
        "1h30m",
        "٥s",
        "_5s",
        "5_s",
        "1__0s",
        "3651d",
        "9" * 99 + "s",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    assert refused(types.Duration, text) == "must be a duration such as 250ms, 5s, 15m, 24h or 90d, and at most 3650d"


def test_a_wait_is_never_nothing() -> None:
    assert value(types.Wait, "1ms") == timedelta(milliseconds=1)
    assert value(types.Duration, "0s") == timedelta()
    assert refused(types.Wait, "0s") == "must be longer than 0, such as 250ms or 5s"


@pytest.mark.parametrize("text", ["", "10", "10MB", "10mib", "0B", "1.5MiB", "-1MiB", "10 MiB", "9999999999GiB", True])
def test_what_is_no_size_is_refused(text: Any) -> None:
    assert refused(types.ByteSize, text) == "must be a size above 0 such as 512B, 64KiB, 10MiB or 1GiB"


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "+1", "1.0", "1e3", "0x10", "1,000", "many", 0, 1.0, True, str(MAX_WHOLE + 1)]
)
def test_what_is_no_count_is_refused(text: Any) -> None:
    assert refused(types.Count, text).startswith("must be a whole number from 1 to 9007199254740992")


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "1e3", ".5", "1.", "0.0000001", "nan", "inf", True, "9" * 17])
def test_what_is_no_amount_is_refused(text: Any) -> None:
    assert refused(types.Amount, text).startswith("must be a number above 0 with at most 6 decimals")


def test_a_price_has_at_most_six_decimals_that_say_something() -> None:
    assert value(types.DollarsPerMillion, "0.15") == Decimal("0.15")
    assert value(types.DollarsPerMillion, 0.1) == Decimal("0.1")
    assert value(types.DollarsPerMillion, "0.1234560") == Decimal("0.123456")
    assert value(types.DollarsPerMillion, "0") == 0
    for text in ("0.1234567", "-0.1", "1000001", "free"):
        assert refused(types.DollarsPerMillion, text).startswith("must be USD per million tokens: a number from 0 to")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8080", Address("0.0.0.0", 8080)),
        ("[::]:8080", Address("::", 8080)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:65535", Address("localhost", 65535)),
        ("gateway-1.internal:80", Address("gateway-1.internal", 80)),
    ],
)
def test_an_address_is_a_host_and_a_port_and_reads_as_it_is_written(text: str, address: Address) -> None:
    assert value(types.ListenAddress, text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "0.0.0.0",
        "0.0.0.0:",
        "0.0.0.0:65536",
        "::1:80",
        "[::1]",
        "[gg::]:80",
        "256.0.0.1:80",
        "1.2.3:80",
        "a b:80",
        "http://a:80",
        "a..b:80",
        "-a:80",
        "a-.b:80",
        "a" * 64 + ":80",
        "a." * 127 + "b:80",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refused(types.ListenAddress, text).startswith("must be an address and a port from 0 to 65535, such as")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host/v1",
        "ftp://host",
        "http://",
        "http:///v1",
        "https://user:pass@host/v1",
        "http://host/#a",
        "http://host:port/",
        "http://host:0/",
        "http://host:99999/",
        "http://ho st/",
        "http://[::1/v1",
        "HTTP//x",
    ],
)
def test_what_is_no_http_url_is_refused(text: str) -> None:
    assert refused(types.HttpUrl, text).startswith("must be an http:// or https:// URL of a host, a path")


def test_a_base_url_loses_its_last_slashes() -> None:
    assert value(types.HttpUrl, "https://[::1]:8000/v1//") == "https://[::1]:8000/v1"
    assert value(types.HttpUrl, "https://host/v1/?a=b/") == "https://host/v1?a=b/"


def test_a_time_zone_is_one_of_the_iana_database() -> None:
    assert value(types.Timezone, "Europe/Berlin") == ZoneInfo("Europe/Berlin")
    for text in ("", "Europe/Berlyn", "Europe", "../UTC", "/etc/passwd", "CEST", "UTC+1"):
        assert refused(types.Timezone, text).startswith("must be a time zone of the IANA database, such as UTC")


def test_a_moment_is_a_date_or_a_time_of_rfc_3339() -> None:
    assert value(types.Moment, "2027-01-01") == date(2027, 1, 1)
    assert value(types.Moment, "2027-01-01T18:00:00Z") == datetime(2027, 1, 1, 18, tzinfo=UTC)
    assert value(types.Moment, "2027-01-01t18:00:00.5+01:00").utcoffset() == timedelta(hours=1)
    assert value(types.Moment, "2027-01-01 18:00:00").tzinfo is None


@pytest.mark.parametrize(
    "text",
    ["", "2027", "2027-02-30", "2027-1-1", "20270101", "2027-W01-1", "01.01.2027", "2027-01-01T25:00:00Z", "soon"],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    assert refused(types.Moment, text).startswith("must be a date such as 2027-01-01 or a time such as")


@pytest.mark.parametrize("text", ["true", "false", True, False])
def test_a_switch_is_true_or_false(text: Any) -> None:
    assert value(types.Switch, text) is (text in {"true", True})


@pytest.mark.parametrize("text", ["", "yes", "on", "1", 1, "TRUE"])
def test_what_is_no_switch_is_refused(text: Any) -> None:
    assert refused(types.Switch, text) == "must be true or false"


def test_secrets_cannot_smuggle_a_header_and_do_not_show() -> None:
    assert refused(types.Secret, "key\r\nX-Evil: 1") == "must be printable ASCII without spaces"
    assert refused(types.Secret, "schlüssel") == "must be printable ASCII without spaces"
    secret = value(types.Secret, "sk-1234")
    assert "1234" not in f"{secret} {secret!r}"
    assert secret.get_secret_value() == "sk-1234"


def test_a_model_has_whatever_name_its_server_gives_it() -> None:
    for text in (
        "openai/gpt-oss-120b",
        "/models/tiny.gguf:Q4,x=1",
        "My Model Q4_K_M.gguf",
        "{a}\\b",
        "模型 [1]*?",
        "x" * 256,
    ):
        assert value(types.ModelName, text) == value(types.ModelPattern, text) == text
    for text in ("", "a\nb", "a\x00", "a\x7f", "x" * 257):
        assert refused(types.ModelName, text).startswith("must be 1 to 256 characters")


def test_an_origin_is_scheme_host_and_port_as_a_browser_sends_it() -> None:
    for text in ("https://chat.example.com", "http://localhost:3000", "http://[::1]:8080", "app://obsidian.md", "*"):
        assert value(types.Origin, text) == text
    for text in (
        "",
        "chat.example.com",
        "https://Chat.example.com",
        "https://a.example/",
        "https://a,https://b",
        "null",
    ):
        assert refused(types.Origin, text).startswith("must be an origin in lower case")


def test_names_have_no_character_that_a_counter_or_a_label_minds() -> None:
    for text in ("", ".a", "-a", "a/b", "a b", "ä", "x" * 65, "a\n"):
        assert refused(types.ShortName, text).startswith("must be 1 to 64 letters")


def test_header_names_and_values_are_what_rfc_9110_allows() -> None:
    assert value(types.HeaderName, "X-Org") == "X-Org"
    assert value(types.HeaderValue, "a b") == "a b"
    for text in ("", "X Org", "X:", "X\n"):
        assert refused(types.HeaderName, text) == "must be the name of an HTTP header"
    for text in ("", " a", "a ", "a\r\nb", "ü"):
        assert refused(types.HeaderValue, text) == "must be printable ASCII, without spaces at its ends"


def test_workers_are_a_number_of_processes_or_auto() -> None:
    assert [value(types.Workers, right) for right in (1, "8", "512", "auto")] == [1, 8, 512, "auto"]
    for wrong in (0, "0", 513, "513", -1, "", "many", "1.5", True, None, 2.0):
        assert refused(types.Workers, wrong) == "must be a number of processes from 1 to 512, or auto"


@pytest.mark.parametrize("text", ["chat.completions", "messages*", "gemini.*", "*", "audio.?peech"])
def test_an_endpoint_is_named_or_a_glob_fits_some(text: str) -> None:
    assert value(types.EndpointPattern, text) == text


@pytest.mark.parametrize("text", ["", "chat", "Messages", "/v1/messages", "[a-z]*", 5])
def test_what_names_no_endpoint_is_refused_with_the_names(text: Any) -> None:
    said = refused(types.EndpointPattern, text)
    assert said.startswith("must be the name of an endpoint or a glob that fits some, such as chat.completions")


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.1.2.3", "fd00::/8", "0.0.0.0/0"])
def test_a_network_is_read(text: str) -> None:
    assert str(value(types.IpNetwork, text)).startswith(text)


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0/255.0.0.0.0", 10])
def test_what_is_no_network_is_refused(text: Any) -> None:
    assert refused(types.IpNetwork, text).startswith("must be an address or a network such as 10.0.0.0/8")


@pytest.mark.parametrize("given", [4711, 1.5, True])
def test_a_number_in_json_is_not_text_and_the_message_says_what_to_do(given: Any) -> None:
    """In the file every value is text; the admin API gets JSON."""
    for kind in (types.ShortName, types.ModelPattern, types.QueryValue):
        assert refused(kind, given).endswith("; this is not text: put it in quotes")
