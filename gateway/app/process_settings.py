"""What a process that serves keeps of the settings, beside the snapshot that its requests have.

The settings themselves are checked by pydantic, which takes 12 MiB with them. They stay in the process that reads the
configuration (gateway.app.snapshot_child), and these values leave it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.address import Address
from gateway.core.networks import Network
from gateway.core.store_url import IN_MEMORY
from gateway.settings.value_readers import Workers


class AdminTerms(msgspec.Struct, frozen=True):
    """`secret` is the bearer token, empty where the admin API is closed."""

    listen: Address
    secret: str

    def __repr__(self) -> str:
        return f"AdminTerms({self.listen})"


class DrainTerms(msgspec.Struct, frozen=True):
    delay: timedelta
    timeout: timedelta


class RecordTerms(msgspec.Struct, frozen=True):
    requests: Literal["none", "failed", "all"]
    keep: timedelta
    most: int


class StoreTerms(msgspec.Struct, frozen=True):
    url: str
    timeout: timedelta
    on_outage: Literal["refuse", "allow"]
    journal: Path | None
    journal_unsigned: Literal["park", "accept"]
    prefix: str

    @property
    def is_in_memory(self) -> bool:
        """Whether each process keeps everything itself."""
        return self.url == IN_MEMORY

    def __repr__(self) -> str:
        return f"StoreTerms({self.prefix})"  # The URL can have a password.


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """By the names of the settings, which docs/configuration.md explains. `file`, `text` and `referenced_files` are
    empty for settings built in code."""

    listen: tuple[Address, ...]
    admin: AdminTerms
    trusted_proxies: tuple[Network, ...]
    origins: tuple[str, ...]
    workers: Workers
    timezone: ZoneInfo
    max_body: int
    max_body_memory: int
    max_clients: int
    is_max_clients_given: bool
    keepalive: timedelta
    drain: DrainTerms
    record: RecordTerms
    store: StoreTerms
    file: str
    file_hash: str
    """The beginning of the SHA-256 of the file."""
    referenced_files: tuple[str, ...]
    text: str

    def __repr__(self) -> str:
        return f"ProcessSettings({self.file_hash})"  # The text can have secrets.
