"""One attempt: what is sent where, and what of the answer counts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.core.errors import UpstreamError, UpstreamTimedOut
from gateway.core.notifications import EventType, NotificationChannel
from gateway.core.snapshot import Upstream
from gateway.notifications.messages import notification
from gateway.notifications.sending import NotificationSender, Sent
from gateway.upstream.contract import UpstreamRequest

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
JSON = NotificationChannel("ops", "json", "https://ops.example:8443/a/b?token=t%20t", SECRET)


class Response:
    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.is_abandoned = False

    def abandon(self) -> None:
        self.is_abandoned = True


class Receiver:
    """An HTTP client that answers with this, or fails."""

    def __init__(self, status: int = 204, error: UpstreamError | None = None, **headers: str) -> None:
        self.asked: list[tuple[Upstream, UpstreamRequest]] = []
        self.response = Response(status, {name.replace("_", "-"): value for name, value in headers.items()})
        self._error = error

    async def send(self, upstream: Upstream, request: UpstreamRequest) -> Response:
        self.asked.append((upstream, request))
        if self._error is not None:
            raise self._error
        return self.response

    async def close(self) -> None:
        """Nothing is open."""


async def sent_to(receiver: Receiver) -> Sent:
    message = notification(JSON, EventType.TEST, {"channel": "ops"}, "now", 0)
    return await NotificationSender(receiver).send(message, JSON, 1_700_000_000)  # type: ignore[arg-type]  # a fake


async def test_it_is_posted_to_the_url_as_it_is() -> None:
    receiver = Receiver()
    assert await sent_to(receiver) == Sent()
    ((upstream, request),) = receiver.asked
    assert (request.method, request.path) == ("POST", "/a/b")
    assert upstream.base_url == "https://ops.example:8443?token=t%20t"
    assert upstream.name == "ops"
    assert upstream.timeouts.total <= 10
    assert dict(request.headers.lines())["webhook-timestamp"] == "1700000000"


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_success_is_taken_and_nothing_more_is_read(status: int) -> None:
    receiver = Receiver(status)
    assert await sent_to(receiver) == Sent()
    assert receiver.response.is_abandoned


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 410, 500, 503])
async def test_everything_else_is_a_problem_redirects_too(status: int) -> None:
    receiver = Receiver(status, location="http://169.254.169.254/")
    assert await sent_to(receiver) == Sent(f"it was answered with {status}")
    assert len(receiver.asked) == 1
    assert receiver.response.is_abandoned


@pytest.mark.parametrize(
    ("written", "waits"), [("30", 30.0), ("0", 0.0), ("-1", 0.0), ("soon", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)]
)
async def test_a_pause_that_is_asked_for_is_kept(written: str, waits: float) -> None:
    assert (await sent_to(Receiver(429, retry_after=written))).retry_after_s == waits


async def test_no_answer_is_a_problem_that_does_not_show_the_url() -> None:
    error = UpstreamTimedOut("Upstream 'ops' sent nothing.")
    error.outcome = "first_byte_timeout"
    assert await sent_to(Receiver(error=error)) == Sent("no answer: first_byte_timeout")
