"""How servers in Python, Go and Node.js read a request: what each parser finds in it, or that it refuses it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import StreamReader, hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.multipart import BodyPartReader, MultipartReader
from multidict import CIMultiDict, CIMultiDictProxy
from starlette.datastructures import UploadFile
from starlette.requests import Request
from werkzeug.formparser import parse_form_data

HERE = Path(__file__).parent
Found = dict[str, list[Any]]
"""The values of each name, in order."""


class Reading(NamedTuple):
    """What a parser found; None where it refuses the request."""

    parser: str
    found: Found | None


class OtherProcess:
    """A program that reads a request a line, and answers with what its parsers found."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def readings(self, content_type: str, body: bytes) -> list[Reading]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"content_type": content_type, "body": base64.b64encode(body).decode()}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return [Reading(name, _as_lists(answer[name].get("fields"))) for name in answer]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def other_processes(folder: Path) -> Iterator[list[OtherProcess]]:
    """Those in Go and Node.js, where they are installed; `make test-parsers` demands them."""
    is_demanded = os.environ.get("PARSERS") == "required"
    processes = []
    if shutil.which("go"):
        program = folder / "parsers-go"
        subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "go", check=True)
        processes.append(OtherProcess(str(program)))
    elif is_demanded:
        pytest.fail("there is no go")
    if shutil.which("node") and (HERE / "npm" / "node_modules").exists():
        processes.append(OtherProcess("node", str(HERE / "npm" / "parsers.mjs")))
    elif is_demanded:
        pytest.fail("there is no node, or its packages are not installed")
    try:
        yield processes
    finally:
        for process in processes:
            process.close()


def python_form_readings(runner: asyncio.Runner, content_type: str, body: bytes) -> list[Reading]:
    parsers: dict[str, Callable[[str, bytes], Awaitable[Found]]] = {"starlette": _starlette, "aiohttp": _aiohttp}
    readings = [Reading("werkzeug", _werkzeug(content_type, body))]
    for name, parse in parsers.items():
        try:
            readings.append(Reading(name, runner.run(parse(content_type, body))))
        except Exception:  # noqa: BLE001 # Whatever it raises, it serves nothing.
            readings.append(Reading(name, None))
    return readings


def python_json_reading(body: bytes) -> Reading:
    try:
        return Reading("json", _as_lists(json.loads(body)))
    except ValueError:
        return Reading("json", None)


def _as_lists(fields: dict[str, Any] | None) -> Found | None:
    if fields is None:
        return None
    return {name: value if isinstance(value, list) else [value] for name, value in fields.items() if value is not None}


async def _starlette(content_type: str, body: bytes) -> Found:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    request = Request({"type": "http", "headers": [(b"content-type", content_type.encode())]}, receive)
    found: Found = {}
    async with request.form(max_fields=10_000, max_files=10_000) as form:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                found.setdefault(name, []).append(value)
    return found


def _werkzeug(content_type: str, body: bytes) -> Found | None:
    environ = {
        "wsgi.input": BytesIO(body),
        "CONTENT_TYPE": content_type,
        "CONTENT_LENGTH": str(len(body)),
        "REQUEST_METHOD": "POST",
    }
    try:
        _, form, files = parse_form_data(environ, silent=False)
    except ValueError:
        return None
    for file in (each for _, each in files.items(multi=True)):
        file.close()
    return {name: form.getlist(name) for name in form}


async def _aiohttp(content_type: str, body: bytes) -> Found:
    loop = asyncio.get_running_loop()
    content = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    content.feed_data(body)
    content.feed_eof()
    reader = MultipartReader(CIMultiDictProxy(CIMultiDict({hdrs.CONTENT_TYPE: content_type})), content)
    found: Found = {}
    while (part := await reader.next()) is not None:
        assert isinstance(part, BodyPartReader), "a form has no form within it"
        value = bytes(await part.read(decode=True))
        if part.filename is None:
            found.setdefault(part.name or "", []).append(value.decode())
    return found
