"""Makes one attempt to send a notification to its receiver.

The operator chose the URL. No redirect is followed, nothing of the answer's body is read, and an attempt ends after
TIMEOUTS.total. The URL is a secret: messages and logs have only the name of the channel.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.core.errors import UpstreamError
from gateway.core.header_rules import HeaderLines
from gateway.core.notifications import NotificationChannel
from gateway.core.snapshot import Timeouts, Upstream
from gateway.notifications.messages import Notification, request_body, request_headers
from gateway.upstream.contract import UpstreamClient, UpstreamRequest

TIMEOUTS = Timeouts(connect=5.0, first_byte=10.0, idle=5.0, total=10.0)

_SECONDS = re.compile(r"\d{1,6}", re.ASCII)


class Sent(NamedTuple):
    """`problem` is empty if the receiver accepted it. `retry_after_s` is the wait that it asks for."""

    problem: str = ""
    retry_after_s: float = 0.0


class NotificationSender:
    def __init__(self, client: UpstreamClient) -> None:
        self._client = client

    async def send(self, message: Notification, channel: NotificationChannel, now_s: int) -> Sent:
        body = request_body(message, channel)
        url = urlsplit(channel.url)
        headers = HeaderLines.of(request_headers(message, channel, body, now_s))
        request = UpstreamRequest(path=url.path or "/", headers=headers, body=body)
        try:
            response = await self._client.send(_receiver(channel), request)
        except UpstreamError as error:
            return Sent(f"no answer: {error.reason}")
        status, asked = response.status, response.headers.get("retry-after", "")
        response.abandon()
        if 200 <= status < 300:
            return Sent()
        return Sent(f"it was answered with {status}", float(asked) if _SECONDS.fullmatch(asked) else 0.0)


def _receiver(channel: NotificationChannel) -> Upstream:
    url = urlsplit(channel.url)
    base = f"{url.scheme}://{url.netloc}{f'?{url.query}' if url.query else ''}"
    return Upstream(name=channel.name, base_url=base, timeouts=TIMEOUTS, max_connections=2, proxy=channel.proxy)
