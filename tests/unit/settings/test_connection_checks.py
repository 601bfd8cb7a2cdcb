from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.unit.settings.configurations import VALID, assert_refused, loaded

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
