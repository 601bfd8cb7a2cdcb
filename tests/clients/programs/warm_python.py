"""An interpreter that imports a library once, then forks for each errand: an import costs more than the errand.

`serve` is called behind the imports, with a listening socket as standard input. A connection carries one errand: a line
of JSON goes in; the errand's process group, what it prints, and behind a NUL its exit code come out.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys


def serve() -> None:
    listener = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> None:
    errand = json.loads(connection.makefile().readline())
    os.setsid()
    connection.sendall(b"%d\n" % os.getpid())
    child = os.fork()
    if child == 0:
        _run(connection, **errand)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(b"\0%d" % code)
    os._exit(0)


def _run(connection: socket.socket, script: str, folder: str, environment: dict[str, str]) -> None:
    """As a new interpreter does: an exception that reaches the top is printed and ends it with 1."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (connection.fileno(), 1), (connection.fileno(), 2)):
        os.dup2(source, target)
    connection.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
    sys.exit()
