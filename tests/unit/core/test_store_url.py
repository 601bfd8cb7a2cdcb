from __future__ import annotations

import pytest

from gateway.core.store_url import Login, StoreUrl, read_store_url


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("memory://", StoreUrl("memory")),
        ("redis://cache", StoreUrl("single", nodes=(("cache", 6379),))),
        ("redis://cache:6380/3", StoreUrl("single", nodes=(("cache", 6380),), database=3)),
        ("rediss://10.0.0.1:1/", StoreUrl("single", tls=True, nodes=(("10.0.0.1", 1),))),
        ("redis://[::1]:7", StoreUrl("single", nodes=(("::1", 7),))),
        ("redis://[fe80::1]", StoreUrl("single", nodes=(("fe80::1", 6379),))),
        ("redis://[fe80::1%eth0]", StoreUrl("single", nodes=(("fe80::1%eth0", 6379),))),
        ("redis://:p%40ss@h", StoreUrl("single", nodes=(("h", 6379),), login=Login("", "p@ss"))),
        ("redis://u:p@w@h:1", StoreUrl("single", nodes=(("h", 1),), login=Login("u", "p@w"))),
        ("unix:///run/redis.sock", StoreUrl("single", path="/run/redis.sock")),
        (
            "redis+sentinel://a:1,b/main/2?sentinel_username=s&sentinel_password=t",
            StoreUrl(
                "sentinel",
                nodes=(("a", 1), ("b", 26379)),
                service="main",
                database=2,
                sentinel_login=Login("s", "t"),
            ),
        ),
        (
            "rediss+cluster://u:p@a:1,b:2?ssl_ca_certs=/ca.pem",
            StoreUrl(
                "cluster",
                tls=True,
                nodes=(("a", 1), ("b", 2)),
                login=Login("u", "p"),
                tls_options=(("ssl_ca_certs", "/ca.pem"),),
            ),
        ),
    ],
)
def test_a_url_is_read(url: str, read: StoreUrl) -> None:
    assert read_store_url(url) == read


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("", "must begin with"),
        ("redis", "must begin with"),
        ("http://secret", "must begin with one of memory://, redis://"),
        ("memory://secret", "memory:// and no more"),
        ("memory://?ssl_ca_certs=/secret", "memory:// and no more"),
        ("redis://", "needs hosts"),
        ("redis://secret:port", "needs hosts"),
        ("redis://secret..host:6379", "needs hosts"),
        ("redis://[::secret]:6379", "needs hosts"),
        ("redis+cluster://a:1,secret-:2", "needs hosts"),
        ("redis://h/²", "number of a database"),
        ("redis://secret:²", "needs hosts"),
        ("redis://secret:0", "needs hosts"),
        ("redis://secret:70000", "needs hosts"),
        ("redis://secret,other", "several hosts"),
        ("redis://h/secret", "number of a database"),
        ("redis://h?secret=1", "unknown option"),
        ("redis+cluster://h:1/secret", "one database"),
        ("redis+sentinel://secret:1", "needs the name of the master"),
        ("redis+sentinel://h:1/main/secret", "number of a database"),
    ],
)
def test_what_cannot_be_read_is_told_without_repeating_it(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as told:
        read_store_url(url)
    assert "secret" not in str(told.value)
