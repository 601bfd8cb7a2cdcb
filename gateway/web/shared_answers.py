"""Answers of the admin API that many open consoles ask for, computed once for all of them.

Everyone who may use the admin API may see all of it, so all viewers get the same answer. A question about one of the
pages in SHARED is computed once: those who ask meanwhile wait for it, and those who ask within FRESH_S get the same
bytes, compressed once. A viewer who names the tag of these bytes gets a 304 without them.

An answer that took long is kept for KEEP_FACTOR times as long: however large the ledger is, one question takes at most
a twentieth of the event loop's time. `age` says how old an answer is.

A request that changes something runs to its end, and ends all earlier answers. So does `forget`, for changes that come
another way. A change in another gateway of the store is seen when the answer is computed next. A program with the token
gets no shared answer: it may look for what it has just changed.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.core.errors import GatewayError
from gateway.runtime.tasks import BackgroundTasks
from gateway.web.admin_openapi import PREFIX
from gateway.web.admin_routes import AdminRequest, AdminResponse, error_response
from gateway.web.representations import accepts_coding, names_tag, tag_of
from gateway.web.session_cookies import SAME_ORIGIN

SHARED = frozenset(
    PREFIX + page for page in ("overview", "traffic", "usage", "limits", "losses", "teams", "models", "upstreams")
)
"""Pages that only show. Keys, grants, requests, the audit and the configuration, where people act on what they see, are
computed for each viewer."""

COMPARISON = PREFIX + "config/diff"
"""A POST that changes nothing. A child process computes the answer, and is ended if the client leaves."""

FRESH_S = 2.0
KEEP_FACTOR = 20
LONGEST_S = 60.0
QUESTIONS_MAX = 32
KEPT_BYTES = 16 * 1024 * 1024
"""The most bytes of all answers together, uncompressed."""

_COMPRESSED_FROM = 2 * 1024
_COMPRESSION_LEVEL = 4
_IN_THREAD_FROM = 64 * 1024
_NOT_ALLOWED = (401, 403)

Answerer = Callable[[AdminRequest], Awaitable[AdminResponse]]
"""Answers a request. Raises a GatewayError if it cannot."""

Refuser = Callable[[AdminRequest], Awaitable[AdminResponse | None]]
"""The answer to a viewer without the right to ask; None for others."""


class _Encodings(NamedTuple):
    """An answer as it is sent; `compressed` is empty where that gains nothing."""

    response: AdminResponse
    tag: str = ""
    compressed: bytes = b""

    @classmethod
    def of(cls, response: AdminResponse) -> _Encodings:
        body = response.body
        compressed = gzip.compress(body, _COMPRESSION_LEVEL, mtime=0) if len(body) >= _COMPRESSED_FROM else b""
        return cls(response, tag_of(body), compressed)

    def answer_to(self, request: AdminRequest, age_s: float) -> AdminResponse:
        headers = [*self.response.headers, ("etag", self.tag), ("age", str(int(age_s)))]
        if names_tag(request.headers.get("if-none-match", ""), self.tag):
            return AdminResponse(304, headers, b"")
        if self.compressed and accepts_coding(request.headers.get("accept-encoding", ""), "gzip"):
            return AdminResponse(200, [*headers, ("content-encoding", "gzip")], self.compressed)
        return AdminResponse(200, headers, self.response.body)


class _SharedAnswer:
    """The answer to one question: until it is computed it is kept for those who wait."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.kept_until: float | None = None
        self.size = 0
        self.work: asyncio.Task[_Encodings] | None = None

    def is_fresh(self, now: float) -> bool:
        return self.kept_until is None or now < self.kept_until


class SharedAnswers:
    """`answer` answers every request to the admin API. `tasks` are closed by their owner."""

    def __init__(
        self, answer: Answerer, refuse: Refuser, tasks: BackgroundTasks, monotonic: Callable[[], float]
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._tasks = tasks
        self._monotonic = monotonic
        self._answers: dict[tuple[str, ...], _SharedAnswer] = {}
        """The answers by question, the oldest first."""

    async def answer(self, request: AdminRequest) -> AdminResponse:
        """Raises what the answerer raises."""
        if request.path == COMPARISON:
            return await self._answer(request)
        if request.method != "GET":
            # A change has several steps, which belong together: a client that leaves does not stop it between two.
            return await asyncio.shield(self._tasks.start("change by an operator", self._answer_change(request)))
        if not _is_shared(request):
            return await self._answer(request)
        if refusal := await self._refuse(request):
            return refusal
        shared = self._shared(request)
        assert shared.work is not None, "it is started when it is made"
        # A task of the process: a viewer who leaves does not take the answer from the others.
        encodings = await asyncio.shield(shared.work)
        if encodings.response.status in _NOT_ALLOWED:
            # The viewer for whom it was computed has signed out meanwhile.
            return await self._answer(request)
        if encodings.response.status != 200:
            return encodings.response
        return encodings.answer_to(request, self._monotonic() - shared.began)

    async def _answer_change(self, request: AdminRequest) -> AdminResponse:
        """Where it fails, something may have changed all the same; a stranger has changed nothing."""
        refused = False
        try:
            response = await self._answer(request)
            refused = response.status in _NOT_ALLOWED
            return response
        except GatewayError as error:
            return error_response(error)
        finally:
            if not refused:
                self.forget()

    def forget(self) -> None:
        """Something has changed: an answer that was computed, or begun, before this goes only to those who wait for
        it."""
        self._answers.clear()

    def _shared(self, request: AdminRequest) -> _SharedAnswer:
        question = (request.path, *[f"{name}={value}" for name, value in sorted(request.query.items())])
        now = self._monotonic()
        shared = self._answers.get(question)
        if shared is None or not shared.is_fresh(now):
            self._drop_old(now)
            shared = self._answers[question] = _SharedAnswer(now)
            shared.work = self._tasks.start("answer consoles", self._compute(shared, request))
        return shared

    async def _compute(self, shared: _SharedAnswer, request: AdminRequest) -> _Encodings:
        keep_s = 0.0
        try:
            response = await self._answer(request)
            shared.size = len(response.body)
            if response.status != 200:
                return _Encodings(response)
            if shared.size < _IN_THREAD_FROM:
                encodings = _Encodings.of(response)
            else:
                encodings = await asyncio.to_thread(_Encodings.of, response)
            keep_s = min(max(FRESH_S, KEEP_FACTOR * (self._monotonic() - shared.began)), LONGEST_S)
        except GatewayError as error:
            return _Encodings(error_response(error))
        finally:
            shared.kept_until = shared.began + keep_s
            self._drop_old(self._monotonic())
        return encodings

    def _drop_old(self, now: float) -> None:
        self._answers = {question: each for question, each in self._answers.items() if each.is_fresh(now)}
        size = sum(each.size for each in self._answers.values())
        while len(self._answers) >= QUESTIONS_MAX or size > KEPT_BYTES:
            size -= self._answers.pop(next(iter(self._answers))).size


def _is_shared(request: AdminRequest) -> bool:
    is_browser = SAME_ORIGIN in request.headers and "authorization" not in request.headers
    return is_browser and request.path in SHARED
