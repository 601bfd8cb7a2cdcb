"""The key that signs a journal's lines: only a gateway's own lines are replayed, not those of another program that can
write to the folder.

All gateways of an installation share one key. The store has it: lines are replayed into the store, so the key is
available whenever a line is verified. Lines must also be signed while the store is out, from a process's start on, so a
copy is next to the journals, in a file that only this user can read. A copy that another user could have put there is
not used.

A gateway that has neither, because it has never reached its store, makes a key and offers it to the store later. If the
store has another by then, lines that were signed with the first can be replayed only by their own process.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes

NAME = "journal.key"
KEY_BYTES = 32

_SIGNED = re.compile(rb'(.*),"mac":"([0-9a-f]{64})"\}', re.DOTALL)


class JournalKey:
    """`is_shared` says that the store has confirmed the key."""

    def __init__(self, folder: Path) -> None:
        self.is_shared = False
        self._path = folder / NAME
        self._key = _copied(self._path) or token_bytes(KEY_BYTES)
        self._own = [self._key]
        """Every key that this process has signed with."""

    @property
    def proposal(self) -> bytes:
        """For a store that has none."""
        return self._key

    def share(self, key: bytes) -> None:
        """Take the store's key. Reads and writes the disk."""
        if key not in self._own:
            self._own.append(key)
        self._key, self.is_shared = key, True
        with suppress(OSError):  # A disk that takes no key takes no journal either, and that is reported.
            self._keep(replace=True)

    def keep(self) -> None:
        """Have a copy beside the journals before a line is signed, unless there is one. Raises OSError."""
        if not self.is_shared:
            self._keep(replace=False)

    def sign(self, text: bytes) -> bytes:
        """A JSON object with its signature as a last member: a version that signs nothing reads it all the same."""
        return b'%b,"mac":"%b"}' % (text[:-1], _mac(self._key, text))

    def is_own(self, text: bytes) -> bool:
        """Whether this process has signed it."""
        return any(_is_signed(key, text) for key in self._own)

    def is_ours(self, text: bytes) -> bool:
        """Whether a gateway of this installation has signed it."""
        return self.is_shared and _is_signed(self._key, text)

    def _keep(self, *, replace: bool) -> None:
        kept = _copied(self._path)
        if kept == self._key:
            return
        made = self._path.with_suffix(f".{os.getpid()}.new")
        file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, self._key)
            os.fsync(file)
            if replace or kept is None:
                made.replace(self._path)
        finally:
            os.close(file)
            made.unlink(missing_ok=True)


def _copied(path: Path) -> bytes | None:
    """The key in a file that only this user can have written or read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(file)
        is_private = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        key = os.read(file, KEY_BYTES + 1) if is_private else b""
    finally:
        os.close(file)
    return key if len(key) == KEY_BYTES else None


def _is_signed(key: bytes, text: bytes) -> bool:
    found = _SIGNED.fullmatch(text)
    return found is not None and hmac.compare_digest(_mac(key, found[1] + b"}"), found[2])


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256").hex().encode()
