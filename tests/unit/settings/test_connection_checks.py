from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.settings.configurations import TEAM, VALID, assert_refused, assert_warned, loaded

SHAPE = "must be http://HOST:PORT, perhaps with USER:PASSWORD@ (percent-encoded) before the host"
UNFIT = "and `key`, which has no password, do not fit: one certificate in PEM and its private key are needed"
ALONE = "must hold a certificate in PEM and its private key without a password; or name the key's file in `key`"


def upstream(base_url: str = "https://llm.corp/v1", **settings: str) -> str:
    written = "".join(f", {name}: {value}" for name, value in settings.items())
    return VALID.replace("{base_url: http://127.0.0.1:9000/v1}", f"{{base_url: {base_url}{written}}} # !")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two pairs, one.pem with one.key and two.pem with two.key; locked.key is one.key under a password."""
    folder = tmp_path_factory.mktemp("pem")
    for name in ("one", "two"):
        certificate = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        files = ("-subj", f"/CN={name}", "-out", folder / f"{name}.pem", "-keyout", folder / f"{name}.key")
        subprocess.run([*certificate, *files], check=True, capture_output=True)
    lock = ("openssl", "ec", "-in", folder / "one.key", "-aes128", "-passout", "pass:x", "-out", folder / "locked.key")
    subprocess.run(lock, check=True, capture_output=True)
    return folder


def test_a_proxy_is_a_url_of_plain_http_or_none() -> None:
    assert_refused(upstream(proxy="socks5://proxy"), f"upstreams.main.proxy: {SHAPE}, or none")
    assert loaded(upstream(proxy="none")).settings.upstreams["main"].proxy == "none"


def test_a_proxy_of_the_environment_that_cannot_be_used_is_named_by_its_variable() -> None:
    environ = {"https_proxy": "socks5://user:hunter2@proxy"}
    told = f"would be reached through HTTPS_PROXY of the environment, which {SHAPE}"
    assert_refused(upstream(), f"upstreams.main: {told}; set the variable right, or `proxy` here", environ=environ)
    for unused in (upstream(proxy="none"), upstream("http://llm.corp"), upstream("https://localhost")):
        loaded(unused, environ)


def test_a_password_of_a_proxy_belongs_into_a_reference() -> None:
    text = upstream(proxy='"http://user:hunter2@proxy:3128"') + TEAM
    told = "has a password in clear text in the file; take it from ${NAME} or ${file:PATH}"
    assert_warned(text, f"upstreams.main.proxy: {told}")
    referring = upstream(proxy="${PROXY}") + TEAM
    assert loaded(referring, {"PROXY": "http://user:hunter2@proxy:3128"}).warnings == ()
    assert loaded(upstream(proxy="http://proxy:3128") + TEAM).warnings == ()


def test_a_server_of_ones_own_without_a_path_is_worth_a_warning() -> None:
    told = "has no path, and most servers have their API below /v1; add that, unless this one has not"
    for base_url in ("http://vllm:8000", "http://vllm:8000/"):
        assert_warned(upstream(base_url=base_url) + TEAM, f"upstreams.main.base_url: {told}")
    assert loaded(upstream(base_url="https://api.provider.example") + TEAM).warnings == ()
    assert loaded(upstream(base_url="http://vllm:8000", base_paths='{"*": /v1}') + TEAM).warnings == ()


@pytest.mark.parametrize("end", ["/chat/completions", "/completions", "/responses", "/messages", "/embeddings"])
def test_a_base_url_that_names_an_endpoint_is_worth_a_warning(end: str) -> None:
    told = f"upstreams.main.base_url: ends in {end}, which the gateway appends to it; leave that off"
    assert_warned(upstream(f"https://llm.corp/v1{end}") + TEAM, told)
    assert_warned(upstream(f'"https://llm.corp/v1{end}/?api-version=1"') + TEAM, told)


def test_settings_never_show_the_password_of_a_proxy() -> None:
    settings = loaded(upstream(proxy="http://user:hunter2@proxy")).settings
    assert "hunter2" not in repr(settings)


def test_files_of_tls_that_fit_are_accepted(pem: Path) -> None:
    tls = f"{{ca: {pem}/two.pem, cert: {pem}/one.pem, key: {pem}/one.key}}"
    assert loaded(upstream(tls=tls)).settings.upstreams["main"].tls is not None


def test_files_of_tls_are_absolute_paths() -> None:
    told = "must be the path of a file that begins with /, such as /etc/gateway/ca.pem"
    assert_refused(upstream(tls="{ca: ca.pem}"), f"upstreams.main.tls.ca: {told}")


def test_files_of_tls_that_cannot_be_read_are_all_named(pem: Path) -> None:
    assert_refused(
        upstream(tls=f"{{ca: {pem}/none.pem, cert: {pem}, key: {pem}/one.key}}"),
        "upstreams.main.tls.ca: cannot be read: No such file or directory",
        "upstreams.main.tls.cert: cannot be read: Is a directory",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_is_not_the_gateways_to_read_is_refused(pem: Path, tmp_path: Path) -> None:
    key = tmp_path / "secret.key"
    key.touch(0)
    told = "upstreams.main.tls.key: cannot be read: Permission denied"
    assert_refused(upstream(tls=f"{{cert: {pem}/one.pem, key: {key}}}"), told)


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        ("{ca: PEM/one.key}", "ca: is not a file of certificates in PEM"),
        ("{cert: PEM/one.pem, key: PEM/two.key}", f"cert: {UNFIT}"),
        ("{cert: PEM/one.pem, key: PEM/locked.key}", f"cert: {UNFIT}"),
        ("{cert: PEM/one.key, key: PEM/one.key}", f"cert: {UNFIT}"),
        ("{cert: PEM/one.pem}", f"cert: {ALONE}"),
        ("{key: PEM/one.key}", "key: has no `cert` that it belongs to"),
    ],
)
def test_files_of_tls_that_do_not_fit_are_refused(pem: Path, tls: str, told: str) -> None:
    assert_refused(upstream(tls=tls.replace("PEM", str(pem))), f"upstreams.main.tls.{told}")


def test_tls_without_https_would_do_nothing(pem: Path) -> None:
    told = "has no effect on a `base_url` of http://; leave it out, or use https://"
    assert_refused(upstream("http://llm.corp", tls=f"{{ca: {pem}/one.pem}}"), f"upstreams.main.tls: {told}")
