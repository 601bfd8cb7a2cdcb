"""What a gateway must never write: every secret of a test's configuration, looked for in all that the gateway wrote.

Whole gateways and gateway processes are asked for it at the end of each journey: the log, what libraries logged, what
clients and operators were answered, the metrics, every page of the admin API, the journal, and Redis.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import redis

from gateway.core.header_rules import is_credential

SHORTEST = 8
"""A test's token of one letter would be found everywhere."""

Outputs = Mapping[str, bytes]
"""What was written, by where."""


def secrets_in(config: Any, name: str = "") -> set[str]:
    """The secrets of a configuration: what is called like one, passwords in URLs, and the paths of webhooks."""
    if isinstance(config, dict):
        return {secret for key, value in config.items() for secret in secrets_in(value, str(key))}
    if isinstance(config, list | tuple):
        return {secret for value in config for secret in secrets_in(value, name)}
    if not isinstance(config, str):
        return set()
    found = {unquote(urlsplit(config).password or "")} if "://" in config else set()
    if name == "url" and config.startswith("http"):
        found.add(urlsplit(config).path.strip("/"))
    if is_credential(name):
        found.add(config.rpartition(" ")[2])
    return {secret for secret in found if len(secret) >= SHORTEST}


def leaks(secrets: set[str], outputs: Outputs) -> list[str]:
    """Where a secret is, as it is, in Base64 or percent-encoded; without the secret."""
    found = []
    for number, secret in enumerate(sorted(secrets)):
        spellings = {secret.encode(), b64encode(secret.encode()).rstrip(b"="), quote(secret, safe="").encode()}
        found += [f"secret {number} of {len(secrets)} is in {where}" for where, text in outputs.items()
                  if any(spelling in text for spelling in spellings)]  # fmt: skip
    return found


@contextmanager
def library_log() -> Iterator[list[str]]:
    """What the standard library's logging is given meanwhile, with the texts of exceptions."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record))

    handler = Handler()
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)


async def stored(store: Mapping[str, Any]) -> Outputs:
    """What is in the Redis of a configuration's `store`, where it answers, and in its journal's folder."""
    folder = Path(store["journal"]) if "journal" in store else None
    # The key of a journal's signatures is a secret of the folder itself, and no output.
    files = [path for path in folder.iterdir() if path.is_file()] if folder is not None and folder.is_dir() else []
    found = {f"the file {path.name}": path.read_bytes() for path in files}
    url = store.get("url", "memory://")
    if url.startswith(("redis://", "unix://")):
        found["Redis"] = await asyncio.to_thread(_dumped, url)
    return found


def _dumped(url: str) -> bytes:
    """Every key and value, as far as the server answers at the end of a test: some were stopped by then."""
    readers = {b"string": "get", b"hash": "hgetall", b"set": "smembers", b"stream": "xrange"}
    pieces: list[bytes] = []
    with suppress(redis.RedisError):
        client: Any = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
        try:
            for name in client.scan_iter(count=1000):
                read = readers.get(client.type(name))
                value = getattr(client, read)(name) if read else client.zrange(name, 0, -1)
                pieces += [name, repr(value).encode()]
        finally:
            client.close()
    return b"\n".join(pieces)
