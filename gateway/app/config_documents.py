"""The configuration in force as operators see it: its text without secrets, and what another text would change.

    GET /admin/v1/config         the text in force
    POST /admin/v1/config/diff   {"text": …}: what is wrong with it, and what it would change; nothing is changed

A child process computes both, because reading a configuration of 10,000 keys takes seconds of pure Python and would
delay every request. A text that is sent is read without this machine's environment variables and files, so the answer
shows none of them, and values that depend on them are not checked. YAML aliases can expand a short text to a very large
one, so the child has a bound for its time, its memory and its answer.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Callable

import msgspec

from gateway.core.errors import FieldInvalid, InternalError
from gateway.core.json_object import JsonObject
from gateway.core.parameters import refuse_unknown
from gateway.core.time_format import rfc3339
from gateway.identity.requests import AdministrationRequest, json_object, nothing_at, refuse_method
from gateway.runtime.child_process import run_child
from gateway.settings.text_change import TextChange

SENT = "the text"
"""The name of the file that was sent, in problems."""

READ_ONCE = ("listen", "admin", "workers", "timezone", "max_body", "max_body_memory", "max_clients", "drain", "store")
"""Settings that are read only at the start."""

BOUNDS = {resource.RLIMIT_CPU: 30, resource.RLIMIT_AS: 1024**3}
"""Seconds and bytes that a child may take for a text that is sent: 7,000 teams in 1 MiB take 8 s and 120 MB."""

ANSWER_MAX = 8 * 1024**2
"""Bytes that a child may answer about a text that is sent: 7,000 teams with an error each are 3 MiB."""

TOO_MUCH = 3
"""The exit status of a child."""

METHODS = {"config": ("GET",), "config/diff": ("POST",)}


class ConfigInForce(msgspec.Struct, frozen=True):
    """`text` is empty where the settings came from no file. `loaded_ms` is in milliseconds since 1970."""

    text: str
    file: str
    hash: str
    loaded_ms: int


class Task(msgspec.Struct):
    """What the child is to do. `sent` None: redact the text in force."""

    in_force: str
    sent: str | None = None
    is_bounded: bool = False


class _SentText(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class ConfigDocuments:
    """Answers below `config` of the admin API."""

    def __init__(self, in_force: Callable[[], ConfigInForce]) -> None:
        self._in_force = in_force
        self._one_at_a_time = asyncio.Lock()
        self._redacted: tuple[str, str] = ("", "")
        """The hash of a configuration, and its text."""

    async def answer(self, request: AdministrationRequest) -> JsonObject:
        """Raises FieldInvalid, BodyUnreadable, UrlUnknown, MethodNotAllowed, InternalError."""
        methods = METHODS.get(request.path)
        if methods is None:
            raise nothing_at(request.path)
        refuse_method(request.method, methods)
        refuse_unknown(request.query, ())
        return await (self._show() if request.path == "config" else self._diff(request.body))

    async def _show(self) -> JsonObject:
        config = self._in_force()
        about = {"hash": config.hash or None, "file": config.file or None, "loaded_at": rfc3339(config.loaded_ms)}
        if not config.text:
            return about | {"text": None}
        if self._redacted[0] != config.hash:
            self._redacted = config.hash, msgspec.json.decode(await self._run(Task(config.text)))["text"]
        return about | {"text": self._redacted[1]}

    async def _diff(self, body: bytes) -> JsonObject:
        try:
            sent = msgspec.convert(json_object(body), _SentText).text
        except msgspec.ValidationError as invalid:
            raise FieldInvalid(f"The body must be {{'text': …}}: {invalid}.", param="text") from None
        # Its parts are passed on as they are: to read and write megabytes again would delay requests.
        return msgspec.json.decode(
            await self._run(Task(self._in_force().text, sent, is_bounded=True)), type=dict[str, msgspec.Raw]
        )

    async def _run(self, task: Task) -> bytes:
        async with self._one_at_a_time:
            return await _work_out_in_child(task)


async def changes_between(before: str, after: str) -> list[TextChange]:
    """What differs between two texts that were in force, computed by a child. Raises InternalError, OSError."""
    written = await _work_out_in_child(Task(before, after))
    return msgspec.convert(msgspec.json.decode(written)["changes"], list[TextChange])


async def _work_out_in_child(task: Task) -> bytes:
    """Raises FieldInvalid if a text that was sent expands too far, InternalError, OSError."""
    child = await run_child((sys.executable, "-m", "gateway.app.config_child"), msgspec.json.encode(task))
    if child.status in (TOO_MUCH, -signal.SIGXCPU):
        raise FieldInvalid("The text means too much to be compared here. Does it repeat aliases?", param="text")
    if child.status != 0:
        raise InternalError("The configuration could not be read. The gateway's log says why.")
    return child.written
