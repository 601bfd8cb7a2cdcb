"""What the system still holds of a TCP socket (tcp(7)), which no event loop tells. False where it is not known."""

from __future__ import annotations

from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ

_NONE = bytes(4)
"""A number of the system's that is zero."""


def has_unread(fileno: int) -> bool:
    """Whether bytes have been received that were not read yet."""
    return _holds_any(fileno, FIONREAD)


def has_unacknowledged(fileno: int) -> bool:
    """Whether bytes were written that the peer has not acknowledged."""
    return _holds_any(fileno, TIOCOUTQ)


def _holds_any(fileno: int, queue: int) -> bool:
    count = bytearray(4)  # What can be written to is what `ioctl` tries first: it takes bytes for an error before.
    try:
        ioctl(fileno, queue, count)
    except OSError:
        return False
    return count != _NONE
