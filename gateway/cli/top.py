"""`gateway top`: a live view of a running gateway in a terminal, in plain text.

It reads metrics, upstreams and requests in flight from the admin listener. It needs no more of the terminal than
cursor movements of ECMA-48, so that it works over ssh and in tmux. Without a terminal it prints one view.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from gateway.cli.admin_client import AdminClient, AdminUnavailable, refusals_in_one_line
from gateway.cli.config_option import config_option
from gateway.cli.configuration import demo_option, settings_or_end
from gateway.cli.output import show_json
from gateway.cli.top_view import LiveView, MetricsReading, Pace, frame
from gateway.cli.top_view import as_json as json_of
from gateway.core.errors import GatewayError

_ONCE_S = 1.0
"""Between the two readings of a single view."""

_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_END = b"q"
_WITHOUT_LIMIT = 10_000
_COLUMNS, _ROWS = 80, 24
"""Of a terminal that does not say its size, such as a serial console."""


@click.command(epilog="Example: gateway top --every 5")
@config_option
@demo_option
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.FloatRange(0.2, 3_600),
    default=2.0,
    show_default=True,
    help="Time between views.",
)
@click.option("--once", is_flag=True, help="Print one view and end, as without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print one view as JSON, with the rates of a second.")
def top(config: str, demo: str | None, every: float, once: bool, as_json: bool) -> None:
    """Show what a running gateway does now.

    Requests and tokens in a second, what is in flight, refusals, failures, the store, upstreams and teams. Asks the
    gateway at its admin listener; of several workers it is the sum. q or Ctrl-C ends it.
    """
    settings = settings_or_end(config, demo)
    with refusals_in_one_line():
        watched = Watched(AdminClient.for_settings(settings), str(settings.admin.listen))
        if as_json:
            watched.look()
            time.sleep(_ONCE_S)
            show_json(json_of(watched.look()))
        elif once or not _has_terminal():
            _print_once(watched)
        else:
            _show(watched, every)


class Watched:
    """A gateway, as one reading after the other shows it."""

    def __init__(self, client: AdminClient, address: str) -> None:
        self._client = client
        self._address = address
        self._last: MetricsReading | None = None

    def look(self) -> LiveView:
        """Raises AdminUnavailable."""
        reading = MetricsReading(self._client.metrics(), time.time())
        pace = Pace(self._last, reading) if self._last is not None else None
        self._last = reading
        upstreams = self._client.get("upstreams", {})["data"]
        try:
            requests = self._client.get("requests", {})
        except (AdminUnavailable, GatewayError) as reason:
            return LiveView(self._address, reading, pace, upstreams, {}, str(reason))
        return LiveView(self._address, reading, pace, upstreams, requests, requests["problem"] or "")


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _print_once(watched: Watched) -> None:
    watched.look()
    time.sleep(_ONCE_S)
    columns = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else _WITHOUT_LIMIT
    click.echo("\n".join(frame(watched.look(), columns, _WITHOUT_LIMIT)))


def _show(watched: Watched, every_s: float) -> None:
    """Until it is interrupted. A gateway that goes away is asked again. Raises AdminUnavailable where there is none at
    the beginning."""
    view, problem = watched.look(), ""
    look_at = time.monotonic() + min(every_s, _ONCE_S)
    with _terminal() as signals:
        while True:
            _draw(view, problem)
            if _ended(signals, look_at - time.monotonic()):
                return
            if time.monotonic() < look_at:
                continue  # The window has another size.
            look_at = time.monotonic() + every_s
            try:
                view, problem = watched.look(), ""
            except AdminUnavailable as reason:
                problem = str(reason)


def _draw(view: LiveView, problem: str) -> None:
    # Not shutil's, which believes COLUMNS of the environment: the window may have another size by now.
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    shown = frame(view._replace(problem=problem or view.problem), columns or _COLUMNS, rows or _ROWS)
    text = f"{_TO_END_OF_LINE}\n".join(shown)
    sys.stdout.write(f"{_HOME}{text}{_TO_END_OF_LINE}{_TO_END_OF_SCREEN}")
    sys.stdout.flush()


def _ended(signals: int, wait_s: float) -> bool:
    """Wait for a key, a signal, or the time. Whether it is to end."""
    ready, _, _ = select.select([sys.stdin, signals], [], [], max(0.0, wait_s))
    if signals in ready and _END in os.read(signals, 4096):
        return True
    if sys.stdin in ready:
        keys = os.read(sys.stdin.fileno(), 4096)
        return not keys or b"q" in keys
    return False


@contextmanager
def _terminal() -> Iterator[int]:
    """The terminal without echo and on its other screen, as it was before afterwards, whatever ends it. Gives a file
    that can be read when the window has another size, or with `_END` in it when a signal wants the end."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    signals, noting = os.pipe()
    os.set_blocking(noting, False)

    def resize(_number: int, _frame: FrameType | None) -> None:
        os.write(noting, b".")

    def end(_number: int, _frame: FrameType | None) -> None:
        # Python drops what is raised while it collects garbage or runs a destructor: the note stays.
        os.write(noting, _END)
        raise KeyboardInterrupt

    handlers = {signal.SIGWINCH: resize, signal.SIGINT: end, signal.SIGTERM: end}
    replaced = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        tty.setcbreak(stdin)
        sys.stdout.write(_OTHER_SCREEN)
        yield signals
    except KeyboardInterrupt:
        return
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
        sys.stdout.write(_FIRST_SCREEN)
        sys.stdout.flush()
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        for file in (signals, noting):
            os.close(file)
