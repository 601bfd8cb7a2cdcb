"""Whatever an upstream answers, the gateway makes no error of its own, and charges no nonsense."""

from __future__ import annotations

import json
import logging
from random import Random
from typing import Any

import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import DONE, content, event, finish, usage
from tests.whole_gateway import whole_gateway

GOOD = b"".join([content("a"), content("b"), finish(), event(choices=[], usage=usage(3, 2)), DONE])
COUNTS = (0, 1, -1, 2**31, 2**53, 2**63, 2**64, 10**40, 1.5, -0.0, 1e308, None, True, "7", [], {}, [1], {"a": 1})
RAW_COUNTS = (b"NaN", b"Infinity", b"1e999", b"-1e999", b"0x10", b"1_000", b"", b"9" * 5000)


@pytest.mark.parametrize("seed", range(4))
async def test_hundreds_of_strange_answers_make_no_error_of_ours(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    dice = Random(seed)
    team = {"limits": [{"tokens": 10**12, "per": "month"}, {"usd": 10**6, "per": "month"}]}
    model = {"price": {"input": 1, "output": 2}, "max_output_tokens": 1000}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team, model=model) as gateway:
        for _ in range(150):
            streams = dice.random() < 0.7
            body = _strange_stream(dice) if streams else _strange_body(dice)
            upstream.script = DemoScript(
                body=body.decode("utf-8", "replace"), pieces=dice.choice(("byte", "random", "whole"))
            )
            before = await gateway.ledger()
            reply = await gateway.chat(
                stream=streams, **({"stream_options": {"include_usage": True}} if seed % 2 else {})
            )
            assert reply.status != 500, body
            exchange = await gateway.ended()
            after = await gateway.ledger()
            assert exchange.error is None or exchange.error.code != "internal_error", body
            assert after.input >= before.input, body
            assert after.output >= before.output, body
            assert after.cost >= before.cost, body
        upstream.script = DemoScript(chunks=3)
        before = await gateway.ledger()
        assert (await gateway.chat(stream=True)).status == 200
        assert (await gateway.ended()).usage is not None
        assert (await gateway.ledger()).output == before.output + 3
        assert "stack" not in json.dumps(gateway.lines)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def _strange_stream(dice: Random) -> bytes:
    stream = b"".join([content("a"), finish(), _report(dice, choices=dice.choice([[], None, 1, [None], [{}]])), DONE])
    return _mutated(stream if dice.random() < 0.5 else GOOD, dice) if dice.random() < 0.6 else stream


def _strange_body(dice: Random) -> bytes:
    body = _report(dice).removeprefix(b"data: ").rstrip()
    return _mutated(body, dice) if dice.random() < 0.5 else body


def _report(dice: Random, **fields: Any) -> bytes:
    """An event with counts that no model server should report."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens")
    counts: Any = {name: dice.choice(COUNTS) for name in names if dice.random() < 0.8}
    details = {"cached_tokens": dice.choice(COUNTS), "reasoning_tokens": dice.choice(COUNTS)}
    counts |= {"prompt_tokens_details": dice.choice((details, None, 5)), "completion_tokens_details": details}
    told = event(**fields, usage=dice.choice((counts, counts, counts, None, [], "x")))
    return told.replace(b":1,", b":" + dice.choice(RAW_COUNTS) + b",") if dice.random() < 0.2 else told


def _mutated(data: bytes, dice: Random) -> bytes:
    mutant = bytearray(data)
    for _ in range(dice.randint(1, 5)):
        place = dice.randrange(len(mutant))
        match dice.randrange(3):
            case 0:
                del mutant[place : place + dice.randint(1, 9)]
            case 1:
                mutant[place] = dice.choice(b'"{}[]:,\\\n\r 0e\x00\xff')
            case _:
                mutant[place:place] = mutant[place : place + 30]
    return bytes(mutant) or b"x"
