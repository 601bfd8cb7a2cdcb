"""The SDKs of Mistral and of Cohere: what of theirs the gateway serves, and what they hear of the rest."""

from __future__ import annotations

from pathlib import Path

from gateway.demo import DemoScript, DemoUpstream
from tests.clients.programs.programs import GPT, Program, required, run
from tests.clients.programs.request_tap import request_tap
from tests.clients.programs.scripted_answers import CHAT
from tests.clients.programs.scripted_upstream import FINAL_WORDS, Fault
from tests.clients.programs.side_by_side import assert_charged, through
from tests.clients.programs.test_errands import PATIENCE_S
from tests.whole_gateway import whole_gateway

PYTHON = ("python", "errand.py")
MISTRAL = Program("mistral-sdk-apis", CHAT, GPT, PYTHON, page="mistral-sdk", script="mistral_sdk_apis.py")
COHERE = Program("cohere-sdk", CHAT, GPT, PYTHON, script="cohere_sdk.py")


async def test_mistrals_sdk_waits_for_a_rate_embeds_and_is_refused_with_reasons(tmp_path: Path) -> None:
    required(MISTRAL)
    busy = Fault(429, "rate_limit_exceeded", "Try again in 1s.", {"retry-after": "1"})
    async with through(faults=(busy,)) as scene:
        ran = await run(MISTRAL, scene.tap.port, tmp_path, patience_s=PATIENCE_S)
        assert ran.code == 0, ran.printed
        refused_at_first, again, *_ = scene.tap.sent
        assert again.at_s - refused_at_first.at_s >= 1
        await assert_charged(scene)
    served, refused = _sorted(ran.printed)
    assert served == [f"said {FINAL_WORDS}", "embeddings 1"]
    assert [line.split()[1] for line in refused] == ["404", "400", "404"]
    for line, reason in zip(refused, ("model_not_found", "temperature", "Mistral's API"), strict=True):
        assert reason in line


async def test_coheres_sdk_reranks_and_is_refused_with_reasons(tmp_path: Path) -> None:
    required(COHERE)
    team = {"limits": [{"requests": 2, "per": "day"}]}
    async with (
        DemoUpstream(DemoScript()) as upstream,
        whole_gateway(upstream.base_url, team=team) as gateway,
        request_tap(gateway.port) as tap,
    ):
        ran = await run(COHERE, tap.port, tmp_path, patience_s=PATIENCE_S)
    assert ran.code == 0, ran.printed
    assert [sent.path for sent in tap.sent[:2]] == ["/v2/rerank", "/v1/rerank"]
    served, refused = _sorted(ran.printed)
    assert served == ["ranked [0, 1]", "ranked by the first version [0, 1]"]
    assert [line.split()[1] for line in refused] == ["404", "404", "404", "429"]
    reasons = ("/v1/chat/completions", "/v1/embeddings", "model_not_found", "requests-per-day")
    for line, reason in zip(refused, reasons, strict=True):
        assert reason in line


def _sorted(printed: str) -> tuple[list[str], list[str]]:
    """What was served, and what was refused."""
    served: list[str] = []
    refused: list[str] = []
    for line in printed.splitlines():
        (refused if line.startswith("refused") else served).append(line)
    return served, refused
