"""The process that reads texts of a configuration for operators: it redacts one, or compares two.

`gateway diff` does the same without a gateway.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from gateway.app.config_documents import ANSWER_MAX, BOUNDS, READ_ONCE, SENT, TOO_MUCH, Task
from gateway.app.snapshot_child import NICENESS
from gateway.core.json_object import JsonObject
from gateway.settings.comparison import compare
from gateway.settings.diagnostics import Diagnostic, SettingsInvalid
from gateway.settings.loading import parse
from gateway.settings.redacted import Unreadable, redacted_text, text_tree
from gateway.settings.text_change import TextChange

_FILE = re.compile(r"(?<!\$)\$\{file:[^{}\n]*\}")
_UNSET = "${A_FILE}"


def work_out(task: Task) -> JsonObject:
    """The child's work."""
    if task.sent is None:
        return {"text": redacted_text(task.in_force)}
    return difference(task.in_force, task.sent)


def answer_parent() -> None:
    """Read a task, write its result. The process ends if that takes too much."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    if task.is_bounded:
        for kind, most in BOUNDS.items():
            with suppress(ValueError):  # An operator's own bound is lower, or this system has none of the kind.
                # At the second bound of the time, the signal would be SIGKILL.
                resource.setrlimit(kind, (most, most + 1))
    try:
        written = msgspec.json.encode(work_out(task))
    except MemoryError:
        os._exit(TOO_MUCH)
    if task.is_bounded and len(written) > ANSWER_MAX:
        sys.exit(TOO_MUCH)
    sys.stdout.buffer.write(written)


def difference(before: str, after: str, name: str = SENT) -> JsonObject:
    """What is wrong with a text, which problems call by this name, and what it changes in the older one."""
    problems: Sequence[Diagnostic] = ()
    try:
        parse(_FILE.sub(_UNSET, after), name, {}, secrets=False, connection_files=False)
    except SettingsInvalid as invalid:
        problems = invalid.problems
    changes: list[TextChange] = []
    # What is no YAML as a whole has no path: it may also be a text that grows without end as its aliases are followed.
    if all(problem.path for problem in problems):
        with suppress(Unreadable):
            changes = compare(text_tree(before), text_tree(after), READ_ONCE)
    return {
        "valid": not problems,
        "problems": [problem.as_json() for problem in problems],
        "changes": msgspec.to_builtins(changes),
    }


if __name__ == "__main__":
    os.nice(NICENESS)
    answer_parent()
