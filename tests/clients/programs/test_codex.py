"""Codex keeps to one upstream connection, and its provider that is built in starts at once."""

from __future__ import annotations

from pathlib import Path

from tests.clients.programs.programs import GPT, PROMPT, Program, required, run
from tests.clients.programs.scripted_answers import RESPONSES
from tests.clients.programs.side_by_side import asking, assert_charged, outcome, through
from tests.clients.programs.test_errands import PATIENCE_S

CODEX = ("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
OWN = Program("codex", RESPONSES, GPT, (*CODEX, PROMPT))
STARTS = 3
"""Of which one has to be quick: a busy machine makes any of them slow."""

BUILT_IN = OWN._replace(
    command=(
        *("env", "bash", "-c", 'CODEX_API_KEY=$INDUCTA_API_KEY exec "$@"', "bash"),
        *(*CODEX, "-c", 'model_provider="openai"', "-c", 'openai_base_url="http://127.0.0.1:8080/v1"', PROMPT),
    )
)


async def test_ten_turns_keep_to_one_upstream_connection(tmp_path: Path) -> None:
    required(OWN)
    async with through(tool_calls=9) as scene:
        ran = await run(OWN, scene.tap.port, tmp_path, patience_s=PATIENCE_S)
        assert outcome(ran, scene).finished, ran.printed
        assert len(scene.upstream.seen) == 10
        assert len({seen.connection for seen in scene.upstream.seen}) == 1
        await assert_charged(scene)


async def test_the_built_in_provider_gives_up_on_a_websocket_within_a_second(tmp_path: Path) -> None:
    required(OWN)
    starts = []
    while len(starts) < STARTS and (not starts or starts[-1] >= 1):
        starts.append(await _start(tmp_path / str(len(starts))))
    assert starts[-1] < 1, starts


async def _start(folder: Path) -> float:
    """How many seconds lie between the probe for a WebSocket and the first request for an answer."""
    async with through() as scene:
        ran = await run(BUILT_IN, scene.tap.port, folder, patience_s=PATIENCE_S)
        assert outcome(ran, scene).finished, ran.printed
        (probe,) = [sent for sent in scene.tap.sent if sent.method == "GET" and sent.path == "/v1/responses"]
        await assert_charged(scene)
        return asking(scene.tap.sent)[0].at_s - probe.at_s
