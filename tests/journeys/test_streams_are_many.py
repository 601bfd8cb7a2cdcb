"""Many streams at full speed at the same time, each with a fate of its own: whole, cut at any byte, read slowly, left.
Each client gets its own events, all that its upstream sent whole, in their order."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import NamedTuple

import aiohttp
import pytest

from tests.hand_upstream import DONE, content, event, usage
from tests.whole_gateway import KEY, WholeGateway, chat_body, whole_gateway

STREAMS = 60
ROUNDS = 3
MODELS = [f"model-{number}" for number in range(STREAMS)]
"""So many that no circuit of one opens."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
OUTPUT = 77
FATES = ("whole", "whole", "whole", "slow", "slow", "cut", "cut", "cut", "left", "left")


class Fate(NamedTuple):
    """Of the stream that is asked for by this prompt: what is sent in such pieces, of `whole`."""

    prompt: str
    model: str
    kind: str
    whole: bytes
    sent: bytes
    piece: int


def _fate(turn: int, number: int, dice: Random) -> Fate:
    prompt, kind = f"{turn}/{number}", dice.choice(FATES)
    count, framed = dice.randrange(1, 400), [HEAD]
    events = [content(f"{prompt}/{place} " + "x" * dice.choice((0, 0, 10, 900))) for place in range(count)]
    events.append(event(choices=[], usage=usage(5, OUTPUT)) + DONE)
    while events:
        together = dice.choice((1, 1, 3, 40))
        framed.append(_chunk(b"".join(events[:together])))
        del events[:together]
    framed.append(_chunk(b""))
    whole = sent = b"".join(framed)
    if kind == "cut":
        # Behind the first event: before it, there is no stream that could break.
        sent = whole[: dice.randrange(whole.index(b"\n\n") + 2, len(whole))]
    return Fate(prompt, MODELS[number], kind, whole, sent, dice.choice((100, 1_000, 16_384, 100_000)))


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def _body_in(sent: bytes) -> bytes:
    """Of an answer that may be cut anywhere."""
    body, rest = b"", sent[len(HEAD) :]
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body += rest[:length]
        rest = rest[length + 2 :]
    return body


@asynccontextmanager
async def _upstream(fates: dict[str, Fate]) -> AsyncIterator[str]:
    """Answers a request as its prompt says, and ends the connection where the answer is cut."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            is_whole = True
            while is_whole:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                fate = fates[json.loads(await reader.readexactly(size))["messages"][0]["content"]]
                for begin in range(0, len(fate.sent), fate.piece):
                    writer.write(fate.sent[begin : begin + fate.piece])
                    await writer.drain()
                is_whole = fate.sent == fate.whole
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _ask(gateway: WholeGateway, fate: Fate, dice: Random) -> None:
    body = chat_body(model=fate.model, stream=True, stream_options={"include_usage": True})
    body["messages"][0]["content"] = fate.prompt
    headers = {"authorization": f"Bearer {KEY}"}
    received, is_broken = b"", False
    async with gateway.session.post(f"{gateway.url}/chat/completions", json=body, headers=headers) as answer:
        try:
            async for piece in answer.content.iter_any():
                received += piece
                if fate.kind == "left" and dice.random() < 0.2:
                    answer.close()
                    break
                if fate.kind == "slow":
                    await asyncio.sleep(dice.random() * 0.01)
        except aiohttp.ClientPayloadError:
            is_broken = True
    came = _body_in(fate.sent)
    if fate.kind == "left":
        assert came.startswith(received)
    elif fate.kind == "cut":
        whole_events = came[: came.rindex(b"\n\n") + 2]
        assert received.startswith(whole_events)
        told = received.removeprefix(whole_events)
        assert is_broken
        assert json.loads(told.removeprefix(b"data: "))["error"]["code"] == "upstream_broke"
    else:
        assert (is_broken, received == came) == (False, True)


@pytest.mark.parametrize("seed", range(2))
async def test_each_client_gets_its_own_events_and_each_request_is_settled(seed: int) -> None:
    dice = Random(seed)
    rounds = [[_fate(turn, number, dice) for number in range(STREAMS)] for turn in range(ROUNDS)]
    fates = {fate.prompt: fate for turn in rounds for fate in turn}
    kinds = Counter(fate.kind for fate in fates.values())
    models = {model: {"routes": [{"upstream": "up1"}]} for model in MODELS}
    async with _upstream(fates) as url, whole_gateway(url, models=models) as gateway:
        gateway.let_the_kernel_hold_little()
        for turn in rounds:
            async with asyncio.TaskGroup() as group:
                for fate in turn:
                    group.create_task(_ask(gateway, fate, dice))
        ended = [await gateway.ended() for _ in fates]
        reported = [each for each in ended if each.usage is not None and each.usage.source == "reported"]
        assert len(reported) >= kinds["whole"] + kinds["slow"]
        assert {each.usage.output for each in reported if each.usage is not None} == {OUTPUT}
        assert sum(each.error is not None for each in ended) >= kinds["cut"]
        assert (await gateway.ledger()).requests == len(fates)
        assert [line for line in gateway.lines if "stack" in line] == []
