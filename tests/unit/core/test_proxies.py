from __future__ import annotations

import pytest

from gateway.core.http_syntax import read_base_url
from gateway.core.proxies import EnvironmentProxies, Proxy, read_proxy

PROXY = "http://proxy:3128"


def proxy_for(url: str, **environ: str) -> str:
    """The address of the proxy; empty: none."""
    found = EnvironmentProxies.of(environ).proxy_for(read_base_url(url))
    return str(found or "")


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy:3128", Proxy("proxy", 3128)),
        ("HTTP://proxy/", Proxy("proxy", 80)),
        ("http://[2001:db8::1]:8080", Proxy("2001:db8::1", 8080)),
        ("http://user:p%40ss@proxy:1", Proxy("proxy", 1, "Basic dXNlcjpwQHNz")),
        ("http://user:p@ss@proxy:1", Proxy("proxy", 1, "Basic dXNlcjpwQHNz")),
        ("http://user@proxy:1", Proxy("proxy", 1, "Basic dXNlcjo=")),
    ],
)
def test_a_proxy_is_read(text: str, proxy: Proxy) -> None:
    assert read_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "proxy:3128",
            "https://u:hunter2@p",
            "socks5://p",
            "http://",
            "http://p:0",
            "http://p:99999",
            "http://p/x",
        ),
        *("http://u:hunter2@p..x:1", f"http://{'p' * 64}:1", "http://-p:1", "http://[:::::]:1"),
    ],
)
def test_what_is_no_proxy_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="must be http://HOST:PORT") as refused:
        read_proxy(text)
    assert "hunter2" not in str(refused.value)


def test_a_proxy_never_shows_its_credential() -> None:
    proxy = read_proxy("http://user:hunter2@[::2]:3128")
    assert (str(proxy), repr(proxy)) == ("[::2]:3128", "Proxy([::2]:3128)")


def test_the_scheme_of_the_upstream_names_the_variable() -> None:
    environ = {"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2"}
    assert proxy_for("http://llm.corp", **environ) == "a:1"
    assert proxy_for("https://llm.corp", **environ) == "b:2"
    assert proxy_for("https://llm.corp") == ""


def test_a_variable_in_lower_case_goes_first_even_if_it_is_empty() -> None:
    assert proxy_for("http://llm.corp", HTTP_PROXY=PROXY, http_proxy="http://other:1") == "other:1"
    assert proxy_for("http://llm.corp", HTTP_PROXY=PROXY, http_proxy="") == ""


def test_a_proxy_of_the_environment_needs_no_scheme() -> None:
    assert proxy_for("http://llm.corp", HTTP_PROXY="proxy:3128") == "proxy:3128"


def test_a_proxy_of_the_environment_that_cannot_be_used_is_an_error_that_names_the_variable() -> None:
    with pytest.raises(
        ValueError, match=r"^would be reached through HTTPS_PROXY of the environment, which must be"
    ) as bad:
        proxy_for("https://llm.corp", HTTPS_PROXY="socks5://user:hunter2@proxy")
    assert "hunter2" not in str(bad.value)


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_a_loopback_address_is_reached_directly(host: str) -> None:
    assert proxy_for(f"http://{host}:8000", HTTP_PROXY=PROXY) == ""


@pytest.mark.parametrize(
    "exceptions",
    [
        "*",
        "llm.corp",
        "corp",
        ".corp",
        "*.corp",
        "LLM.CORP",
        "other, llm.corp",
        "a llm.corp",
        "llm.corp:8000",
        ".corp:8000",
    ],
)
def test_no_proxy_excepts_a_name_and_what_is_below_it(exceptions: str) -> None:
    assert proxy_for("http://llm.corp:8000/v1", HTTP_PROXY=PROXY, NO_PROXY=exceptions) == ""


@pytest.mark.parametrize("exceptions", ["", "m.corp", "llm.corp:80", "corp.example", "llm", "10.0.0.0/8", ",", "a/b"])
def test_no_proxy_excepts_nothing_else(exceptions: str) -> None:
    assert proxy_for("http://llm.corp:8000/v1", HTTP_PROXY=PROXY, NO_PROXY=exceptions) == "proxy:3128"


@pytest.mark.parametrize(
    ("url", "exceptions", "is_direct"),
    [
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://10.1.2.3", "10.1.2.3", True),
        ("http://11.1.2.3", "10.0.0.0/8", False),
        ("http://[2001:db8::1]:8000", "2001:db8::/32", True),
        ("http://[2001:db8::1]:8000", "2001:db8::1", True),
        ("http://[2001:db8::1]:8000", "[2001:db8::1]:8000", True),
        ("http://[2001:db8::1]:8000", "[2001:db8::1]:80", False),
    ],
)
def test_no_proxy_excepts_addresses_and_networks(url: str, exceptions: str, is_direct: bool) -> None:
    assert proxy_for(url, HTTP_PROXY=PROXY, NO_PROXY=exceptions) == ("" if is_direct else "proxy:3128")
