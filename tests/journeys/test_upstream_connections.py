"""An upstream's connections: shared by its models, and not trusted where it speaks unasked."""

from __future__ import annotations

import asyncio

from tests.hand_upstream import hand_upstream
from tests.whole_gateway import MODEL, whole_gateway

OTHER = "other/model"
ANSWER = b'{"object":"chat.completion","choices":[]}'


async def test_a_model_that_hangs_leaves_connections_to_the_other_models_of_its_upstream() -> None:
    async with hand_upstream() as upstream:
        upstreams = {"up1": {"base_url": upstream.base_url, "max_connections": 4}}
        models = {name: {"routes": [{"upstream": "up1"}]} for name in (MODEL, OTHER)}
        async with whole_gateway(upstreams=upstreams, models=models) as gateway:
            hanging = [asyncio.create_task(gateway.chat()) for _ in range(20)]
            for _ in range(3):
                assert (await upstream.asked()).json["model"] == MODEL
            other = asyncio.create_task(gateway.chat(model=OTHER))
            turn = await upstream.asked()
            assert turn.json["model"] == OTHER
            turn.answer(ANSWER)
            assert (await other).status == 200
            for task in hanging:
                task.cancel()
            await asyncio.wait(hanging)


async def test_bytes_that_answer_no_request_are_counted_each_time_and_logged_once() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        for _ in range(3):
            asked = asyncio.create_task(gateway.chat())
            (await upstream.asked()).say(2 * (head + ANSWER))
            assert (await asked).status == 200
        counted = 'gateway_upstream_attempts_total{upstream="up1",outcome="unrequested_bytes"} 3'
        assert counted in await gateway.metrics()
        [line] = [line for line in gateway.lines if line["level"] == "warning"]
        assert (line["event"], line["upstream"]) == ("upstream sent bytes that answer no request", "up1")
