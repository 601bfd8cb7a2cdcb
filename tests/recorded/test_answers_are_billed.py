"""Every recorded answer through a whole gateway: what the client gets is what the upstream sent, and what the ledger
gets is what the answer means, in every figure and to the micro-dollar.

Each answer has a model and an upstream of its own, so that a failure opens no other's circuit. It is asked for
several times: as one piece, and packed and cut at odd places; and of chat streams, by a client that does not ask for
usage.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import brotli
import msgspec
from aiohttp import web

from gateway.core.endpoints import ENDPOINTS
from gateway.core.pricing import PriceTerms
from gateway.core.usage import Usage
from tests.exact_cost import exact_cost
from tests.forms import FORM_TYPE, field, file, form
from tests.recorded.recordings import Recording, recordings
from tests.whole_gateway import Json, Reply, WholeGateway, whole_gateway
from tests.zstd_of_python import zstd

TEXT = "How many moons are there?"
PRICES = {
    "input": "3.01",
    "output": "15.07",
    "cached_input": "0.303",
    "cache_write": "3.7507",
    "cache_write_1h": "6.011",
    "audio_input": "41.3",
    "audio_output": "83.9",
    "image_input": "5.003",
    "image_output": "31.7",
    "request": "0.000011",
    "image": "0.041",
    "search": "0.0103",
    "second": "0.0001007",
    "million_characters": "15.1",
}
LONG = {"input": "6.05", "output": "22.7", "cached_input": "0.607"}
TIERS = {"flex": {"input": "1.51", "output": "7.53"}, "priority": {"input": "9.7"}, "fast": {"output": "91.3"}}
LONG_FROM = 4_000
PRICE: Json = {**PRICES, "above": [{"tokens": LONG_FROM, **LONG}], "tiers": TIERS, "regions": {"us": "1.1"}}

ADMIN_TOKEN = "operators-only"
FIGURES = {
    "input_tokens": "input",
    "cached_input_tokens": "cached_input",
    "cache_write_1h_tokens": "cache_write_1h",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
    "audio_input_tokens": "audio_input",
    "image_input_tokens": "image_input",
    "audio_output_tokens": "audio_output",
    "image_output_tokens": "image_output",
    "images": "images",
    "searches": "searches",
    "audio_ms": "audio_ms",
    "characters": "characters",
}
"""The figures of a report of usage, as the members of `Usage` that they are; cache writes apart."""

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body)),
}
"""Content codings that an upstream may put on an answer though none was asked for."""

MERGED = ("/v1/chat/completions", "/v1/completions")
HAND_WRITTEN = [each for each in recordings() if "/" not in each.name]


def terms_of(prices: Mapping[str, str]) -> dict[str, int]:
    """Written prices in pico-dollars for one."""
    pieces = {"request", "image", "search", "second"}
    return {
        "character" if name == "million_characters" else name: int(Decimal(usd) * (10 ** (12 if name in pieces else 6)))
        for name, usd in prices.items()
    }


TERMS = PriceTerms(
    terms_of(PRICES),
    above={LONG_FROM: terms_of(LONG)},
    tiers={name: PriceTerms(terms_of(prices)) for name, prices in TIERS.items()},
    regions={"us": 1_100},
)


def question(recording: Recording, model: str, *, asks_usage: bool) -> tuple[str, bytes, str]:
    """Path, body and content type of a request that such an answer can follow."""
    endpoint, streams = ENDPOINTS[recording.endpoint], recording.is_stream
    path = recording.endpoint.replace("{model}", model)
    if endpoint.takes_form:
        fields = [field("model", model), *([field("stream", "true")] if streams else [])]
        name = "image" if "images" in path else "file"
        return path, form(*fields, field("prompt", TEXT), file(b"AAAA", name)), FORM_TYPE
    if path.endswith(":batchEmbedContents"):
        asked = {"model": f"models/{model}", "content": {"parts": [{"text": TEXT}]}}
        return path, json.dumps({"requests": [asked]}).encode(), "application/json"
    if "{model}" in recording.endpoint:
        body: Json = {"contents": [{"role": "user", "parts": [{"text": TEXT}]}]}
        return path + ("?alt=sse" if streams else ""), json.dumps(body).encode(), "application/json"
    body = {"model": model, **_ASKED.get(path.removeprefix("/v1"), {"input": TEXT})}
    if streams:
        body |= {"stream_format": "sse"} if path.endswith("/speech") else {"stream": True}
    if streams and asks_usage and recording.endpoint in MERGED:
        body["stream_options"] = {"include_usage": True}
    return path, json.dumps(body).encode(), "application/json"


_MESSAGES: Json = {"messages": [{"role": "user", "content": TEXT}]}
_RERANK: Json = {"query": TEXT, "documents": ["Mars has two.", "Venus has none."]}
_ASKED: dict[str, Json] = {
    "/chat/completions": _MESSAGES,
    "/completions": {"prompt": TEXT},
    "/messages": {**_MESSAGES, "max_tokens": 1024},
    "/messages/count_tokens": _MESSAGES,
    "/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/score": {"text_1": TEXT, "text_2": "Mars has two."},
    "/images/generations": {"prompt": TEXT},
    "/audio/speech": {"input": TEXT, "voice": "alloy"},
}
"""What a request has beside its model, where that is not `input`."""


class RecordingServer:
    """Answers a request to `/eN/…` with the recording of this number, packed and cut as `dice` say, if any."""

    def __init__(self, served: list[Recording]) -> None:
        self.origin = ""
        self.dice: random.Random | None = None
        self._served = served

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        recording = self._served[int(request.path.split("/")[1].removeprefix("e"))]
        headers = {"content-type": recording.content_type, **recording.headers}
        body = recording.body
        if self.dice is None and not recording.is_stream:
            return web.Response(status=recording.status, body=body, headers=headers)
        coding = self.dice.choice(list(CODINGS)) if self.dice is not None else ""
        if coding:
            headers["content-encoding"] = coding
        response = web.StreamResponse(status=recording.status, headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in self._cut(CODINGS[coding](body)):
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    def _cut(self, body: bytes) -> list[bytes]:
        if self.dice is None:
            return [body] if body else []
        cuts = sorted({0, len(body), *(self.dice.randrange(len(body) + 1) for _ in range(40))})
        return [body[begin:end] for begin, end in pairwise(cuts)]


@asynccontextmanager
async def serving(served: list[Recording]) -> AsyncIterator[RecordingServer]:
    server = RecordingServer(served)
    runner = web.ServerRunner(web.Server(server.handle))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


class Billed(msgspec.Struct):
    """What became of one recording: the replies, with whether the client asked for usage, and the ledger's row."""

    recording: Recording
    replies: list[tuple[bool, Reply]] = []
    row: Json = {}


async def billed(served: list[Recording]) -> list[Billed]:
    """Each recording asked for several times through one gateway."""
    async with serving(served) as server:
        upstreams = {f"e{n}": {"base_url": f"{server.origin}/e{n}/v1"} for n in range(len(served))}
        models = {f"m{n}": {"routes": [{"upstream": f"e{n}"}], "price": PRICE} for n in range(len(served))}
        admin = {"listen": "127.0.0.1:0", "token": ADMIN_TOKEN}
        async with whole_gateway(upstreams=upstreams, models=models, admin=admin) as gateway:
            seen = [Billed(recording) for recording in served]
            for number, each in enumerate(seen):
                for dice, asks_usage in _ways(each.recording, random.Random(number)):
                    server.dice = dice
                    reply = await _asked(gateway, each.recording, f"m{number}", asks_usage=asks_usage)
                    each.replies.append((asks_usage, reply))
            rows = await _ledger(gateway)
            for number, each in enumerate(seen):
                each.row = rows.get(f"m{number}", {})
    return seen


async def _asked(gateway: WholeGateway, recording: Recording, model: str, *, asks_usage: bool) -> Reply:
    path, body, content_type = question(recording, model, asks_usage=asks_usage)
    headers = {"content-type": content_type, "anthropic-version": "2023-06-01"}
    reply = await gateway.post(body, path=path, headers=headers)
    await gateway.ended()
    return reply


async def _ledger(gateway: WholeGateway) -> dict[str, Json]:
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    report = await gateway.request("GET", "/admin/v1/usage?by=model", admin=True, headers=headers)
    return {row.pop("model"): row for row in report.json["rows"]}


def _ways(recording: Recording, dice: random.Random) -> list[tuple[random.Random | None, bool]]:
    """How often it is asked for: cut by which dice, and whether the client asks for usage."""
    if recording.status >= 400:
        return [(None, True)]  # One that asks to be left alone for a while is not asked again.
    ways = [(None, True), (dice, True)]
    return [*ways, (None, False), (dice, False)] if recording.is_stream and recording.endpoint in MERGED else ways


def wrong_in(each: Billed) -> list[str]:
    """What differs from the truth."""
    recording, body = each.recording, each.recording.body
    found = []
    for asks_usage, reply in each.replies:
        if reply.status != recording.client_status and recording.client_status is not None:
            found.append(f"status {reply.status}, not {recording.client_status}: {reply.body[:200]!r}")
        elif recording.client_status == recording.status and asks_usage and reply.body != body:
            found.append(f"the client has {reply.body[:200]!r}, {len(reply.body):,} bytes of {len(body):,}")
    return found + _wrong_in_row(each)


def _wrong_in_row(each: Billed) -> list[str]:
    recording, row, times = each.recording, each.row, len(each.replies)
    if recording.status >= 400:
        return [f"a failure is charged: {row}"] if row else []
    if recording.reported is None or not recording.usage:
        return []
    if not recording.reported:
        return _wrong_in_estimate(each)
    usage = recording.usage
    given = {FIGURES[name]: figure for name, figure in row.items() if name in FIGURES}
    if row:
        given["cache_write"] = row["cache_write_tokens"] - row["cache_write_1h_tokens"]
    found = [
        f"{name} is {given.get(name, 0)}, not {times} x {usage[name]}"
        for name in ("cache_write", *FIGURES.values())
        if name in usage and given.get(name, 0) != times * usage[name]
    ]
    if row.get("requests") != times:
        found.append(f"{row.get('requests')} requests, not {times}")
    if row.get("estimated_tokens"):
        found.append(f"{row['estimated_tokens']} tokens are called estimated, though reported")
    if usage.keys() >= {"cache_write", *FIGURES.values()}:
        cost = (exact_cost(TERMS, Usage(**usage)) + Fraction(1, 2)).__floor__()
        if round(row.get("usd", 0) * 1_000_000) != times * cost:
            found.append(f"it costs {row.get('usd')}, not {times} x {cost} micro-dollars")
    return found


def _wrong_in_estimate(each: Billed) -> list[str]:
    """Of an answer that reports no usage: where tokens are the measure they are estimated, and alike each time."""
    row, times, endpoint = each.row, len(each.replies), ENDPOINTS[each.recording.endpoint]
    if not row:
        return ["it is free"] if endpoint.estimated and not each.recording.failed else []
    tokens = row["input_tokens"] + row["output_tokens"]
    if row["requests"] != times:
        return [f"{row['requests']} requests, not {times}"]
    if not endpoint.estimated:
        return [f"{tokens} tokens of no report"] if tokens else []
    if not tokens or tokens != row["estimated_tokens"] or row["output_tokens"] % times:
        return [f"{row['estimated_tokens']} of {tokens} tokens are called estimated"]
    return []


def test_every_endpoint_has_an_answer_written_by_hand() -> None:
    assert ENDPOINTS.keys() - {each.endpoint for each in HAND_WRITTEN} == set()


async def test_every_recorded_answer_passes_and_is_billed_as_it_means() -> None:
    served = [each for each in recordings() if each.endpoint in ENDPOINTS]
    assert len(served) >= len(HAND_WRITTEN) * 4 // 5
    wrong = {each.recording.name: found for each in await billed(served) if (found := wrong_in(each))}
    assert wrong == {}
